import json
import re
import shutil

import pytest
from rich.console import Console

from fisher_jax.errors import UserError
from fisher_jax.host.machine import describe_machine
from launch.archive import main as archive
from launch.rerun import compare, conclusion, main, rerun, warn_of_other_machine
from tests.command import ROOT, SMALL, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("first") / "run"
    code, output = run(*SMALL, "--config.train.num_epochs=4", f"--workdir={workdir}")
    assert code == 0, output
    return workdir


@pytest.fixture(scope="module")
def archived(finished, tmp_path_factory):
    """The run, thinned to three records and what its result speaks of."""
    kept = tmp_path_factory.mktemp("kept") / "run"
    assert archive([str(finished), str(kept), "--records=3"]) == 0
    return kept


def said(run, again):
    config = json.loads((run / "config.json").read_text())
    return conclusion(compare(run, again), config.get("archived", {}))


def changed(directory, step, name, change):
    """Changes one value of metrics.jsonl."""
    path = directory / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["step"] == step:
            row[name] = change(row[name])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_archived_run_reruns_identical(archived, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    console = Console(soft_wrap=True, highlight=False)
    with console.capture() as capture:
        assert rerun(archived, tmp_path / "again", console) == 0
    first, last = capture.get().splitlines()
    assert first == f"Running again in {tmp_path}/again, log: {tmp_path}/again.log"
    assert "epoch 4/4" in (tmp_path / "again.log").read_text()
    assert re.fullmatch(
        r"identical: \d\d+ values of (all|the) \d records( that were kept)? and the "
        r"result, to the bit",
        last,
    ), last


def test_another_machine_is_named_before_the_run():
    console = Console(soft_wrap=True, highlight=False)
    with console.capture() as capture:
        warn_of_other_machine({"machine": "a big one, 64 cores"}, console)
        warn_of_other_machine({"machine": describe_machine()}, console)
        warn_of_other_machine({}, console)
    other, unknown = capture.get().splitlines()
    assert other.startswith(
        "Warning: the first run was on a big one, 64 cores; this is"
    )
    assert unknown.startswith("Warning: the first run did not record its machine.")


def test_a_changed_bit_is_found_with_its_size(finished, tmp_path):
    again = shutil.copytree(finished, tmp_path / "again")
    changed(again, 8, "train/loss", lambda loss: loss * (1 + 2**-52))
    changed(again, 16, "trace/fisher", lambda trace: trace * 1.25)
    first, largest = said(finished, again)
    assert re.match(
        r"different: 2 of \d+ values of all 5 records and the result, to the bit; "
        r"the first: step 8: train/loss [\d.]+ then, [\d.]+ now$",
        first,
    ), first
    assert largest.startswith("largest relative difference: 0.2, step 16: trace/fisher")


def test_a_changed_result_is_found(finished, tmp_path):
    again = shutil.copytree(finished, tmp_path / "again")
    result = json.loads((again / "result.json").read_text())
    (again / "result.json").write_text(json.dumps({**result, "steps": None}))
    (first,) = said(finished, again)
    assert first.endswith("the first: result.json: steps 32 then, None now")


def test_records_that_are_gone_are_told(finished, archived, tmp_path):
    again = shutil.copytree(finished, tmp_path / "again")
    path = again / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    assert "metrics.jsonl: 5 records then, 1 now" in said(finished, again)
    assert compare(archived, again).missing.startswith("metrics.jsonl: ")


def test_a_rounded_archive_is_compared_at_its_digits(finished, tmp_path):
    """As the archives of results/ are: six digits, which hide a last bit."""
    kept = shutil.copytree(finished, tmp_path / "kept")
    config = json.loads((kept / "config.json").read_text())
    config["archived"] = {"records": "thinned", "digits": 6}
    (kept / "config.json").write_text(json.dumps(config))
    lines = (kept / "metrics.jsonl").read_text().splitlines()
    rows = [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in map(json.loads, lines[::2])
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (kept / "metrics.jsonl").write_text(text)
    (line,) = said(kept, finished)
    assert line.startswith("identical: ")
    assert line.endswith("values of the 3 records that were kept and the result, at "
                         "the 6 digits that were kept")  # fmt: skip
    changed(kept, 16, "train/loss", lambda loss: loss * (1 + 2e-5))
    assert said(kept, finished)[0].startswith("different: 1 of ")


def test_every_archived_configuration_loads_and_says_what_was_kept():
    from fisher_jax.train.config import load_config

    paths = sorted((ROOT / "results").glob("**/config.json"))
    assert paths
    for path in paths[::40]:
        load_config(str(path))
    for path in paths:
        kept = json.loads(path.read_text())["archived"]
        assert kept["records"] in ("every", "thinned")


def test_what_cannot_be_rerun_gets_one_line(finished, tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "has no readable config.json" in error
    assert main([str(finished), "--seed=3"]) == 2
    assert "unexpected argument '--seed=3'" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"config": {}}')
    with pytest.raises(UserError, match="has not ended"):
        rerun(tmp_path, None, Console())
    with pytest.raises(UserError, match="is not empty"):
        rerun(finished, tmp_path, Console())
