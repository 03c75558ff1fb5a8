"""Tables: the right runs in the right cells, published values, marks, escapes."""

import csv
import io
import json
import re

import pytest

from benchmarks.synthetic_runs import CNN, SETTINGS, write_run
from fisher_jax.report import render
from fisher_jax.report.build import item_rows
from fisher_jax.report.claims import verdicts_on
from fisher_jax.report.collect import load_runs
from fisher_jax.report.item import all_items
from fisher_jax.report.shapes.method_table import PENALTY_METHODS
from fisher_jax.report.tables import Row, Table

ITEMS = all_items()
VGG = SETTINGS["cifar100_vgg11"]


def add(folder, method, seed, result, changes=CNN, experiment="table1", **more):
    config = changes | {"seed": seed, "train.num_epochs": 2}
    if method in ("fp", "gp", "gp_x", "gp_r"):
        config = {"penalty.coefficient": 0.1} | config
    path = write_run(
        folder / f"{experiment}-{method}-{seed}-{len(list(folder.iterdir()))}",
        experiment=experiment,
        changes=config,
        method=method,
        **more,
    )
    (path / "result.json").write_text(json.dumps({"status": "finished"} | result))


def fill(folder, key):
    runs = load_runs([folder])
    return ITEMS[key].table.fill(item_rows(ITEMS[key], runs), runs)


def at_best(accuracy):
    return {"test_accuracy_at_best_validation": accuracy}


def cell(table, label, column):
    (row,) = [row for row in table.rows if row.label.startswith(label)]
    return row.cells[table.columns.index(column)]


def test_a_cell_is_mean_and_deviation_over_seeds_beside_the_published(tmp_path):
    for seed, accuracy in enumerate((0.78, 0.80, 0.82)):
        add(tmp_path, "fp", seed, at_best(accuracy))
    table = fill(tmp_path, "table1")
    found = cell(table, "SimpleCNN / CIFAR-10", "fp")
    assert found.ours.mean == pytest.approx(80.0)
    assert found.ours.std == pytest.approx(2.0)
    assert found.ours.n == 3
    assert found.published.value == 79.66
    assert found.difference == pytest.approx(0.34)


def test_a_missing_cell_says_why_and_keeps_the_published_value(tmp_path):
    add(tmp_path, "fp", 0, at_best(0.8))
    table = fill(tmp_path, "table1")
    missing = cell(table, "SimpleCNN / CIFAR-10", "gp")
    assert (missing.ours, missing.reason) == (None, "no runs")
    assert missing.published.value == 75.73


def test_best_is_bold_and_green_reaches_eta_star(tmp_path):
    for method, accuracy in (
        ("eta_star", 0.76),
        ("baseline", 0.77),
        ("gp", 0.75),
        ("fp", 0.76),
        ("gp_r", 0.79),
    ):
        add(tmp_path, method, 0, at_best(accuracy))
    table = fill(tmp_path, "table1")
    row = {c: cell(table, "SimpleCNN / CIFAR-10", c) for c in table.columns}
    assert [c for c, found in row.items() if found.is_best] == ["gp_r"]
    assert [c for c, found in row.items() if found.is_green] == ["fp", "gp_r"]


def test_small_forms_and_other_data_stand_in_rows_of_their_own(tmp_path):
    add(tmp_path, "fp", 0, at_best(0.8))
    add(tmp_path, "fp", 0, at_best(0.5), form="small")
    digits = {"dataset.name": "digits", "model.name": "simple_cnn"}
    add(tmp_path, "fp", 0, at_best(0.9), changes=digits, form="small")
    table = fill(tmp_path, "table1")
    assert cell(table, "SimpleCNN / CIFAR-10 (small)", "fp").published is None
    assert cell(table, "SimpleCNN / digits (small)", "fp").ours.mean == 90.0
    full = [row for row in table.rows if row.label == "SimpleCNN / CIFAR-10"]
    assert full[0].cells[table.columns.index("fp")].ours.mean == 80.0


