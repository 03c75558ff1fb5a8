import json

from launch.archive import main, thin


def records(number):
    return [
        {
            "step": 10 * e,
            "epoch": e,
            "time": 0.1 * e,
            "train/loss": 2.0 - 0.01 * e,
            "validation/accuracy": 0.5 + (0.25 if e == 37 else 0.0),
            "test/accuracy": 0.5 + (0.25 if e == 41 else 0.0),
            "trace/fisher": 1 / 3 + (99.0 if e in (0, 53) else 0.0),
        }
        for e in range(number)
    ]


def test_what_the_result_speaks_of_stays():
    kept = {record["epoch"] for record in thin(records(101), 5)}
    # Even ones; the best two; the largest Tr(F) after epoch 1; the first loss below
    # 1.2 (at epoch 81) and below 3.5.
    assert kept == {0, 25, 50, 75, 100} | {37, 41, 53, 81}
    assert thin(records(5), 5) == records(5)


def test_an_archive_is_small_and_has_the_runs_names(tmp_path, capsys):
    run = tmp_path / "runs" / "sweep" / "seed_0"
    run.mkdir(parents=True)
    lines = [json.dumps(record) for record in records(500)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "result.json").write_text('{\n "status": "finished"\n}')
    (run / "run.json").write_text("{}")
    (tmp_path / "runs" / "sweep" / "selection.json").write_text("{}")
    assert main([str(tmp_path / "runs"), str(tmp_path / "kept")]) == 0
    kept = tmp_path / "kept" / "sweep" / "seed_0"
    assert json.loads((kept / "result.json").read_text()) == {"status": "finished"}
    assert (kept / "run.json").exists()
    assert (tmp_path / "kept" / "sweep" / "selection.json").exists()
    assert "0.333333}" in (kept / "metrics.jsonl").read_text()
    assert (kept / "metrics.jsonl").stat().st_size < 6000
    assert main([str(tmp_path / "kept" / "sweep" / "x"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no run in ")
