"""Every item: found, ordered, drawn or filled from run directories, and decided."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_runs import CNN, SETTINGS, paper_runs, write_run
from fisher_jax.report.build import draw, item_rows
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.claims import verdicts_on
from fisher_jax.report.collect import load_runs
from fisher_jax.report.item import all_items

ROOT = Path(__file__).parents[2]
ITEMS = all_items()
FIGURES = [key for key, item in ITEMS.items() if item.figure]
TABLES = [key for key, item in ITEMS.items() if item.table]
PAPERS_TABLES = [key for key in TABLES if ITEMS[key].place]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paper_runs(folder, num_epochs=6, num_seeds=1)
    return load_runs([folder])


def drawn(key, runs):
    return draw(ITEMS[key].figure, item_rows(ITEMS[key], runs), runs)


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_is_drawn_labelled_and_described(runs, key):
    if not len(item_rows(ITEMS[key], runs)):
        pytest.skip("benchmarks/synthetic_runs.py has no runs of it")
    before = {index: list(frame) for index, frame in runs.metrics.items()}
    drawing = drawn(key, runs)
    if not ITEMS[key].experiments and isinstance(drawing, str):
        assert drawing.startswith("no ")
        return
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
            verdict = next(verdicts_on([claim], item_rows(item, runs), runs))
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
    names = [item.name.split() for item in ITEMS.values()]
    kinds = [
        words[0] if words[0] in ("Table", "Figure") else "Other" for words in names
    ]
    assert kinds == sorted(kinds, key=["Table", "Figure", "Other"].index)
    for kind in ("Table", "Figure"):
        numbers = [int(words[1]) for words in names if words[0] == kind]
        assert numbers == sorted(set(numbers))


def test_a_new_file_is_a_new_item(tmp_path, monkeypatch):
    items = importlib.import_module("fisher_jax.report.items")
    text = (ROOT / "fisher_jax/report/items/table2.py").read_text()
    renamed = text.replace('"Table 2"', '"Table 22"')
    (tmp_path / "table22.py").write_text(renamed)
    monkeypatch.setattr(items, "__path__", [*items.__path__, str(tmp_path)])
    assert list(all_items())[len(PAPERS_TABLES)] == "table22"


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
    write_run(tmp_path / "r", experiment="fig02", changes=small, form="small")
    (axes,) = drawn("figure2", load_runs([tmp_path])).figure.axes
    assert all(line.get_markerfacecolor() != "none" for line in axes.lines)


@pytest.mark.parametrize("key", PAPERS_TABLES)
def test_published_tables_have_every_cell(key):
    published = ITEMS[key].published
    rows, columns = {k[:-1] for k in published}, {k[-1] for k in published}
    assert len(published) == len(rows) * len(columns) > 0
    assert all(np.isfinite(value.value) for value in published.values())


def test_a_name_with_a_dollar_is_no_mathematics(tmp_path):
    changes = SETTINGS["cifar100_vgg11"] | {"dataset.name": "a$\\frac{$_b"}
    changes |= {"train.num_epochs": 2}
    write_run(tmp_path / "r", experiment="fig18", changes=changes, every_steps=20)
    drawing = drawn("figure18", load_runs([tmp_path]))
    drawing.figure.canvas.draw()
