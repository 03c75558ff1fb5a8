"""Every figure is drawn from run directories; what it shows is what they hold."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.synthetic_runs import CNN, SETTINGS, paper_runs, write_run
from fisher_jax.report import published
from fisher_jax.report.collect import load_runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.all import FIGURES, draw
from fisher_jax.report.figures.canvas import Drawing, mean_curve
from fisher_jax.report.figures.early import early_pairs
from fisher_jax.report.figures.onset import onset_means
from fisher_jax.report.figures.two_phase import with_phases


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paper_runs(folder, num_epochs=6, seeds=(0,))
    return load_runs([folder])


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_is_drawn_labelled_and_described(runs, key):
    drawing = draw(key, runs)
    assert isinstance(drawing, Drawing), drawing
    shown = [axes for axes in drawing.figure.axes if axes.axison and axes.has_data()]
    assert shown
    for axes in shown:
        assert axes.get_ylabel(), key
    assert drawing.key == key
    assert drawing.caption.endswith(".")
    assert len(drawing.alt) > 60
    assert drawing.run_count > 0


@pytest.mark.parametrize("key", FIGURES)
def test_without_runs_the_reason_is_said(key, tmp_path):
    write_run(tmp_path / "r", experiment="other", changes={"train.num_epochs": 1})
    reason = draw(key, load_runs([tmp_path]))
    assert isinstance(reason, str)
    assert reason.startswith("no ")


def test_a_mean_curve_by_hand(tmp_path):
    for seed, values in enumerate(((1.0, 3.0), (3.0, 7.0))):
        path = tmp_path / str(seed)
        path.mkdir()
        rows = [{"step": i, "epoch": i, "x": v} for i, v in enumerate(values)]
        (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        config = {"config": {"seed": seed, "train": {"num_epochs": 1}}}
        (path / "config.json").write_text(json.dumps(config))
    runs = load_runs([tmp_path])
    curve = mean_curve(runs.table, runs.metrics, "x", factor=10)
    np.testing.assert_allclose(curve.mean, [20, 50])
    np.testing.assert_allclose(curve.std, [10 * 2**0.5, 20 * 2**0.5])
    smoothed = mean_curve(runs.table, runs.metrics, "x", decay=0.5)
    # (0.5 * 1 + 3) / 1.5 and (0.5 * 3 + 7) / 1.5
    np.testing.assert_allclose(smoothed.mean, [2, (3.5 / 1.5 + 8.5 / 1.5) / 2])
    assert mean_curve(runs.table, runs.metrics, "y") is None


def test_curves_average_ended_runs_only_where_there_are_some(tmp_path):
    for seed, until in ((0, None), (1, 1)):
        changes = CNN | {"seed": seed, "train.num_epochs": 3}
        write_run(
            tmp_path / str(seed), experiment="e", changes=changes, until_epoch=until
        )
    runs = load_runs([tmp_path])
    whole = mean_curve(runs.table, runs.metrics, "trace/fisher")
    assert list(whole.x) == [0, 1, 2, 3]
    broken = runs.table[runs.table["status"] == "incomplete"]
    assert list(mean_curve(broken, runs.metrics, "trace/fisher").x) == [0, 1]


def test_published_points_are_hollow_and_only_beside_the_papers_data(runs, tmp_path):
    drawing = draw("figure2", runs)
    hollow = [
        line.get_xydata()
        for axes in drawing.figure.axes
        for line in axes.lines
        if line.get_markerfacecolor() == "none"
    ]
    points = [(p.trace, p.accuracy) for p in published.FIGURE_2["cifar10"]]
    assert any(np.array_equal(xy, points) for xy in hollow)
    assert len(hollow) == 3
    small = CNN | {"train.num_epochs": 6}
    write_run(tmp_path / "r", experiment="fig02", changes=small, small=True)
    (axes,) = draw("figure2", load_runs([tmp_path])).figure.axes
    assert all(line.get_markerfacecolor() != "none" for line in axes.lines)


def test_early_pairs_leave_out_runs_without_both():
    table = pd.DataFrame(
        {
            "early_fisher_trace": [100.0, None, 300.0],
            "best_test_accuracy": [0.5, 0.6, None],
        }
    )
    x, y = early_pairs(table, "best_test_accuracy")
    assert (list(x), list(y)) == ([100.0], [50.0])


def test_onset_means_by_hand():
    table = pd.DataFrame(
        {
            "method": ["fp", "fp", "fp", "baseline"],
            "start_epoch": [1.0, 1.0, 8.0, 0.0],
            "test_accuracy": [0.5, 0.7, 0.4, 0.1],
        }
    )
    means = onset_means(table)
    np.testing.assert_allclose(means["start_epoch"], [1, 8])
    np.testing.assert_allclose(means["mean"], [60, 40])
    assert means["std"].iloc[0] == pytest.approx(10 * 2**0.5)


def test_phases_follow_from_the_parent_without_run_json():
    first = {"init_from": "", "group": {}, "batch_size": 100.0}
    second = {"group": {}, "batch_size": 100.0, "learning_rate": 0.001}
    table = pd.DataFrame(
        [
            first | {"path": "a", "learning_rate": 0.01, "early_fisher_trace": 5.0},
            first | {"path": "b", "learning_rate": 0.001, "early_fisher_trace": 9.0},
            second | {"path": "c", "init_from": "a", "early_fisher_trace": None},
            second | {"path": "d", "init_from": "b", "early_fisher_trace": None},
        ]
    )
    rows = with_phases(table, table)
    assert list(rows["phase"]) == [1, 1, 2, 2]
    assert list(rows["start"]) == ["high", "low", "high", "low"]
    assert list(rows["first_early_fisher_trace"]) == [5.0, 9.0, 5.0, 9.0]


def test_phases_are_those_of_run_json_where_it_has_them():
    group = {"phase": "continued", "early": "low"}
    row = {"path": "c", "init_from": "gone", "group": group, "learning_rate": 0.1,
           "batch_size": 1.0, "early_fisher_trace": 1.0}  # fmt: skip
    rows = with_phases(pd.DataFrame([row]), pd.DataFrame([row]))
    assert (rows["phase"].iloc[0], rows["start"].iloc[0]) == (2, "low")


def test_colours_run_from_blue_to_red():
    colours = canvas.ordered_colours([0.3, 0.01, 0.1, 0.1])
    assert list(colours) == [0.01, 0.1, 0.3]
    first, *_, last = colours.values()
    assert first[2] > first[0]
    assert last[0] > last[2]


def test_a_name_with_a_dollar_is_no_mathematics(tmp_path):
    changes = SETTINGS["cifar100_vgg11"] | {"dataset.name": "a$\\frac{$_b"}
    changes |= {"train.num_epochs": 2}
    write_run(tmp_path / "r", experiment="fig18", changes=changes, every_steps=20)
    drawing = draw("figure18", load_runs([tmp_path]))
    drawing.figure.canvas.draw()
