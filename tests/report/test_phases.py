"""Which runs follow which in experiments of two phases, and what they decide."""

import numpy as np
import pandas as pd
import pytest

from fisher_jax.report.choose import Setting
from fisher_jax.report.collect import Runs
from fisher_jax.report.phases import with_phases
from fisher_jax.report.rules import (
    ends_flatter,
    ends_more_accurate,
    phase_one_ends_flatter,
)

RATE = {"varied": "learning_rate"}


def test_phases_follow_from_the_parent_without_run_json():
    first = {"init_from": "", "group": {}, "batch_size": 100.0, "experiment": "e"}
    second = first | {"learning_rate": 0.001}
    table = pd.DataFrame(
        [
            first | {"path": "runs/a", "learning_rate": 0.01},
            first | {"path": "runs/b", "learning_rate": 0.001},
            second | {"path": "runs/c", "init_from": "./runs/a/checkpoints/20"},
            # Its parent has moved, as into an archive.
            second | {"path": "runs/d", "init_from": "/elsewhere/b"},
        ]
    )
    rows = with_phases(table, table)
    assert list(rows["phase"]) == [1, 1, 2, 2]
    assert list(rows["start"]) == ["high", "low", "high", "low"]
    assert list(rows["parent"].iloc[2:]) == [0, 1]
    assert set(rows["varied"]) == {"learning_rate"}


def test_phases_are_those_of_run_json_where_it_has_them():
    group = {"phase": "continued", "early": "low"}
    row = {"path": "c", "init_from": "gone", "group": group, "learning_rate": 0.1,
           "batch_size": 1.0, "experiment": "e"}  # fmt: skip
    rows = with_phases(pd.DataFrame([row]), pd.DataFrame([row]))
    assert (rows["phase"].iloc[0], rows["start"].iloc[0]) == (2, "low")


def two_phases(*, first_phases, continued, loss=0.005, flat="high"):
    """HIGH and LOW starts, so many first phases each and continuations of each."""
    random = np.random.default_rng(0)
    table, metrics = [], {}
    for start, rate in (("high", 0.03), ("low", 0.003)):
        is_flat = start == flat
        for seed in range(first_phases):
            name = f"{start}{seed}"
            base = {"experiment": "fig06", "stage": "final", "batch_size": 50.0}
            scale = np.exp(0.1 * random.normal())
            trace = (1.0 if is_flat else 3.0) * scale
            metrics[len(table)] = pd.DataFrame(
                {"epoch": [0.0, 10, 20], "trace/fisher": [9.0, 50 / trace, trace]}
            )
            table.append(
                base
                | {"path": f"runs/{name}", "init_from": "", "seed": float(seed)}
                | {"learning_rate": rate}
                | {"group": {"phase": "early", "early": start}}
            )
            for place in range(continued):
                metrics[len(table)] = pd.DataFrame(
                    {"epoch": [0.0, 9], "train/loss": [1.0, loss]}
                )
                table.append(
                    base
                    | {"path": f"runs/{name}c{place}", "init_from": f"OUT/{name}"}
                    | {"seed": float(place), "learning_rate": 0.003}
                    | {"group": {"phase": "continued", "early": start}}
                    | {"hessian_trace_at_best_test": 100 * trace}
                    | {"best_test_accuracy": 0.9 - 0.01 * trace}
                )
    frame = pd.DataFrame(table)
    return Setting("s", frame, (), "", "d"), Runs(frame, metrics, ())


@pytest.mark.parametrize(("flat", "status"), [("high", "holds"), ("low", "fails")])
def test_what_the_first_phase_leaves_behind(flat, status):
    runs = two_phases(first_phases=4, continued=2, flat=flat)
    decision = phase_one_ends_flatter(*runs, **RATE)
    assert decision.status == status
    # Tr(F) at the end, not on the way, where it is the other way round.
    factor = 3.0 if flat == "low" else 1 / 3
    ratio = float(decision.evidence.split()[1])
    assert ratio == pytest.approx(factor, rel=0.2)
    assert ends_flatter(*runs, **RATE).status == status
    accurate = ends_more_accurate(*runs, **RATE)
    assert accurate.status == status
    assert accurate.evidence.endswith("paired, n = 4")


def test_many_continuations_of_one_first_phase_count_once():
    runs = two_phases(first_phases=1, continued=8)
    for rule in (phase_one_ends_flatter, ends_flatter, ends_more_accurate):
        decision = rule(*runs, **RATE)
        assert decision.status == "undecided"
        assert "1 seed, at least 3 are needed" in decision.reason


def test_what_has_not_converged_decides_nothing():
    runs = two_phases(first_phases=4, continued=1, loss=0.05)
    for rule in (ends_flatter, ends_more_accurate):
        decision = rule(*runs, **RATE)
        assert decision.status == "undecided"
        assert "after HIGH: not converged: training loss 0.05" in decision.reason
    assert phase_one_ends_flatter(*runs, **RATE).status == "holds"


def test_what_was_not_varied_is_not_decided():
    runs = two_phases(first_phases=4, continued=1)
    for rule in (phase_one_ends_flatter, ends_flatter, ends_more_accurate):
        assert rule(*runs, varied="batch_size") is None
