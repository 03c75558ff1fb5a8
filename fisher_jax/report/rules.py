"""How the runs of a setting decide a claim: the rules that several items share.

Numbers come from the runs, the statistics from ``decide``. Beside chance, a claim stays
undecided where the comparison is not a fair one: what lost was tuned to the edge of its
grid, a method without a penalty underfits, what won has lost runs to divergence.
"""

from collections.abc import Callable, Hashable

import numpy as np
import pandas as pd
from scipy import stats

from fisher_jax.report.choose import (
    REFERENCES,
    Setting,
    accuracies,
    final_stage,
    for_cell,
    strengths,
)
from fisher_jax.report.collect import DIVERGED, Runs
from fisher_jax.report.decide import (
    HOLDS,
    UNDECIDED,
    Decision,
    above,
    across_settings,
    alike,
    along_training,
    larger,
    ratio_below,
)
from fisher_jax.report.names import method_label

FITTED = 98.5  # training accuracy in %: the paper's runs reach "~99% and above"
CONVERGED = 1e-2  # training loss: the paper's converged runs are "at or below"
LETTERS = {"learning_rate": "η", "batch_size": "S"}


def by_seed(runs: pd.DataFrame, values: pd.Series) -> dict[Hashable, float]:
    """Returns values by their run's seed, the mean where a seed has several.

    Runs without a seed count by themselves.
    """
    keys = [
        f"run {index}" if pd.isna(seed) else f"seed {seed:g}"
        for index, seed in runs["seed"].items()
    ]
    return dict(values.astype(float).groupby(keys).mean())


def peak_is_lower(
    setting: Setting, runs: Runs, *, method: str, than: str
) -> Decision | None:
    """Decides whether a method's Tr(F) peaks lower after epoch 1, by the ratio.

    None without runs of one of them.
    """
    both = [chosen_runs(setting, name) for name in (method, than)]
    if not all(len(chosen) for chosen in both):
        return None
    low, high = (by_seed(chosen, chosen["max_fisher_trace"]) for chosen in both)
    return ratio_below(low, high, 1.0, names=(method_label(method), method_label(than)))


def method_is_higher(
    setting: Setting,
    runs: Runs,
    *,
    high: str,
    low: str,
    quantity: str,
    factor: float = 1.0,
    by: float = 0.0,
) -> Decision | None:
    """Decides whether ``high`` has the larger mean, each method at its best strength.

    None without runs of one of them.
    """
    both = [chosen_runs(setting, method) for method in (high, low)]
    if not all(len(chosen) for chosen in both):
        return None
    first, second = (by_seed(c, factor * c[quantity].astype(float)) for c in both)
    return larger(first, second, by=by, names=(method_label(high), method_label(low)))


def generalises_better(
    setting: Setting,
    runs: Runs,
    *,
    method: str,
    than: str,
    fitted: float = FITTED,
) -> Decision | None:
    """Decides whether a method has the better test accuracy, in a fair comparison.

    Args:
        fitted: training accuracy in % below which a method without a penalty
            underfits; not asked for where labels are noisy.
    """
    sides = {name: chosen_runs(setting, name) for name in (method, than)}
    if not all(len(chosen) for chosen in sides.values()):
        return None
    first, second = (by_seed(chosen, accuracies(chosen)) for chosen in sides.values())
    decision = larger(first, second, names=(method_label(method), method_label(than)))
    is_noisy = bool((setting.runs["noise"] > 0).any())
    handicaps = {
        name: edge_of_grid(setting.runs[setting.runs["method"] == name], chosen)
        or ("" if is_noisy else underfitting(chosen, fitted))
        for name, chosen in sides.items()
    }
    if decision.status == UNDECIDED:
        return withheld(decision, handicaps[method], method_label(method))
    winner, loser = (method, than) if decision.status == HOLDS else (than, method)
    decision = withheld(decision, handicaps[loser], method_label(loser))
    return withheld(decision, divergence(sides[winner]), method_label(winner))


def reaches(
    setting: Setting, runs: Runs, *, method: str, percent: float
) -> Decision | None:
    """Decides whether a method's final training accuracy is above so many percent."""
    chosen = chosen_runs(setting, method)
    if not len(chosen):
        return None
    values = by_seed(chosen, 100 * chosen["final_train_accuracy"].astype(float))
    return above(values, percent, name=method_label(method))


def end_alike(
    one: pd.DataFrame, other: pd.DataFrame, *, names: tuple[str, str], within: float
) -> Decision | None:
    """Decides whether two sets of runs, each at its best, agree in test accuracy.

    Args:
        within: percentage points.
    """
    sides = [for_cell(rows).runs for rows in (one, other)]
    if not all(len(chosen) for chosen in sides):
        return None
    first, second = (by_seed(chosen, accuracies(chosen)) for chosen in sides)
    decision = alike(first, second, within=within, names=names)
    for rows, chosen, name in zip((one, other), sides, names, strict=True):
        decision = withheld(decision, edge_of_grid(rows, chosen), name)
    return decision


