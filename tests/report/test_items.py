"""Every item: found, ordered, drawn or filled from run directories, and decided."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_runs import CNN, SETTINGS, paper_runs, write_run
from fisher_jax.report.build import draw, item_rows
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.claims import verdict_on
from fisher_jax.report.collect import load_runs
from fisher_jax.report.item import all_items

ROOT = Path(__file__).parents[2]
ITEMS = all_items()
FIGURES = [key for key, item in ITEMS.items() if item.figure]
TABLES = [key for key, item in ITEMS.items() if item.table]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paper_runs(folder, num_epochs=6, seeds=(0,))
    return load_runs([folder])


def drawn(key, runs):
    return draw(ITEMS[key].figure, item_rows(ITEMS[key], runs), runs)


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_is_drawn_labelled_and_described(runs, key):
    if not len(item_rows(ITEMS[key], runs)):
        pytest.skip("benchmarks/synthetic_runs.py has no runs of it")
    before = {index: list(frame) for index, frame in runs.metrics.items()}
    drawing = drawn(key, runs)
    assert isinstance(drawing, Drawing), drawing
    # All figures share the records.
    assert before == {index: list(frame) for index, frame in runs.metrics.items()}
    shown = [axes for axes in drawing.figure.axes if axes.axison and axes.has_data()]
    assert shown
    for axes in shown:
        assert axes.get_ylabel(), key
    assert len(ITEMS[key].figure.alt) > 60
    assert drawing.run_count > 0


@pytest.mark.parametrize("key", TABLES)
def test_every_table_is_filled_as_wide_as_its_head(runs, key):
    rows = item_rows(ITEMS[key], runs)
    table = ITEMS[key].table.fill(rows, runs)
    if isinstance(table, str):
        assert table.startswith("no ")
        return
    assert table.rows
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}


def test_every_claim_is_decided_or_says_why_not(runs):
    for item in ITEMS.values():
        for claim in item.claims:
            verdict = verdict_on(claim, item_rows(item, runs), runs)
            for _, decision in verdict.findings:
                is_decided = decision.status != "undecided"
                assert bool(decision.reason) != is_decided, claim.text
                assert decision.evidence or not decision.is_tested, claim.text


def test_an_item_names_experiments_that_exist_and_its_own_place():
    for key, item in ITEMS.items():
        for experiment in item.experiments:
            assert (ROOT / "experiments" / f"{experiment}.py").exists(), key
        assert item.figure or item.table, key
        is_papers = item.name.startswith(("Table ", "Figure "))
        assert bool(item.place) == is_papers, key


def test_the_papers_items_stand_first_and_in_its_order():
    names = [item.name for item in ITEMS.values()]
    papers = [f"Table {n}" for n in range(1, 10)]
    papers += [f"Figure {n}" for n in range(1, 22)]
    assert names[: len(papers)] == papers


def test_a_new_file_is_a_new_item(tmp_path, monkeypatch):
    items = importlib.import_module("fisher_jax.report.items")
    text = (ROOT / "fisher_jax/report/items/table2.py").read_text()
    renamed = text.replace('name="Table 2"', 'name="Table 22"')
    (tmp_path / "table22.py").write_text(renamed)
    monkeypatch.setattr(items, "__path__", [*items.__path__, str(tmp_path)])
    assert list(all_items())[9] == "table22"


def test_published_points_are_hollow_and_only_beside_the_papers_data(runs, tmp_path):
    drawing = drawn("figure2", runs)
    hollow = [
        line.get_xydata()
        for axes in drawing.figure.axes
        for line in axes.lines
        if line.get_markerfacecolor() == "none"
    ]
    points = [(p.trace, p.accuracy) for p in ITEMS["figure2"].published["cifar10"]]
    assert any(np.array_equal(xy, points) for xy in hollow)
    assert len(hollow) == 3
    small = CNN | {"train.num_epochs": 6}
    write_run(tmp_path / "r", experiment="fig02", changes=small, small=True)
    (axes,) = drawn("figure2", load_runs([tmp_path])).figure.axes
    assert all(line.get_markerfacecolor() != "none" for line in axes.lines)


def test_published_tables_are_complete():
    sizes = {1: 30, 2: 10, 3: 20, 4: 24, 5: 30, 6: 30, 7: 10, 8: 10, 9: 10}
    for number, size in sizes.items():
        values = ITEMS[f"table{number}"].published
        assert len(values) == size, number
        assert all(np.isfinite(value.value) for value in values.values())
    # Each row's last number, as a check against a slip of columns.
    cnn, resnet = "cifar10_simple_cnn", "cifar100_wide_resnet"
    assert ITEMS["table1"].published[cnn, "gp_r"].value == 79.76
    assert ITEMS["table5"].published[cnn, "gp_r"].value == 20.55
    assert ITEMS["table3"].published[resnet, "0.5", "gp_r"].value == 50.08
    assert ITEMS["table7"].published["tiny_imagenet_wide_resnet", "fp"].std == 5.85


def test_fp_costs_1_09_to_1_69_times_the_baseline_in_the_paper():
    times = ITEMS["table5"].published
    settings = {setting for setting, _ in times}
    ratios = [times[s, "fp"].value / times[s, "baseline"].value for s in settings]
    assert [round(min(ratios), 2), round(max(ratios), 2)] == [1.09, 1.69]


def test_a_name_with_a_dollar_is_no_mathematics(tmp_path):
    changes = SETTINGS["cifar100_vgg11"] | {"dataset.name": "a$\\frac{$_b"}
    changes |= {"train.num_epochs": 2}
    write_run(tmp_path / "r", experiment="fig18", changes=changes, every_steps=20)
    drawing = drawn("figure18", load_runs([tmp_path]))
    drawing.figure.canvas.draw()
