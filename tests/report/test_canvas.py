"""Drawing primitives, by hand."""

import json

import numpy as np

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report import canvas
from fisher_jax.report.build import fisher_draw_notes
from fisher_jax.report.canvas import mean_curve
from fisher_jax.report.collect import load_runs


def test_a_mean_curve_by_hand(tmp_path):
    for seed, values in enumerate(((1.0, 3.0), (3.0, 7.0))):
        path = tmp_path / str(seed)
        path.mkdir()
        rows = [{"step": i, "epoch": i, "x": v} for i, v in enumerate(values)]
        (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        config = {"config": {"seed": seed, "train": {"num_epochs": 1}}}
        (path / "config.json").write_text(json.dumps(config))
    runs = load_runs([tmp_path])
    curve = mean_curve(runs.rows, runs.metrics, "x", factor=10)
    np.testing.assert_allclose(curve.mean, [20, 50])
    np.testing.assert_allclose(curve.std, [10 * 2**0.5, 20 * 2**0.5])
    smoothed = mean_curve(runs.rows, runs.metrics, "x", decay=0.5)
    # (0.5 * 1 + 3) / 1.5 and (0.5 * 3 + 7) / 1.5
    np.testing.assert_allclose(smoothed.mean, [2, (3.5 / 1.5 + 8.5 / 1.5) / 2])
    assert mean_curve(runs.rows, runs.metrics, "y") is None


def test_curves_average_ended_runs_only_where_there_are_some(tmp_path):
    for seed, until in ((0, None), (1, 1)):
        changes = CNN | {"seed": seed, "train.num_epochs": 3}
        write_run(
            tmp_path / str(seed), experiment="e", changes=changes, until_epoch=until
        )
    runs = load_runs([tmp_path])
    whole = mean_curve(runs.rows, runs.metrics, "trace/fisher")
    assert list(whole.x) == [0, 1, 2, 3]
    broken = runs.rows[runs.rows["status"] == "incomplete"]
    assert list(mean_curve(broken, runs.metrics, "trace/fisher").x) == [0, 1]


def test_colours_run_from_blue_to_red():
    colours = canvas.ordered_colours([0.3, 0.01, 0.1, 0.1])
    assert list(colours) == [0.01, 0.1, 0.3]
    first, *_, last = colours.values()
    assert first[2] > first[0]
    assert last[0] > last[2]


def one_run(folder):
    rows = [
        {"step": i, "epoch": i, "trace/fisher": v, "trace/fisher_sem": e}
        for i, (v, e) in enumerate(((2.0, 0.5), (10.0, 1.0), (4.0, 3.0)))
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {"measure": {"fisher_draw": "labels"}, "train": {"num_epochs": 2}}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    return load_runs([folder])


def test_the_band_of_one_run_is_its_standard_error(tmp_path):
    runs = one_run(tmp_path)
    curve = mean_curve(runs.rows, runs.metrics, "trace/fisher", factor=10)
    np.testing.assert_allclose(curve.mean, [20, 100, 40])
    np.testing.assert_allclose(curve.std, [5, 10, 30])
    smoothed = mean_curve(runs.rows, runs.metrics, "trace/fisher", decay=0.5)
    assert not smoothed.std.any()


def test_a_figure_with_traces_says_their_draw_and_error(tmp_path):
    runs = one_run(tmp_path)
    (note,) = fisher_draw_notes(runs.rows, runs)
    assert "sampled labels" in note
    # Of 10%, 25% and 75%.
    assert "below 25%, 95 in 100 below 70%" in note


def test_a_long_curve_keeps_its_ends_its_peak_and_its_trough(tmp_path):
    values = np.sin(np.arange(10_000) / 300)
    values[[3, 7001, 9996]] = 2.0, 40.0, -30.0
    rows = [{"step": i, "epoch": i, "x": v} for i, v in enumerate(values)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {"config": {"seed": 0, "train": {"num_epochs": 10_000}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    runs = load_runs([tmp_path])
    curve = mean_curve(runs.rows, runs.metrics, "x")
    assert len(curve.x) <= canvas.MAX_POINTS
    assert {0, 3, 7001, 9996, 9999} <= set(curve.x)
    np.testing.assert_array_equal(curve.mean, values[curve.x.astype(int)])