def correlated(
    setting: Setting, runs: Runs, *, x: str, y: str, varied: str, sign: int
) -> Decision | None:
    """Decides whether values of ``varied`` with a larger x have a larger (1) y."""
    rows = final_stage(setting.runs)
    if not len(rows[[x, y]].dropna()):
        return None
    first, second = (rows[name].astype(float).tolist() for name in (x, y))
    settings, seeds = rows[varied].tolist(), rows["seed"].tolist()
    return across_settings(first, second, settings, seeds, sign)


def extremes(
    setting: Setting, varied: str, first: str
) -> tuple[tuple[str, pd.DataFrame], tuple[str, pd.DataFrame]] | None:
    """Returns the runs at both ends of a column, each with its name, or None.

    Args:
        first: the end that comes first: "smallest" or "largest".
    """
    rows = final_stage(setting.runs)
    values = sorted(set(rows[varied].dropna()), reverse=first == "largest")
    if len(values) < 2:
        return None
    one, other = (
        (f"{LETTERS[varied]} {value:.3g}", rows[rows[varied] == value])
        for value in (values[0], values[-1])
    )
    return one, other


def follows(setting: Setting, runs: Runs, *, x: str, y: str) -> Decision | None:
    """Decides whether one metric follows another along training.

    By a rank correlation over the records of each run; runs of one seed that differ in
    something else count once, by their mean.
    """
    rows = final_stage(setting.runs)
    found = [rank_correlation(runs.metrics[index], x, y) for index in rows.index]
    return along_training(by_seed(rows, pd.Series(found, index=rows.index)), 1)


def rank_correlation(metrics: pd.DataFrame, x: str, y: str) -> float:
    """Returns Spearman's ρ over a run's records; nan below three, or if one is flat."""
    if x not in metrics or y not in metrics:
        return np.nan
    both = metrics[[x, y]].dropna()
    if len(both) < 3 or both[x].nunique() < 2 or both[y].nunique() < 2:
        return np.nan
    return float(stats.spearmanr(both[x], both[y]).statistic)


def chosen_runs(setting: Setting, method: str) -> pd.DataFrame:
    """Returns a method's runs at its best strength, as a table's cell has them."""
    return for_cell(setting.runs[setting.runs["method"] == method]).runs


def edge_of_grid(rows: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """Says if what was chosen of a method's runs lies at the edge of their grid."""
    is_rate = set(chosen["method"]) == {"eta_star"}
    grid = rows["learning_rate"].astype(float) if is_rate else strengths(rows)
    values, own = sorted(set(grid[grid > 0])), set(grid[chosen.index])
    if len(values) < 2 or not own <= {values[0], values[-1]}:
        return ""
    letter = "η" if is_rate else "strength"
    return f"its {letter} of {own.pop():.3g} is at the edge of the grid"


def underfitting(chosen: pd.DataFrame, fitted: float) -> str:
    """Says if a method without a penalty ends below a training accuracy in %."""
    mean = 100 * chosen["final_train_accuracy"].astype(float).mean()
    is_reference = set(chosen["method"]) <= set(REFERENCES)
    return _underfits(mean) if is_reference and mean < fitted else ""


def underfitting_value(rows: pd.DataFrame, varied: str, fitted: float = FITTED) -> str:
    """Says which value of a column has runs that never reach a training accuracy."""
    for value, group in rows.groupby(varied, sort=True):
        mean = 100 * group["best_train_accuracy"].astype(float).mean()
        if mean < fitted:
            return f"{LETTERS[varied]} {value:.3g} {_underfits(mean)}"
    return ""


def unconverged(losses: pd.Series) -> str:
    """Says if the mean of training losses is above 1e-2, or that none is known."""
    mean = losses.mean()
    if pd.isna(mean):
        return "no training loss was recorded"
    if mean <= CONVERGED:
        return ""
    return f"not converged: training loss {mean:.3g} where at most 0.01 is claimed"


def divergence(rows: pd.DataFrame) -> str:
    """Says how many of the runs diverged, which no mean shows."""
    count = int((rows["status"] == DIVERGED).sum())
    return f"{count} of {len(rows)} runs diverged" if count else ""


def last_of(rows: pd.DataFrame, runs: Runs, name: str) -> pd.Series:
    """Returns the last record of a metric in each row's run, nan without one."""
    return _of_records(rows, runs, name, lambda values: values.iloc[-1])


def lowest_of(rows: pd.DataFrame, runs: Runs, name: str) -> pd.Series:
    """Returns the lowest record of a metric in each row's run, nan without one."""
    return _of_records(rows, runs, name, lambda values: values.min())


def highest_of(
    rows: pd.DataFrame, runs: Runs, name: str, *, after_epoch: float = 0
) -> pd.Series:
    """Returns the highest record of a metric in each row's run, nan without one."""
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


def withheld(decision: Decision, why: str, name: str = "") -> Decision:
    """Returns a decision that something else forbids, with one reason more.

    Args:
        why: "" leaves the decision as it is.
        name: of what ``why`` is said of.
    """
    if not why:
        return decision
    reasons = [decision.reason, f"{name}: {why}" if name else why]
    reason = "; ".join(reason for reason in reasons if reason)
    return decision._replace(status=UNDECIDED, reason=reason)


def _underfits(percent: float) -> str:
    return f"underfits: {percent:.1f}% training accuracy"
