import json

import matplotlib.image
import numpy as np
import pytest

from fisher_jax.report.overlay import COLOURS, Panel, draw_overlay, save_figure
from fisher_jax.report.runs import read_run, series

ROWS = [
    {"step": 0, "epoch": 0, "trace/fisher": 10.0, "test/accuracy": 0.1},
    {"step": 5, "epoch": 0.5, "trace/fisher": 20.0},
    {"step": 10, "epoch": 1, "trace/fisher": None, "test/accuracy": 0.6},
]


@pytest.fixture
def directory(tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 11, "ep']))
    (tmp_path / "config.json").write_text('{"config": {"seed": 3}}')
    return tmp_path


def test_a_broken_off_run_is_read_as_far_as_it_goes(directory):
    run = read_run(directory)
    assert run.records == ROWS
    assert run.unreadable_lines == 1
    assert run.config["config"]["seed"] == 3
    assert run.result == {}


def test_a_directory_without_files_is_an_empty_run(tmp_path):
    run = read_run(tmp_path / "nowhere")
    assert (run.records, run.config, run.result) == ([], {}, {})


def test_series_leaves_out_what_was_not_recorded(directory):
    run = read_run(directory)
    assert series(run, "trace/fisher") == ([0, 0.5], [10.0, 20.0])
    assert series(run, "test/accuracy") == ([0, 1], [0.1, 0.6])
    assert series(run, "nothing") == ([], [])


def test_each_run_is_a_line_in_each_panel(directory):
    runs = {"first": read_run(directory), "second": read_run(directory)}
    panels = [
        Panel("trace/fisher", "Tr(F)", "log"),
        Panel("test/accuracy", "test accuracy, %", factor=100),
    ]
    figure = draw_overlay(runs, panels, "title")
    left, right = figure.axes
    assert left.get_yscale() == "log"
    assert [line.get_color() for line in left.lines] == list(COLOURS[:2])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[0, 10], [1, 60]])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["first", "second"]


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_a_figure_is_written_where_asked(directory, ending):
    figure = draw_overlay({"a": read_run(directory)}, [Panel("trace/fisher", "F")], "")
    path = directory / "new" / f"figure.{ending}"
    save_figure(figure, path)
    assert path.stat().st_size > 1000
    if ending == "png":
        assert np.ptp(matplotlib.image.imread(path)) > 0.5
