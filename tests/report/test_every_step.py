"""Tr(F) at single steps: the first epoch counts, and the peak has to be seen."""

import numpy as np
import pandas as pd
import pytest

from fisher_jax.report.choose import Setting
from fisher_jax.report.collect import Runs
from fisher_jax.report.rules import step_peak_is_higher

STEPS = np.arange(100)
PEAKED = 100 * np.exp(-(((STEPS - 50) / 20) ** 2)) + 1
RISING = 1.0 + STEPS


def runs_of(small, large):
    table, metrics = [], {}
    for rate, curve in ((0.001, small), (0.01, large)):
        for seed in range(3):
            factor = 1 + 0.02 * seed * (1 if rate > 0.005 else 2)
            metrics[len(table)] = pd.DataFrame(
                {"epoch": STEPS / 10, "step": STEPS, "trace/fisher": factor * curve}
            )
            row = {"seed": float(seed), "learning_rate": rate, "stage": "final"}
            table.append(row)
    frame = pd.DataFrame(table)
    return Setting("s", frame, (), "", "d"), Runs(frame, metrics, ())


def spiked(curve, at):
    values = curve.copy()
    values[at] = 500.0
    return values


@pytest.mark.parametrize(
    ("small", "large", "status"),
    [
        (PEAKED, PEAKED / 5, "holds"),
        (PEAKED / 5, PEAKED, "fails"),
        # One step in the first epoch is enough.
        (PEAKED, spiked(PEAKED / 5, 3), "fails"),
        # Either may still rise past the other.
        (RISING, PEAKED * 5, "undecided"),
        (PEAKED * 5, RISING, "undecided"),
    ],
)
def test_peaks_of_single_steps(small, large, status):
    setting, runs = runs_of(small, large)
    found = step_peak_is_higher(
        setting, runs, varied="learning_rate", higher="smallest"
    )
    assert found.status == status
    if status == "undecided":
        assert "too short a run: its Tr(F) still rises at the end" in found.reason


def test_one_rate_is_no_comparison():
    setting, runs = runs_of(PEAKED, PEAKED)
    one = setting._replace(rows=setting.rows.iloc[:3])
    found = step_peak_is_higher(one, runs, varied="learning_rate", higher="smallest")
    assert found is None
