"""Every number of a run against values worked out by hand."""

import math

import pandas as pd
import pytest

from fisher_jax.report.quantities import (
    best_value,
    early_fisher_trace,
    last_value,
    peak_fisher_trace,
    quantities,
    run_status,
    seconds_per_epoch,
    value_at_best,
)

NAN = math.nan
METRICS = pd.DataFrame(
    {
        "epoch": [0, 0.5, 1, 2, 3, 4],
        "train/loss": [2.3, NAN, 1.5, 1.1, 0.9, 1.0],
        "train/accuracy": [0.1, NAN, 0.4, 0.7, 0.9, 0.8],
        "validation/accuracy": [0.1, NAN, 0.3, 0.6, 0.6, 0.5],
        "test/accuracy": [0.1, NAN, 0.4, 0.55, 0.65, 0.6],
        "train/noisy_accuracy": [0.1, NAN, 0.1, 0.2, 0.3, 0.4],
        "trace/fisher": [900.0, 700.0, 100.0, 300.0, 200.0, 250.0],
        "trace/hessian": [10.0, NAN, NAN, 20.0, NAN, 40.0],
        "time/steps_per_second": [NAN, NAN, 20.0, 10.0, 40.0, 25.0],
    }
)


def test_last_and_best():
    assert last_value(METRICS, "test/accuracy") == 0.6
    assert best_value(METRICS, "test/accuracy") == 0.65
    assert last_value(METRICS, "validation/loss") is None


def test_test_accuracy_is_taken_at_the_first_best_validation_epoch():
    # Validation is best, 0.6, at epochs 2 and 3; the first counts.
    assert value_at_best(METRICS, "test/accuracy", by="validation/accuracy") == 0.55


def test_the_best_epoch_for_tr_h_is_among_those_that_measured_it():
    # Test accuracy is best at epoch 3, where Tr(H) was not measured; then epoch 4.
    assert value_at_best(METRICS, "trace/hessian", by="test/accuracy") == 40.0


@pytest.mark.parametrize(
    ("epsilon", "trace"), [(1.2, 300.0), (1.0, 200.0), (2.0, 100.0), (0.5, None)]
)
def test_early_trace_is_at_the_first_epoch_below_epsilon(epsilon, trace):
    assert early_fisher_trace(METRICS, epsilon) == trace


def test_early_trace_needs_the_trace_at_that_epoch():
    metrics = METRICS.copy()
    metrics.loc[3, "trace/fisher"] = NAN
    assert early_fisher_trace(metrics, 1.2) is None


def test_the_peak_is_taken_from_the_end_of_epoch_1_on():
    # 900 and 700 come before; the peak after is 300.
    assert peak_fisher_trace(METRICS) == 300.0
    assert peak_fisher_trace(METRICS, after_epoch=3) == 250.0


def test_seconds_per_epoch_from_the_median_speed():
    # Median of 10, 20, 25, 40 is 22.5 steps a second; 90 steps take 4 seconds.
    assert seconds_per_epoch(METRICS, 90) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("result", "last", "epochs", "status"),
    [
        ({"status": "finished"}, 4, 4, "finished"),
        ({"status": "diverged"}, 2, 4, "diverged"),
        ({}, 4, 4, "finished"),
        ({}, 3, 4, "incomplete"),
        ({"status": 7}, 0, 0, "incomplete"),
    ],
)
def test_how_a_run_stands(result, last, epochs, status):
    assert run_status(result, last, epochs) == status


def of_run(status, result=None):
    return quantities(
        METRICS, result or {}, status=status, early_loss=1.2, steps_per_epoch=90
    )


def test_a_finished_run_has_all():
    values = of_run("finished")
    assert values["test_accuracy"] == 0.6
    assert values["best_train_accuracy"] == 0.9
    assert values["final_train_noisy_accuracy"] == 0.4
    assert values["test_accuracy_at_best_validation"] == 0.55
    assert values["max_fisher_trace"] == 300.0


def test_an_unfinished_run_has_only_what_cannot_change_any_more():
    values = of_run("incomplete")
    assert values["early_fisher_trace"] == 300.0
    assert values["seconds_per_epoch"] == pytest.approx(4.0)
    assert values["test_accuracy"] is None
    assert values["max_fisher_trace"] is None


def test_result_json_wins_where_it_has_a_value():
    values = of_run("finished", {"max_fisher_trace": 333.0, "test_accuracy": None})
    assert values["max_fisher_trace"] == 333.0
    assert values["test_accuracy"] == 0.6


@pytest.mark.parametrize("nonsense", ["0.9", True, math.inf, [1]])
def test_nonsense_in_result_json_is_not_taken(nonsense):
    assert of_run("finished", {"test_accuracy": nonsense})["test_accuracy"] == 0.6
