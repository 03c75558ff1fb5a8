"""Runs in two phases: which start from which, after much or little regularisation."""

import numpy as np
import pandas as pd

from fisher_jax.report.choose import Setting, settings_of

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
        setting._replace(rows=with_phases(setting.rows, table))
        for setting in settings_of(rows, final=True)
    ]
    return [s for s in settings if s.rows["varied"].iloc[0] == varied]
