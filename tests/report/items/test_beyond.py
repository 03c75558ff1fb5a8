"""Tables beyond the paper, against values worked out by hand."""

import json

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.claims import verdicts_on
from fisher_jax.report.collect import load_runs
from fisher_jax.report.items import beyond_estimators, beyond_rfp, beyond_stale


def add(folder, method, seed, accuracy, alpha=0.0, stage="final"):
    changes = CNN | {"seed": seed, "train.num_epochs": 2, "penalty.coefficient": alpha}
    path = write_run(
        folder / f"{method}-{seed}-{alpha}-{stage}",
        experiment="beyond_rfp",
        changes=changes,
        method=method,
        stage=stage,
    )
    result = {
        "status": "finished",
        "test_accuracy_at_best_validation": accuracy,
        "best_validation_accuracy": accuracy,
    }
    (path / "result.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path):
    rows = ((0.7, 0.8, 0.83), (0.7, 0.82, 0.83), (0.69, 0.81, 0.83))
    for seed, (plain, fp, rfp) in enumerate(rows):
        add(tmp_path, "baseline", seed, plain)
        add(tmp_path, "fp", seed, fp, 0.1)
        add(tmp_path, "rfp", seed, rfp, 0.3)
    # The search: stronger ones fall off, FP earlier than RFP.
    add(tmp_path, "fp", 9, 0.66, 1.0, "search")
    add(tmp_path, "fp", 9, 0.2, 3.0, "search")
    add(tmp_path, "rfp", 9, 0.66, 3.0, "search")
    return load_runs([tmp_path])


def test_rfp_beside_fp_in_pairs(runs):
    table = beyond_rfp.ITEM.table.fill(runs.rows, runs)
    assert [row.cells[0] for row in table.rows] == ["Baseline", "FP", "RFP (ours)"]
    baseline, fp, rfp = (row.cells[1:] for row in table.rows)
    # 80, 82 and 81: mean 81, deviation 1.
    assert fp == ("0.1", "81.00 ± 1.00", "3", "", "3")
    # Differences 3, 1 and 2: mean 2, standard error 1/√3, t = 4.303: p = 0.074.
    assert rfp == ("0.3", "83.00 ± 0.00", "3", "+2.00 [−0.48, +4.48]", "nowhere")
    # Differences −10, −12 and −12: p = 0.0034, still below 0.05 when doubled.
    minus = "−11.33 [−14.20, −8.46] *"
    assert baseline == ("–", "69.67 ± 0.58", "3", minus, "")
    assert table.notes[-1] == "2 differences to FP were tested"


def test_errors_of_estimators(tmp_path):
    path = write_run(
        tmp_path / "r", experiment="beyond_estimators", changes={"train.num_epochs": 1}
    )
    rows = [
        {"step": s, "epoch": s, "estimator/exact": 7.0, "estimator/labels": error}
        for s, error in enumerate((0.1, 0.4, 0.2))
    ]
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    runs = load_runs([tmp_path])
    table = beyond_estimators.ITEM.table.fill(runs.rows, runs)
    assert table.rows == (
        ("SimpleCNN / digits, Baseline", ("labels", "20", "40", "3")),
    )


def add_stale(folder, method, seed, alpha, result):
    """A run of one strength; without a result it has not ended."""
    changes = {"seed": seed, "train.num_epochs": 2, "penalty.name": "fisher"}
    path = write_run(
        folder / f"{method}-{seed}-{alpha}",
        experiment="beyond_stale",
        changes=CNN | changes | {"penalty.coefficient": alpha},
        method=method,
        until_epoch=None if result else 1,
    )
    if result:
        (path / "result.json").write_text(json.dumps(result))


def finished(accuracy):
    return {"status": "finished", "test_accuracy": accuracy}


def test_strengths_of_stale_penalties(tmp_path):
    """Means over two strengths by seed: 60, 62, 61 whole; 80, 81, 82 in groups."""
    whole = ((0.8, 0.4), (0.8, 0.44), (0.82, 0.4))
    groups = ((0.8, 0.8), (0.8, 0.82), (0.8, 0.84))
    for method, kept in (("fp", whole), ("fp_groups", groups)):
        for seed, accuracies in enumerate(kept):
            for alpha, accuracy in zip((0.1, 1.0), accuracies, strict=True):
                add_stale(tmp_path, method, seed, alpha, finished(accuracy))
    runs = load_runs([tmp_path])
    table = beyond_stale.ITEM.table.fill(runs.rows, runs)
    fp, grouped = (row.cells for row in table.rows)
    assert fp[:5] == ("FP", "10", "0.1: 80.7, 1: 41.3", "61.00 ± 1.00", "3")
    assert grouped[:2] == ("FP in groups", "10")
    # Differences 20, 19 and 21: mean 20, standard error 1/√3, t = 4.303.
    assert grouped[3:] == ("81.00 ± 1.00", "3", "+20.00 [+17.52, +22.48]")
    verdicts = verdicts_on(beyond_stale.ITEM.claims, runs.rows, runs)
    assert [verdict.status for verdict in verdicts] == ["holds", "no runs"]


def test_a_diverged_run_counts_as_0_and_an_unended_one_not_at_all(tmp_path):
    add_stale(tmp_path, "fp", 0, 0.1, finished(0.8))
    add_stale(tmp_path, "fp", 0, 1.0, {"status": "diverged"})
    add_stale(tmp_path, "fp", 1, 0.1, finished(0.9))
    add_stale(tmp_path, "fp", 1, 1.0, None)
    runs = load_runs([tmp_path])
    (row,) = beyond_stale.ITEM.table.fill(runs.rows, runs).rows
    assert row.cells[2:5] == ("0.1: 85.0, 1: 0.0", "40.00", "1")
