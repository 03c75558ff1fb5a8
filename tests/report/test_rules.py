"""The rules on a setting's runs: what is compared, and what makes it unfair."""

import numpy as np
import pandas as pd
import pytest

from fisher_jax.report.choose import Setting
from fisher_jax.report.collect import Runs
from fisher_jax.report.rules import (
    correlated,
    edge_of_grid,
    end_alike,
    follows,
    generalises_better,
    method_is_higher,
    peak_is_lower,
    reaches,
    unconverged,
    underfitting_value,
)
from fisher_jax.report.values import by_seed, highest_of, last_of, rank_correlation

DEFAULTS = {
    "stage": "final",
    "status": "finished",
    "version": "v",
    "path": "",
    "last_epoch": 1.0,
    "noise": 0.0,
    "learning_rate": 0.01,
    "coefficient": 0.0,
    "sam_radius": 0.0,
    "mixup_beta": 0.0,
    "candidate": "",
    "best_validation_accuracy": 0.5,
    "test_accuracy": np.nan,
    "final_train_accuracy": 1.0,
    "max_fisher_trace": np.nan,
}
SEEDS = (0.0, 1.0, 2.0)
NONE = Runs(pd.DataFrame(), {}, ())


def rows(method, accuracies, **values):
    return [
        DEFAULTS
        | {"method": method, "seed": s, "test_accuracy_at_best_validation": a}
        | {"candidate": f"{method}{values}"}
        | values
        for s, a in zip(SEEDS, accuracies, strict=False)
    ]


def setting(*groups):
    return Setting("s", pd.DataFrame([r for g in groups for r in g]), (), "", "d")


HIGH, LOW = (0.8, 0.81, 0.82), (0.7, 0.705, 0.72)


def better(*groups, method="fp", than="baseline"):
    return generalises_better(setting(*groups), NONE, method=method, than=than)


def test_a_fair_comparison_is_decided_either_way():
    assert better(rows("fp", HIGH), rows("baseline", LOW)).status == "holds"
    assert better(rows("fp", LOW), rows("baseline", HIGH)).status == "fails"
    assert better(rows("fp", HIGH)) is None


def test_a_baseline_that_underfits_is_beaten_by_nobody():
    slow = rows("baseline", LOW, final_train_accuracy=0.9)
    decision = better(rows("fp", HIGH), slow)
    assert decision.status == "undecided"
    assert decision.reason == "Baseline: underfits: 90.0% training accuracy"
    # With noisy labels nobody is asked to fit them, and FP may well underfit.
    noisy = [row | {"noise": 0.25} for row in (*rows("fp", HIGH), *slow)]
    assert better(noisy).status == "holds"
    damped = rows("fp", HIGH, final_train_accuracy=0.9)
    assert better(damped, rows("baseline", LOW)).status == "holds"


def test_who_loses_at_the_edge_of_the_grid_may_still_win():
    def searched(best):
        return [
            row
            for alpha in (0.01, 0.1, 1.0)
            for row in rows(
                "fp", (0.5,), stage="search", coefficient=alpha, candidate=f"{alpha}"
            )
            if alpha != best
        ]

    for best, status in ((0.1, "fails"), (1.0, "undecided")):
        fp = rows("fp", LOW, coefficient=best)
        decision = better(fp, searched(best), rows("baseline", HIGH))
        assert decision.status == status
    assert decision.reason == "FP: its strength of 1 is at the edge of the grid"
    # It wins all the same: a better one could only add to that.
    fp = rows("fp", HIGH, coefficient=1.0)
    assert better(fp, searched(1.0), rows("baseline", LOW)).status == "holds"


def test_a_learning_rate_has_a_grid_too():
    rates = [
        rows("eta_star", LOW[:1], stage="search", learning_rate=r) for r in (0.1, 1.0)
    ]
    chosen = rows("eta_star", LOW, learning_rate=0.1)
    decision = better(rows("fp", HIGH), chosen, *rates, than="eta_star")
    assert decision.reason == "η*: its η of 0.1 is at the edge of the grid"


def test_runs_that_diverged_are_not_forgotten():
    fp = rows("fp", (*HIGH,))
    fp.append(fp[0] | {"seed": 9.0, "status": "diverged"})
    fp[-1]["test_accuracy_at_best_validation"] = np.nan
    decision = better(fp, rows("baseline", LOW))
    assert decision.status == "undecided"
    assert decision.reason == "FP: 1 of 4 runs diverged"


def test_one_value_without_a_strength_has_no_edge():
    chosen = pd.DataFrame(rows("fp", HIGH, coefficient=0.1))
    assert edge_of_grid(chosen, chosen) == ""


