"""What a rule compares: values of runs, by seed, of their records or of a column."""

from collections.abc import Callable, Hashable

import numpy as np
import pandas as pd

from fisher_jax.report.choose import Setting
from fisher_jax.report.collect import Runs

LETTERS = {"learning_rate": "η", "batch_size": "S"}


def by_seed(rows: pd.DataFrame, values: pd.Series) -> dict[Hashable, float]:
    """Returns values by their run's seed, the mean where a seed has several.

    Runs without a seed count by themselves.
    """
    keys = [
        f"run {index}" if pd.isna(seed) else f"seed {seed:g}"
        for index, seed in rows["seed"].items()
    ]
    return dict(values.astype(float).groupby(keys).mean())


def extremes(
    setting: Setting, varied: str, first: str
) -> tuple[tuple[str, pd.DataFrame], tuple[str, pd.DataFrame]] | None:
    """Returns the runs at both ends of a column, each with its name, or None.

    Args:
        first: the end that comes first: "smallest" or "largest".
    """
    rows = setting.final
    values = sorted(set(rows[varied].dropna()), reverse=first == "largest")
    if len(values) < 2:
        return None
    one, other = (
        (f"{LETTERS[varied]} {value:.3g}", rows[rows[varied] == value])
        for value in (values[0], values[-1])
    )
    return one, other


def last_of(rows: pd.DataFrame, runs: Runs, name: str) -> pd.Series:
    """Returns the last record of a metric in each row's run, nan without one."""
    return _of_records(rows, runs, name, lambda values: values.iloc[-1])


def lowest_of(rows: pd.DataFrame, runs: Runs, name: str) -> pd.Series:
    """Returns the lowest record of a metric in each row's run, nan without one."""
    return _of_records(rows, runs, name, lambda values: values.min())


def highest_of(
    rows: pd.DataFrame, runs: Runs, name: str, *, after_epoch: float = 0
) -> pd.Series:
    """Returns the highest record of a metric in each row's run, nan without one.

    Args:
        after_epoch: of the records from its end on.
    """
    return _of_records(rows, runs, name, lambda values: values.max(), after_epoch)


def _of_records(
    rows: pd.DataFrame,
    runs: Runs,
    name: str,
    value: Callable[[pd.Series], float],
    after_epoch: float = 0,
) -> pd.Series:
    found = {}
    for index in rows.index:
        metrics = runs.metrics[index]
        recorded = pd.Series(dtype=float)
        if name in metrics:
            recorded = metrics.loc[metrics["epoch"] >= after_epoch, name].dropna()
        found[index] = value(recorded) if len(recorded) else np.nan
    return pd.Series(found, dtype=float)


def rank_correlation(metrics: pd.DataFrame, x: str, y: str) -> float:
    """Returns Spearman's ρ over a run's records; nan below three, or if one is flat."""
    if x not in metrics or y not in metrics:
        return np.nan
    both = metrics[[x, y]].dropna()
    if len(both) < 3 or both[x].nunique() < 2 or both[y].nunique() < 2:
        return np.nan
    return float(both[x].corr(both[y], method="spearman"))


def still_rises(rows: pd.DataFrame, runs: Runs, name: str) -> bool:
    """Returns whether a metric is highest in the last tenth of most of the runs.

    Medians are compared, as single records are noisy.
    """
    rising = []
    for index in rows.index:
        metrics = runs.metrics[index]
        values = metrics[name].dropna().to_numpy() if name in metrics else np.empty(0)
        if values.size:
            parts = np.array_split(values, min(10, values.size))
            medians = [np.median(part) for part in parts]
            rising.append(medians[-1] >= max(medians))
    return bool(rising) and float(np.mean(rising)) > 0.5
