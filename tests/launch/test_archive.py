import json

import pytest

from fisher_jax.run_files import find_runs, metrics_file, read_bytes, read_run
from launch.archive import main, thin


def records(number):
    return [
        {
            "step": 10 * e,
            "epoch": e,
            "time": 0.1 * e,
            "train/loss": 2.0 - 0.01 * e - (3.0 if e == 97 else 0.0),
            "validation/accuracy": 0.5 + (0.25 if e == 37 else 0.0),
            "test/accuracy": 0.5 + (0.25 if e == 41 else 0.0),
            "trace/fisher": 1 / 3 + {0: 500.0, 53: 99.0}.get(e, 0.0),
            "trace/hessian": 1.0 if e in (7, 77) else None,
        }
        for e in range(number)
    ]


def ended_run(run, number):
    run.mkdir(parents=True)
    lines = [json.dumps(record) for record in records(number)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "config.json").write_text('{\n "config": {}\n}')
    (run / "result.json").write_text('{\n "status": "finished"\n}')
    return lines


def archived(directory):
    return json.loads((directory / "config.json").read_text())["archived"]


def test_what_the_result_speaks_of_stays():
    # Even ones; the best two; the largest Tr(F) after epoch 1; the two Tr(H); the first
    # loss below 1.2 (at epoch 81) and below 3.5; the smallest loss.
    special = {37, 41, 53, 7, 77, 81, 97}
    assert thin(records(101), 5) == sorted({0, 25, 50, 75, 100} | special)
    # Tr(H) that was measured in most records is thinned out with them.
    often = [record | {"trace/hessian": 1.0} for record in records(101)]
    assert thin(often, 5) == sorted({0, 25, 50, 75, 100} | special - {7, 77})
    assert thin(records(5), 5) == list(range(5))
    assert thin([], 5) == []


def test_the_largest_trace_stays_within_the_first_epoch_too():
    steps = [{"epoch": i / 50, "trace/fisher": 9.0 - abs(i - 33)} for i in range(101)]
    assert thin(steps, 3) == [0, 33, 50, 100]


@pytest.mark.parametrize("number", [1, 2])
def test_the_first_and_the_last_stay_always(number):
    # And the largest Tr(F) after epoch 1.
    assert thin(records(7), number) == [0, 1, 6]
    assert thin(records(1), number) == [0]


def test_the_early_cosines_that_figure_12_averages_stay():
    records = [{"epoch": epoch, "gradient/cosine": -0.1} for epoch in range(101)]
    assert set(range(11)) <= set(thin(records, 4))
    plain = [{"epoch": epoch} for epoch in range(101)]
    assert len(thin(plain, 4)) == 4


def test_an_archive_is_small_and_has_the_runs_names_and_bits(tmp_path, capsys):
    runs = tmp_path / "runs"
    lines = ended_run(runs / "sweep" / "seed_0", 500)
    ended_run(runs / "sweep" / "seed_1", 3)
    (runs / "sweep" / "seed_0" / "run.json").write_text("{}")
    command = json.dumps({"config": {}, "argv": ["main.py"]})
    for name in ("seed_0", "seed_1"):
        (runs / "sweep" / name / "config.json").write_text(command)
    (runs / "sweep" / "selection.json").write_text("{}")
    assert main([str(runs), str(tmp_path / "kept")]) == 0
    kept = tmp_path / "kept" / "sweep" / "seed_0"
    assert json.loads((kept / "result.json").read_text()) == {"status": "finished"}
    assert (kept / "run.json").exists()
    assert (tmp_path / "kept" / "sweep" / "selection.json").exists()
    assert not (kept / "metrics.jsonl").exists()
    kept_lines = read_bytes(metrics_file(kept)).decode().splitlines()
    assert set(kept_lines) < set(lines)
    assert 30 <= len(kept_lines) <= 36
    assert archived(kept) == {"records": "thinned"}
    assert "argv" not in (kept / "config.json").read_text()
    assert "argv" in (kept.with_name("seed_1") / "config.json").read_text()
    assert archived(kept.with_name("seed_1")) == {"records": "every"}
    # An archive of an archive still says what is gone; in its own place, too.
    for target in ("again", "kept"):
        assert main([str(tmp_path / "kept"), str(tmp_path / target)]) == 0
        again = tmp_path / target / "sweep" / "seed_0"
        assert archived(again) == {"records": "thinned"}
    assert main([str(kept / "x"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no run in ")


def test_one_record_can_be_asked_for(tmp_path):
    ended_run(tmp_path / "runs", 7)
    kept = tmp_path / "kept"
    assert main([str(tmp_path / "runs"), str(kept), "--records=1"]) == 0
    assert [record["step"] for record in read_run(kept).records] == [0, 10, 60]


def test_in_its_own_place_records_are_packed_once_and_the_same_bytes(tmp_path):
    lines = ended_run(tmp_path / "run", 9)
    packed = tmp_path / "run" / "metrics.jsonl.gz"
    assert main([str(tmp_path / "run"), str(tmp_path / "run")]) == 0
    first = packed.read_bytes()
    assert main([str(tmp_path / "run"), str(tmp_path / "run")]) == 0
    assert packed.read_bytes() == first
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert read_bytes(packed).decode().splitlines() == lines
    assert find_runs([tmp_path]) == [tmp_path / "run"]


@pytest.mark.parametrize("damage", [b"no gzip", None])
def test_a_damaged_package_is_told_in_one_line(tmp_path, capsys, damage):
    ended_run(tmp_path / "run", 9)
    assert main([str(tmp_path / "run"), str(tmp_path / "kept")]) == 0
    packed = tmp_path / "kept" / "metrics.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-20] if damage is None else damage)
    assert read_run(tmp_path / "kept").records == []
    assert main([str(tmp_path / "kept"), str(tmp_path / "again")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("line", [b'{"step": 9', b'{"st\xffep": 9}'])
def test_a_damaged_file_is_named_in_one_line(tmp_path, capsys, line):
    ended_run(tmp_path / "runs", 9)
    with (tmp_path / "runs" / "metrics.jsonl").open("ab") as file:
        file.write(line)
    assert main([str(tmp_path / "runs"), str(tmp_path / "kept")]) == 2
    error = capsys.readouterr().err
    assert "metrics.jsonl line 10 is damaged" in error
    assert error.count("\n") == 1