def test_means_and_ratios_of_methods():
    peaks = {"fp": (1.0, 2.0, 4.0), "baseline": (4.0, 8.5, 15.0)}
    groups = [
        [row | {"max_fisher_trace": p} for row, p in zip(rows(m, LOW), v, strict=True)]
        for m, v in peaks.items()
    ]
    both = setting(*groups)
    falling = pd.DataFrame(
        {"epoch": np.arange(9.0), "trace/fisher": np.arange(9)[::-1]}
    )
    held = Runs(both.rows, dict.fromkeys(both.rows.index, falling), ())
    decision = peak_is_lower(both, held, method="fp", than="baseline")
    assert decision.status == "holds"
    assert decision.evidence.startswith("FP 0.2503 times Baseline [")
    # FP's peak may be yet to come.
    rising = held._replace(metrics=dict.fromkeys(both.rows.index, falling[::-1]))
    decision = peak_is_lower(both, rising, method="fp", than="baseline")
    assert decision.status == "undecided"
    assert decision.reason == "FP: too short a run: its Tr(F) still rises at the end"
    quantity = {"high": "baseline", "low": "fp", "quantity": "max_fisher_trace"}
    assert method_is_higher(setting(*groups), NONE, **quantity).status == "undecided"
    assert method_is_higher(setting(groups[0]), NONE, **quantity) is None


def test_near_enough_to_hundred_percent():
    fitted = [
        row | {"final_train_accuracy": a}
        for row, a in zip(rows("baseline", LOW), (0.995, 0.997, 0.996), strict=True)
    ]
    for percent, status in ((98.5, "holds"), (99.9, "fails")):
        decision = reaches(setting(fitted), NONE, method="baseline", percent=percent)
        assert decision.status == status


def test_two_ways_that_end_alike():
    names = {"names": ("one", "other"), "within": 1.0}
    one = pd.DataFrame(rows("fp", (0.8, 0.801, 0.802)))
    near = pd.DataFrame(rows("fp", (0.801, 0.801, 0.803)))
    far = pd.DataFrame(rows("fp", (0.7, 0.701, 0.703)))
    assert end_alike(one, near, **names).status == "holds"
    assert end_alike(one, far, **names).status == "fails"
    assert end_alike(one, one.iloc[:0], **names) is None


def test_a_correlation_across_settings_takes_single_runs():
    frame = pd.DataFrame(
        [
            row | {"x": rate + 0.001 * seed, "y": -rate - 0.0001 * seed}
            for rate in (0.1, 0.2, 0.3)
            for seed, row in enumerate(rows("baseline", LOW, learning_rate=rate))
        ]
    )
    columns = {"x": "x", "y": "y", "varied": "learning_rate"}
    one = setting()._replace(rows=frame)
    assert correlated(one, NONE, **columns, sign=-1).status == "holds"
    assert correlated(one, NONE, **columns, sign=1).status == "fails"
    frame["y"] = np.nan
    assert correlated(one, NONE, **columns, sign=1) is None


def test_values_of_one_seed_count_once():
    frame = pd.DataFrame({"seed": [1.0, 1.0, 2.0, None], "v": [1.0, 3.0, 5.0, 7.0]})
    assert by_seed(frame, frame["v"]) == {"seed 1": 2.0, "seed 2": 5.0, "run 3": 7.0}


def _along(slopes):
    epochs = np.arange(10.0)
    metrics = {
        i: pd.DataFrame({"epoch": epochs, "x": epochs, "y": slope * epochs**2})
        for i, slope in enumerate(slopes)
    }
    return metrics


def test_one_coefficient_a_run_and_one_run_a_seed():
    frame = pd.DataFrame([*rows("baseline", LOW), *rows("baseline", LOW)])
    one = setting()._replace(rows=frame)
    metrics = _along([1.0] * 6)
    metrics[5].loc[9, "y"] = 63.0  # or all six would be the same
    runs = Runs(frame, metrics, ())
    decision = follows(one, runs, x="x", y="y")
    assert decision.status == "holds"
    assert decision.evidence.endswith("n = 3")
    single = one._replace(rows=frame.iloc[[0, 3]])
    assert "1 run, at least 3" in follows(single, runs, x="x", y="y").reason


def test_a_rank_correlation_needs_three_records_that_differ():
    frame = pd.DataFrame({"x": [1.0, 2, 3, 4], "y": [2.0, 1, 4, np.nan], "z": 1.0})
    assert rank_correlation(frame, "x", "y") == pytest.approx(0.5)
    assert np.isnan(rank_correlation(frame, "x", "z"))
    assert np.isnan(rank_correlation(frame, "x", "w"))
    assert np.isnan(rank_correlation(frame.iloc[2:], "x", "y"))


def test_which_value_underfits():
    frame = pd.DataFrame(
        {"learning_rate": [0.001, 0.001, 0.1], "best_train_accuracy": [0.9, 0.8, 1.0]}
    )
    word = underfitting_value(frame, "learning_rate")
    assert word == "η 0.001 underfits: 85.0% training accuracy"
    assert underfitting_value(frame.iloc[2:], "learning_rate") == ""


def test_what_has_not_converged():
    assert unconverged(pd.Series([0.01, 0.008])) == ""
    assert unconverged(pd.Series([0.03, 0.01])).startswith("not converged: training ")
    assert unconverged(pd.Series([np.nan])) == "no training loss was recorded"


def test_records_of_runs():
    frame = pd.DataFrame({"seed": [0.0, 1.0]})
    metrics = {0: pd.DataFrame({"epoch": [0.0, 1, 2], "v": [9.0, 3, np.nan]}), 1: frame}
    runs = Runs(frame, metrics, ())
    assert last_of(frame, runs, "v").tolist()[0] == 3.0
    assert np.isnan(last_of(frame, runs, "v")[1])
    assert highest_of(frame, runs, "v")[0] == 9.0
    assert highest_of(frame, runs, "v", after_epoch=1)[0] == 3.0
