"""Numbers of one run, computed from its records; None where they do not suffice.

``metrics`` is a run's metrics.jsonl as a DataFrame in the order of steps, a column for
each metric and NaN where it was not recorded.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

FINISHED, DIVERGED, INCOMPLETE = "finished", "diverged", "incomplete"

# Known only once the run has ended; the early Tr(F) and the speed are known before.
NEEDS_END = (
    "test_accuracy",
    "best_test_accuracy",
    "best_train_accuracy",
    "best_validation_accuracy",
    "test_accuracy_at_best_validation",
    "final_train_accuracy",
    "final_train_clean_accuracy",
    "final_train_noisy_accuracy",
    "max_fisher_trace",
    "hessian_trace_at_best_test",
)


def last_value(metrics: pd.DataFrame, name: str) -> float | None:
    """Returns the last recorded value of a metric."""
    values = _column(metrics, name)
    return float(values.iloc[-1]) if len(values) else None


def best_value(metrics: pd.DataFrame, name: str) -> float | None:
    """Returns the largest recorded value of a metric."""
    values = _column(metrics, name)
    return float(values.max()) if len(values) else None


def value_at_best(metrics: pd.DataFrame, name: str, by: str) -> float | None:
    """Returns ``name`` at the first record at which ``by`` is largest.

    Only records that hold both count: Tr(H) may be measured less often than accuracy.
    """
    if name not in metrics or by not in metrics:
        return None
    both = metrics[[name, by]].dropna()
    return float(both[name].loc[both[by].idxmax()]) if len(both) else None


def early_fisher_trace(metrics: pd.DataFrame, early_loss: float) -> float | None:
    """Returns Tr(F) at the first epoch with training loss below epsilon (Tr(F_i))."""
    if "train/loss" not in metrics or "trace/fisher" not in metrics:
        return None
    below = metrics[metrics["train/loss"] < early_loss]
    trace = below["trace/fisher"].iloc[0] if len(below) else math.nan
    return None if math.isnan(trace) else float(trace)


def peak_fisher_trace(metrics: pd.DataFrame, after_epoch: float = 1) -> float | None:
    """Returns the largest Tr(F) from the end of ``after_epoch`` on.

    The first epoch does not count: with batch norm Tr(F) explodes at initialisation.
    """
    return best_value(metrics[metrics["epoch"] >= after_epoch], "trace/fisher")


def seconds_per_epoch(metrics: pd.DataFrame, steps_per_epoch: float) -> float | None:
    """Returns the median over records of the time that an epoch of training took."""
    speeds = _column(metrics, "time/steps_per_second")
    return float(steps_per_epoch / speeds.median()) if len(speeds) else None


def run_status(result: Mapping[str, Any], last_epoch: float, num_epochs: float) -> str:
    """Returns finished, diverged or incomplete; all records there count as finished."""
    status = result.get("status")
    if status in (FINISHED, DIVERGED):
        return str(status)
    reached_end = last_epoch >= num_epochs > 0
    return FINISHED if reached_end else INCOMPLETE


def quantities(
    metrics: pd.DataFrame,
    result: Mapping[str, Any],
    *,
    status: str,
    early_loss: float | None,
    steps_per_epoch: float | None,
) -> dict[str, float | None]:
    """Returns what tables and figures take from one run, by result.json's names.

    result.json wins where it has a value, since the records beside it may have been
    thinned out. Of a run that has not finished only what later records cannot change
    is returned; the rest is None.
    """
    computed = {
        "test_accuracy": last_value(metrics, "test/accuracy"),
        "best_test_accuracy": best_value(metrics, "test/accuracy"),
        "best_train_accuracy": best_value(metrics, "train/accuracy"),
        "best_validation_accuracy": best_value(metrics, "validation/accuracy"),
        "test_accuracy_at_best_validation": value_at_best(
            metrics, "test/accuracy", by="validation/accuracy"
        ),
        "final_train_accuracy": last_value(metrics, "train/accuracy"),
        "final_train_clean_accuracy": last_value(metrics, "train/clean_accuracy"),
        "final_train_noisy_accuracy": last_value(metrics, "train/noisy_accuracy"),
        "max_fisher_trace": peak_fisher_trace(metrics),
        "early_fisher_trace": (
            None if early_loss is None else early_fisher_trace(metrics, early_loss)
        ),
        "hessian_trace_at_best_test": value_at_best(
            metrics, "trace/hessian", by="test/accuracy"
        ),
        "seconds_per_epoch": (
            seconds_per_epoch(metrics, steps_per_epoch) if steps_per_epoch else None
        ),
    }
    if status != FINISHED:
        computed |= dict.fromkeys(NEEDS_END)
        return computed
    stated = {name: _number(result.get(name)) for name in computed}
    return {n: v if stated[n] is None else stated[n] for n, v in computed.items()}


def _column(metrics: pd.DataFrame, name: str) -> pd.Series:
    if name not in metrics:
        return pd.Series(dtype=float)
    return metrics[name].dropna()


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