def test_a_method_that_only_we_have_gets_a_column(tmp_path):
    add(tmp_path, "fp", 0, at_best(0.8))
    add(tmp_path, "rfp", 0, at_best(0.81), changes=CNN | {"penalty.coefficient": 0.3})
    table = fill(tmp_path, "table1")
    assert table.columns == (*PENALTY_METHODS, "rfp")


def test_noise_rows_and_the_effective_rate(tmp_path):
    for noise in (0.25, 0.5):
        noisy = VGG | {"dataset.label_noise": noise}
        result = at_best(0.6) | {"final_train_noisy_accuracy": 0.04}
        add(tmp_path, "fp", 0, result, changes=noisy, experiment="table3")
    table = fill(tmp_path, "table3")
    labels = [row.label for row in table.rows]
    assert "VGG-11 / CIFAR-100, 25% noise (effective 22.5%)" in labels
    assert "VGG-11 / CIFAR-100, 50% noise (effective 45.0%)" in labels
    memorised = fill(tmp_path, "table9")
    assert cell(memorised, "VGG-11", "fp").ours.mean == pytest.approx(4.0)
    assert all("50%" not in row.label for row in memorised.rows)


def test_peak_traces_stand_with_their_roots(tmp_path):
    for seed, trace in enumerate((400.0, 900.0)):
        add(tmp_path, "fp", seed, {"max_fisher_trace": trace})
    table = fill(tmp_path, "table4")
    (trace, root) = [row for row in table.rows if "SimpleCNN" in row.label]
    column = table.columns.index("fp")
    assert trace.cells[column].ours.mean == 650.0
    # The mean of 20 and 30, not the root of 650.
    assert root.cells[column].ours.mean == 25.0
    assert root.cells[column].difference == pytest.approx(25 - 19.63)


def test_without_a_validation_split_the_last_epoch_counts_and_it_is_said(tmp_path):
    add(tmp_path, "fp", 0, {"test_accuracy": 0.7})
    for path in tmp_path.glob("*/metrics.jsonl"):
        path.write_text(path.read_text().replace("validation/", "nothing/"))
    table = fill(tmp_path, "table1")
    found = cell(table, "SimpleCNN / CIFAR-10", "fp")
    assert found.ours.mean == 70.0
    assert "at the last epoch: no validation split" in found.notes


def test_two_code_versions_are_told_in_the_cell(tmp_path):
    add(tmp_path, "fp", 0, at_best(0.8))
    add(tmp_path, "fp", 1, at_best(0.8))
    add(tmp_path, "fp", 2, at_best(0.1), commit="f" * 40)
    found = cell(fill(tmp_path, "table1"), "SimpleCNN", "fp")
    assert found.ours.mean == pytest.approx(80.0)
    assert found.ours.n == 2
    assert "1 run by other code (ffffffff, jax 0.10.2)" in found.notes[0]


def test_a_cell_averages_what_its_claim_compares(tmp_path):
    for seed in range(4):
        add(tmp_path, "fp", seed, at_best(0.8 + seed / 100))
    for seed in range(3):
        add(tmp_path, "baseline", seed, at_best(0.5), commit="f" * 40)
    runs, item = load_runs([tmp_path]), ITEMS["table1"]
    rows = item_rows(item, runs)
    found = cell(item.table.fill(rows, runs), "SimpleCNN", "baseline")
    assert (found.ours, found.reason) == (None, "no runs")
    assert found.notes[0].startswith("3 runs by other code (ffffffff, jax 0.10.2)")
    assert [v.status for v in verdicts_on(item.claims, rows, runs)] == [
        "no runs",
        "no runs",
    ]


