import json

import numpy as np
import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.errors import UserError
from fisher_jax.report.__main__ import main
from fisher_jax.report.canvas import COLOURS
from fisher_jax.report.compare import (
    Metric,
    config_differences,
    draw_runs,
    read_all,
    result_rows,
    short_names,
)


@pytest.fixture
def folders(tmp_path):
    for name, alpha, until in (("a", 0.1, None), ("b", 0.3, 2)):
        write_run(
            tmp_path / name / "run",
            experiment="table1",
            changes=CNN | {"penalty.coefficient": alpha, "train.num_epochs": 4},
            method="fp",
            until_epoch=until,
        )
    return tmp_path / "a", tmp_path / "b"


def test_what_two_runs_differ_in(folders):
    runs, skipped = read_all(folders)
    assert not skipped
    assert list(runs) == ["a/run", "b/run"]
    differences = config_differences(runs)
    assert differences.rows == (("penalty.coefficient", ("0.1", "0.3")),)
    results = dict(result_rows(runs).rows)
    assert results["last epoch"] == ("4", "2")
    assert results["status"] == ("finished", "–")


def test_names_are_as_short_as_can_be(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert short_names(paths) == ["a/run", "b/run"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_each_run_is_a_line_in_each_panel(folders):
    figure = draw_runs(read_all(folders)[0])
    panels = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title() for axes in panels]
    assert "Tr(F)" in titles
    assert "Tr(H)" not in titles  # none has measured it
    assert all(len(axes.lines) == 2 for axes in panels)


def test_chosen_metrics_are_scaled_named_and_coloured(tmp_path):
    rows = [{"step": i, "epoch": i, "x": 10.0 * (i + 1), "y": i / 2} for i in (0, 1)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ((run,),) = read_all([tmp_path])[0].values()
    metrics = [Metric("x", "X", "log"), Metric("y", "Y, %", factor=100)]
    figure = draw_runs({"first": [run], "second": [run]}, metrics, "title")
    left, right = figure.axes
    assert left.get_yscale() == "log"
    assert [line.get_color() for line in left.lines] == list(COLOURS[:2])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[0, 0], [1, 50]])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["first", "second"]


def test_the_command_prints_and_draws(folders, tmp_path, capsys):
    out = tmp_path / "new" / "both.png"
    assert main(["compare", *map(str, folders), f"--out={out}"]) == 0
    shown = capsys.readouterr().out
    assert "penalty.coefficient" in shown
    assert f"Figure: {out}" in shown
    assert out.read_bytes().startswith(b"\x89PNG")


def test_hostile_and_empty_runs_are_shown_as_they_are(tmp_path, capsys):
    path = tmp_path / "[red]x$_{"
    path.mkdir()
    nested = {"[bold]key": "$\\frac{", "list": [1, {"a": 2}]}
    (path / "config.json").write_text(json.dumps({"config": nested}))
    (path / "result.json").write_text('{"status": "[blink]"}')
    line = {"step": 1, "epoch": 1, "test/accuracy": "text", "train/accuracy": 0.5}
    (path / "metrics.jsonl").write_text(json.dumps(line))
    empty = tmp_path / "_empty"
    empty.mkdir()
    (empty / "metrics.jsonl").write_text("")
    out = tmp_path / "x.png"
    assert main(["compare", str(path), str(empty), f"--out={out}"]) == 0
    shown = capsys.readouterr().out
    assert "[blink]" in shown
    assert "[bold]key" in shown
    assert out.exists()


def test_runs_without_any_record_have_no_figure(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("")
    out = tmp_path / "x.png"
    assert main(["compare", str(tmp_path), f"--out={out}"]) == 0
    assert "no figure" in capsys.readouterr().out
    assert not out.exists()


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of one learning rate and two of another, and a log beside them."""
    for rate, count in ((0.01, 3), (0.1, 2)):
        for seed in range(count):
            changes = CNN | {"optimizer.learning_rate": rate, "train.num_epochs": 4}
            write_run(
                tmp_path / f"rate_{rate}-seed_{seed}",
                experiment="own",
                changes=changes | {"seed": seed},
            )
    for path in tmp_path.iterdir():
        accuracy = 0.5 + 0.1 * int(path.name[-1])
        result = {"status": "finished", "test_accuracy": accuracy}
        (path / "result.json").write_text(json.dumps(result))
    (tmp_path / "sweep.log").write_text("")
    return tmp_path


def test_seeds_of_a_configuration_are_averaged(seeds):
    groups, skipped = read_all(sorted(seeds.iterdir()))
    assert [path.name for path in skipped] == ["sweep.log"]
    assert {name: len(runs) for name, runs in groups.items()} == {
        "rate_0.01": 3,
        "rate_0.1": 2,
    }
    # t(0.975) of 2 and of 1 degrees of freedom times 10/√3 and 7.07/√2.
    results = dict(result_rows(groups).rows)
    assert results["test accuracy, %"] == ("60 ± 25", "55 ± 64")
    assert dict(config_differences(groups).rows) == {
        "seed": ("0, 1, 2", "0, 1"),
        "optimizer.learning_rate": ("0.01", "0.1"),
    }
    figure = draw_runs(groups, [Metric("test/accuracy", "test")])
    axes = figure.axes[0]
    assert len(axes.lines) == 2
    assert len(axes.collections) == 2  # a band each
    finals = [
        json.loads((run.directory / "metrics.jsonl").read_text().splitlines()[-1])
        for run in groups["rate_0.01"]
    ]
    mean = np.mean([final["test/accuracy"] for final in finals])
    np.testing.assert_allclose(axes.lines[0].get_ydata()[-1], mean)


def test_a_run_and_its_repetition_are_not_averaged(folders, tmp_path):
    write_run(
        tmp_path / "again",
        experiment="table1",
        changes=CNN | {"penalty.coefficient": 0.1, "train.num_epochs": 4},
        method="fp",
    )
    groups, _ = read_all([folders[0], tmp_path / "again"])
    assert [len(runs) for runs in groups.values()] == [1, 1]


def test_a_path_that_does_not_exist_stops_it(folders):
    with pytest.raises(UserError, match="does not exist"):
        read_all([*folders, folders[0] / "typo"])


def test_wide_tables_are_split_at_80_columns(seeds, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    paths = sorted(map(str, seeds.iterdir()))
    assert main(["compare", *paths, f"--out={seeds / 'x.png'}"]) == 0
    shown = capsys.readouterr()
    assert "Skipped, no runs in: sweep.log" in shown.err
    lines = shown.out.splitlines()
    assert lines[0] == "#1 rate_0.01 (3 seeds)"
    assert "bands are one standard deviation" in " ".join(lines[:5])
    tables = [line for line in lines if not line.startswith("Figure")]
    assert max(map(len, tables)) <= 80
    assert "60 ± 25" in shown.out
