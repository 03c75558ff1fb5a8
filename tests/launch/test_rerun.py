import json

import pytest
from rich.console import Console

from fisher_jax.errors import UserError
from launch.rerun import first_difference, main, rerun, version_differences
from tests.command import ROOT, SMALL, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("first") / "run"
    code, output = run(*SMALL, "--config.train.num_epochs=2", f"--workdir={workdir}")
    assert code == 0, output
    return workdir


def test_a_rerun_is_identical_and_a_changed_record_is_found(
    finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    console = Console(soft_wrap=True, highlight=False)
    with console.capture() as capture:
        assert rerun(finished, tmp_path / "again", console) == 0
    assert capture.get().splitlines()[-1] == "identical"
    path = tmp_path / "again" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    loss = record["train/loss"]
    record["train/loss"] = loss * (1 + 2**-52)
    assert record["train/loss"] != loss
    lines[1] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    said = first_difference(finished, tmp_path / "again")
    assert said.startswith("metrics.jsonl line 2 (step 8): train/loss ")
    path.write_text("\n".join(lines[:1]) + "\n")
    said = first_difference(finished, tmp_path / "again")
    assert said == "metrics.jsonl: 3 records then, 1 now"


def test_other_versions_are_told():
    versions = {"numpy": "1.0", "no-such-package": "2"}
    assert len(version_differences(versions)) == 2
    assert "not installed now" in version_differences(versions)[1]


def test_what_cannot_be_rerun_gets_one_line(finished, tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "has no readable config.json" in error
    (tmp_path / "config.json").write_text('{"config": {}}')
    with pytest.raises(UserError, match="has not ended"):
        rerun(tmp_path, None, Console())
    with pytest.raises(UserError, match="is not empty"):
        rerun(finished, tmp_path, Console())