def test_each_noise_has_code_of_its_own(tmp_path):
    result = at_best(0.6) | {"final_train_noisy_accuracy": 0.04}
    for noise, seeds, commit in ((0.25, 2, "f" * 40), (0.5, 4, "e" * 40)):
        noisy = VGG | {"dataset.label_noise": noise}
        for seed in range(seeds):
            add(tmp_path, "fp", seed, result, noisy, "table3", commit=commit)
    runs, item = load_runs([tmp_path]), ITEMS["table9"]
    rows = item_rows(item, runs)
    assert cell(item.table.fill(rows, runs), "VGG-11", "fp").ours.n == 2
    numbers = [
        cell(fill(tmp_path, "table3"), f"VGG-11 / CIFAR-100, {noise}%", "fp").ours.n
        for noise in (25, 50)
    ]
    assert numbers == [2, 4]
    (verdict,) = verdicts_on(item.claims, rows, runs)
    assert verdict.status == "no runs"  # none of the baseline


def test_markdown_csv_and_latex_say_the_same(tmp_path):
    for seed, accuracy in enumerate((0.78, 0.82)):
        add(tmp_path, "fp", seed, at_best(accuracy))
    add(tmp_path, "eta_star", 0, at_best(0.7))
    table = fill(tmp_path, "table1")
    markdown = render.as_markdown(table, "T", "C.")
    assert "**80.00 ± 2.83** (2) ✓<br>paper 79.66 (+0.34)" in markdown
    widths = {line.count(" | ") for line in markdown.splitlines() if line[:1] == "|"}
    assert widths == {len(table.columns)}
    latex = render.as_latex(table, "T", "C.")
    assert r"\cellcolor{green!18}\textbf{80.00 $\pm$ 2.83} {\footnotesize(2)}" in latex
    assert "79.66 (+0.34)" in latex
    assert latex.count(r"\begin") == latex.count(r"\end")
    rows = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    (fp,) = [
        r for r in rows if r["row"] == "SimpleCNN / CIFAR-10" and r["column"] == "fp"
    ]
    assert float(fp["mean"]) == pytest.approx(80.0)
    assert float(fp["difference"]) == pytest.approx(0.34)
    assert (fp["n"], fp["published"], fp["green"]) == ("2", "79.66", "1")
    (gp,) = [
        r for r in rows if r["row"] == "SimpleCNN / CIFAR-10" and r["column"] == "gp"
    ]
    assert (gp["mean"], gp["reason_missing"]) == ("", "no runs")


HOSTILE = "<script>alert(1)</script>|x_y & 50% #$~^{}\\`*[l](u)"


def test_hostile_names_are_escaped_everywhere(tmp_path):
    changes = {"dataset.name": HOSTILE, "model.name": "=cmd()|'../../x'"}
    add(tmp_path, HOSTILE, 0, at_best(0.8), changes=changes)
    table = fill(tmp_path, "table1")
    markdown = render.as_markdown(table, "T", "C.")
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\]\(u\)", markdown)
    body = [line for line in markdown.splitlines() if line.startswith("|")]
    unescaped = {len(re.findall(r"(?<!\\)\|", line)) for line in body}
    assert unescaped == {len(table.columns) + 2}
    latex = render.as_latex(table, "T", "C.")
    assert r"\textbackslash{}" in latex
    name = render.escape_latex(HOSTILE)
    assert name in latex
    bare = name
    for escaped in set(render._LATEX.values()):
        bare = bare.replace(escaped, "")
    assert not set(bare) & set("&%$#_{}~^\\")
    (row,) = [
        r
        for r in csv.DictReader(io.StringIO(render.as_csv(table)))
        if r["column"] == HOSTILE and r["mean"]
    ]
    assert row["row"].startswith("'=cmd()")


def test_tables_of_texts_are_escaped():
    table = Table(("b",), (Row("<i>|", ("=1_%",)),), 1, notes=("n",), label="a")
    assert "| &lt;i&gt;\\| | =1\\_% |" in render.as_markdown(table, "t", "c")
    assert render.as_csv(table) == "a,b\n<i>|,'=1_%\n"
    assert r"<i>| & =1\_\% \\" in render.as_latex(table, "t", "c")
