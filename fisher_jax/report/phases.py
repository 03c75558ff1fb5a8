"""Runs in two phases: which start from which, after much or little regularisation."""

import numpy as np
import pandas as pd

from fisher_jax.report.choose import Setting, final_stage, settings_of
from fisher_jax.report.claims import Decision, larger
from fisher_jax.report.collect import Runs
from fisher_jax.report.statistics import summarise

_PHASES = {"early": 1, "continued": 2}


def with_phases(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns phase (1 or 2), start (high or low), varied and first_*.

    From run.json's group where it says so; otherwise a run that starts from another
    is of phase 2, and its start is high if its parent's learning rate is the larger
    or its batch size the smaller of those that parents have.
    """
    parents = {_resolved(path): i for i, path in table["path"].items()}
    rows = rows.copy()
    rows["parent"] = [parents.get(_resolved(path)) for path in rows["init_from"]]
    rows["phase"] = [
        _PHASES.get(str(group.get("phase")), 2 if init else 1)
        for group, init in zip(rows["group"], rows["init_from"], strict=True)
    ]
    own = rows["parent"].where(rows["phase"] == 2)
    source = [i if pd.isna(p) else int(p) for i, p in own.items()]
    for name in ("learning_rate", "batch_size", "early_fisher_trace"):
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


def differ_in_the_end(
    setting: Setting,
    runs: Runs,
    *,
    varied: str,
    quantity: str,
    factor: float,
    high_is_larger: bool,
) -> Decision | None:
    """Decides whether continued runs differ by how their first phase was regularised.

    None where another key was varied, or one of the two has no value.
    """
    phased = with_phases(final_stage(setting.runs), runs.table)
    if phased["varied"].iloc[0] != varied:
        return None
    second = phased[phased["phase"] == 2]
    values = factor * second[quantity].astype(float)
    high, low = (summarise(list(values[second["start"] == s])) for s in ("high", "low"))
    if high is None or low is None:
        return None
    text = f"high start {high.mean:.4g}, low start {low.mean:.4g}"
    return larger(high, low, text) if high_is_larger else larger(low, high, text)
