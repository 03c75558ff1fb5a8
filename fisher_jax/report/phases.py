"""Runs in two phases: which start from which, after much or little regularisation."""

from collections.abc import Hashable

import numpy as np
import pandas as pd

from fisher_jax.report.choose import Setting, final_stage, settings_of
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, larger, ratio_below
from fisher_jax.report.rules import by_seed, last_of, unconverged, withheld

_PHASES = {"early": 1, "continued": 2}


def with_phases(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns parent, phase (1, 2), start (high, low), varied and first_*.

    From run.json's group where it says so; otherwise a run that starts from another
    is of phase 2, and its start is high if its parent's learning rate is the larger
    or its batch size the smaller of those that parents have.
    """
    rows = rows.copy()
    rows["parent"] = _parents(rows, table)
    rows["phase"] = [
        _PHASES.get(str(group.get("phase")), 2 if init else 1)
        for group, init in zip(rows["group"], rows["init_from"], strict=True)
    ]
    own = rows["parent"].where(rows["phase"] == 2)
    source = [i if pd.isna(p) else int(p) for i, p in own.items()]
    for name in ("learning_rate", "batch_size"):
        rows[f"first_{name}"] = table.loc[source, name].to_numpy()
    firsts = rows[rows["phase"] == 1] if (rows["phase"] == 1).any() else rows
    is_rate = firsts["first_batch_size"].nunique() <= 1
    rows["varied"] = "learning_rate" if is_rate else "batch_size"
    values = rows["first_learning_rate"] if is_rate else -rows["first_batch_size"]
    guessed = np.where(values >= values.max(), "high", "low")
    rows["start"] = [
        str(group.get("early", guess))
        for group, guess in zip(rows["group"], guessed, strict=True)
    ]
    return rows


def _parents(rows: pd.DataFrame, table: pd.DataFrame) -> list[int | None]:
    """The row of the run that each starts from, by its path or, moved, by its name."""
    by_path = {_resolved(path): index for index, path in table["path"].items()}
    # An archive lies elsewhere than its runs did.
    names = table["experiment"] + "/" + table["path"].map(_resolved).map(_last)
    by_name = {name: index for index, name in names.items()}
    own = rows["experiment"] + "/" + rows["init_from"].map(_resolved).map(_last)
    return [
        by_path.get(_resolved(path), by_name.get(name)) if path else None
        for path, name in zip(rows["init_from"], own, strict=True)
    ]


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _resolved(path: str) -> str:
    return path.rstrip("/").removeprefix("./").rsplit("/checkpoints", 1)[0]


def varied_settings(
    rows: pd.DataFrame, table: pd.DataFrame, varied: str
) -> list[Setting]:
    """Returns the settings whose first phases differ in ``varied``, with phases."""
    settings = [
        setting._replace(runs=with_phases(setting.runs, table))
        for setting in settings_of(rows)
    ]
    return [s for s in settings if s.runs["varied"].iloc[0] == varied]


def phase_one_ends_flatter(
    setting: Setting, runs: Runs, *, varied: str
) -> Decision | None:
    """Decides whether a HIGH phase one ends with a smaller Tr(F) than a LOW one.

    None where another key was varied, or one of the two has no run.
    """
    phased = with_phases(final_stage(setting.runs), runs.table)
    first = phased[phased["phase"] == 1]
    if phased["varied"].iloc[0] != varied or set(first["start"]) != {"high", "low"}:
        return None
    traces = last_of(first, runs, "trace/fisher")
    high, low = (
        by_seed(first[first["start"] == start], traces[first["start"] == start])
        for start in ("high", "low")
    )
    return ratio_below(high, low, 1.0, names=("HIGH", "LOW"))


def ends_flatter(setting: Setting, runs: Runs, *, varied: str) -> Decision | None:
    """Decides whether Tr(H) at the best test accuracy is smaller after a HIGH phase.

    As ``ends_more_accurate``.
    """
    both = _continued(setting, runs, varied, "hessian_trace_at_best_test")
    if both is None:
        return None
    high, low, why = both
    decision = ratio_below(high, low, 1.0, names=("after HIGH", "after LOW"))
    return withheld(decision, why)


def ends_more_accurate(setting: Setting, runs: Runs, *, varied: str) -> Decision | None:
    """Decides whether the best test accuracy is larger after a HIGH phase one.

    Continuations of one first phase share its chance, so that they count once, by
    their mean. Undecided where they have not converged, as the paper's have. None
    where another key was varied, or one of the two has no run.
    """
    both = _continued(setting, runs, varied, "best_test_accuracy")
    if both is None:
        return None
    high, low, why = both
    percent = ({seed: 100 * value for seed, value in s.items()} for s in (high, low))
    decision = larger(*percent, names=("after HIGH", "after LOW"))
    return withheld(decision, why)


def _continued(
    setting: Setting, runs: Runs, varied: str, quantity: str
) -> tuple[dict[Hashable, float], dict[Hashable, float], str] | None:
    """A quantity after HIGH and after LOW by first phase, and what did not converge."""
    phased = with_phases(final_stage(setting.runs), runs.table)
    second = phased[phased["phase"] == 2]
    if phased["varied"].iloc[0] != varied or set(second["start"]) != {"high", "low"}:
        return None
    groups = [second[second["start"] == start] for start in ("high", "low")]
    high, low = (_by_first_phase(group, runs.table, quantity) for group in groups)
    losses = (unconverged(last_of(group, runs, "train/loss")) for group in groups)
    reasons = [
        f"after {start}: {why}"
        for start, why in zip(("HIGH", "LOW"), losses, strict=True)
        if why
    ]
    return high, low, "; ".join(reasons)


def _by_first_phase(
    rows: pd.DataFrame, table: pd.DataFrame, quantity: str
) -> dict[Hashable, float]:
    """The mean over the continuations of a first phase, by its seed."""
    seeds = [
        init if pd.isna(parent) else f"seed {table.loc[parent, 'seed']:g}"
        for parent, init in zip(rows["parent"], rows["init_from"], strict=True)
    ]
    return dict(rows[quantity].astype(float).groupby(seeds).mean())
