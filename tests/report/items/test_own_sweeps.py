import csv
import json
import math

import pytest
from scipy import stats

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.__main__ import main
from fisher_jax.report.build import draw
from fisher_jax.report.collect import load_runs
from fisher_jax.report.items.own_sweeps import ITEM, sweeps_of

RATES = (0.1, 0.01)


def write_sweep(out, *, rates=RATES, seeds=(1, 2, 3), experiment="mine"):
    for rate in rates:
        for seed in seeds:
            changes = CNN | {"seed": seed, "optimizer.learning_rate": rate}
            write_run(
                out / f"rate_{rate}-seed_{seed}",
                experiment=experiment,
                changes=changes | {"train.num_epochs": 2},
            )
    return out


def test_a_row_for_each_configuration_with_the_mean_over_its_seeds(tmp_path):
    runs = load_runs([write_sweep(tmp_path / "runs")])
    out = tmp_path / "report"
    assert main([str(tmp_path / "runs"), f"--out={out}"]) == 0
    rows = list(csv.DictReader((out / "tables" / "own_sweeps.csv").open()))
    assert [(row["sweep"], row["learning rate"], row["n"]) for row in rows] == [
        ("mine", "0.01", "3"),
        ("mine", "0.1", "3"),
    ]
    for row, rate in zip(rows, sorted(RATES), strict=True):
        of_rate = runs.rows[runs.rows["learning_rate"] == rate]
        values = 100 * of_rate["test_accuracy"].astype(float)
        low, high = stats.t.interval(
            0.95, 2, values.mean(), values.std() / math.sqrt(3)
        )
        assert float(row["test accuracy, %"]) == pytest.approx(values.mean(), abs=5e-3)
        half = float(row["± test accuracy"])
        assert half == pytest.approx((high - low) / 2, abs=5e-3)


def test_the_page_folds_away_the_claims_that_have_no_runs(tmp_path):
    out = tmp_path / "report"
    assert main([str(write_sweep(tmp_path / "runs")), f"--out={out}"]) == 0
    page = (out / "index.html").read_text()
    assert 'id="own_sweeps"' in page
    assert 'id="verdicts"' not in page
    assert "claims have no runs here</summary>" in page


def test_numbers_sort_as_numbers_and_the_command_names_the_users_file(tmp_path, capsys):
    runs = write_sweep(tmp_path / "runs", seeds=(1,))
    for path in runs.glob("*/config.json"):
        content = json.loads(path.read_text())
        content["argv"] = ["main.py", "--config=/home/me/mine.py"]
        path.write_text(json.dumps(content))
    out = tmp_path / "report"
    assert main([str(runs), f"--out={out}"]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 1 table and 1 figure\n")
    page = (out / "index.html").read_text()
    assert 'data-kind="number">learning rate' in page.replace("_", " ")
    assert "launch.sweep --config=/home/me/mine.py --out=runs/mine" in page


def test_the_papers_runs_are_left_to_its_own_items(tmp_path):
    write_sweep(tmp_path / "paper", experiment="table1")
    runs = load_runs([tmp_path])
    assert ITEM.table.fill(runs.rows, runs) == "no runs of a sweep of your own"
    write_sweep(tmp_path / "mine")
    runs = load_runs([tmp_path])
    assert [name for name, _ in sweeps_of(runs.rows)] == ["mine"]


def test_a_line_for_each_configuration_and_of_many_the_best(tmp_path):
    rates = [0.01 * k for k in range(1, 15)]
    runs = load_runs([write_sweep(tmp_path, rates=rates, seeds=(1, 2))])
    drawing = draw(ITEM.figure, runs.rows, runs)
    left, right = drawing.figure.axes
    assert len(left.lines) == len(right.lines) == 12
    styles = {(line.get_color(), line.get_linestyle()) for line in left.lines}
    assert len(styles) == 12
    assert drawing.notes[0].startswith("mine: the best 12 of 14 configurations")


def test_one_run_has_a_row_and_no_interval(tmp_path):
    runs = load_runs([write_sweep(tmp_path, rates=(0.1,), seeds=(1,))])
    table = ITEM.table.fill(runs.rows, runs)
    assert table.columns[:3] == ("n", "test accuracy, %", "± test accuracy")
    assert table.rows[0].cells[0] == "1"
    assert table.rows[0].cells[2] == "–"
