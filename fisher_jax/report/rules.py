"""How the runs of a setting decide a claim: the rules that several items share.

Numbers come from the runs, the statistics from ``decide``. Beside chance, a claim stays
undecided where the comparison is not a fair one: what lost was tuned to the edge of its
grid, a method without a penalty underfits, what won has lost runs to divergence.
"""

from collections.abc import Hashable

import pandas as pd

from fisher_jax.report.choose import (
    REFERENCES,
    Setting,
    accuracies,
    best_runs,
    strengths,
)
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import (
    HOLDS,
    UNDECIDED,
    Decision,
    above,
    alike,
    along_training,
    larger,
    mostly,
    ratio_below,
)
from fisher_jax.report.names import method_label
from fisher_jax.report.permutation import across_values
from fisher_jax.report.phases import with_phases
from fisher_jax.report.values import (
    LETTERS,
    by_seed,
    extremes,
    highest_of,
    last_of,
    rank_correlation,
    still_rises,
)
from fisher_jax.run_files import DIVERGED

FITTED = 98.5  # training accuracy in %: the paper's runs reach "~99% and above"
CONVERGED = 1e-2  # training loss: the paper's converged runs are "at or below"


def peak_is_lower(
    setting: Setting, runs: Runs, *, method: str, than: str
) -> Decision | None:
    """Decides whether a method's Tr(F) peaks lower after epoch 1, by the ratio.

    None without runs of one of them. Undecided where a run is too short to hold the
    peak that could change the answer.
    """
    low, high = (
        (method_label(name), setting.best(name).rows) for name in (method, than)
    )
    if not len(low[1]) or not len(high[1]):
        return None
    peaks = [by_seed(chosen, chosen["max_fisher_trace"]) for _, chosen in (low, high)]
    decision = ratio_below(peaks[0], peaks[1], 1.0, names=(low[0], high[0]))
    return _held_peak(decision, low, high, runs)


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
    both = [setting.best(method).rows for method in (high, low)]
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
    sides = {name: setting.best(name).rows for name in (method, than)}
    if not all(len(chosen) for chosen in sides.values()):
        return None
    first, second = (by_seed(chosen, accuracies(chosen)) for chosen in sides.values())
    decision = larger(first, second, names=(method_label(method), method_label(than)))
    is_noisy = bool((setting.rows["noise"] > 0).any())
    handicaps = {
        name: edge_of_grid(setting.of(name), chosen)
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
    chosen = setting.best(method).rows
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
    sides = [best_runs(rows).rows for rows in (one, other)]
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
    rows = setting.final
    if not len(rows[[x, y]].dropna()):
        return None
    first, second = (rows[name].astype(float).tolist() for name in (x, y))
    values, seeds = rows[varied].tolist(), rows["seed"].tolist()
    return across_values(first, second, values, seeds, sign)


def follows(setting: Setting, runs: Runs, *, x: str, y: str) -> Decision | None:
    """Decides whether one metric follows another along training.

    By a rank correlation over the records of each run; runs of one seed that differ in
    something else count once, by their mean.
    """
    rows = setting.final
    found = [rank_correlation(runs.metrics[index], x, y) for index in rows.index]
    return along_training(by_seed(rows, pd.Series(found, index=rows.index)))


def early_goes_with_better(
    setting: Setting, runs: Runs, *, varied: str
) -> Decision | None:
    """Decides whether a smaller early Tr(F) goes with a better best test accuracy.

    Not where a value's runs underfit: their Tr(F) is small at ε because they are slow.
    """
    x, y = "early_fisher_trace", "best_test_accuracy"
    decision = correlated(setting, runs, x=x, y=y, varied=varied, sign=-1)
    why = underfitting_value(setting.final, varied)
    return None if decision is None else withheld(decision, why)


def most_fit(
    setting: Setting,
    runs: Runs,
    *,
    quantity: str,
    methods: tuple[str, ...] | None = None,
) -> Decision | None:
    """Decides whether most runs reach the paper's "~99% and above".

    Args:
        quantity: the training accuracy that is compared.
        methods: whose runs count, each at its best strength; None: all runs.
    """
    rows = setting.rows
    if methods is not None:
        rows = pd.concat([setting.best(method).rows for method in methods])
    percent = 100 * rows[quantity].astype(float).dropna()
    fits = {index: bool(value >= FITTED) for index, value in percent.items()}
    return mostly(fits, name=f"runs at {FITTED:g}% or more") if fits else None


def step_peak_is_higher(
    setting: Setting, runs: Runs, *, varied: str, higher: str
) -> Decision | None:
    """Decides whether Tr(F) of single steps peaks higher at one end of ``varied``.

    All steps count, those of the first epoch too. Undecided where a run is too short to
    hold the peak that could change the answer.

    Args:
        higher: the end claimed to peak higher: "smallest" or "largest".
    """
    both = extremes(setting, varied, higher)
    if both is None:
        return None
    high, low = both
    peaks = [by_seed(rows, highest_of(rows, runs, "trace/fisher")) for _, rows in both]
    names = f"peak with {low[0]}", f"that with {high[0]}"
    decision = ratio_below(peaks[1], peaks[0], 1.0, names=names)
    return _held_peak(decision, low, high, runs)


def _held_peak(
    decision: Decision,
    low: tuple[str, pd.DataFrame],
    high: tuple[str, pd.DataFrame],
    runs: Runs,
) -> Decision:
    """Withholds a decision on peaks where what peaks lower may yet rise above.

    Args:
        low: name and rows of what is claimed to peak lower than ``high``.
    """
    name, rows = low if decision.status == HOLDS else high
    is_short = still_rises(rows, runs, "trace/fisher")
    why = "too short a run: its Tr(F) still rises at the end" if is_short else ""
    return withheld(decision, why, name)


def phase_one_ends_flatter(
    setting: Setting, runs: Runs, *, varied: str
) -> Decision | None:
    """Decides whether a HIGH phase one ends with a smaller Tr(F) than a LOW one.

    None where another key was varied, or one of the two has no run.
    """
    phased = with_phases(setting.final, runs.rows)
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
    phased = with_phases(setting.final, runs.rows)
    second = phased[phased["phase"] == 2]
    if phased["varied"].iloc[0] != varied or set(second["start"]) != {"high", "low"}:
        return None
    groups = [second[second["start"] == start] for start in ("high", "low")]
    high, low = (_by_first_phase(group, runs.rows, quantity) for group in groups)
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


def underfitting_value(rows: pd.DataFrame, varied: str) -> str:
    """Says which value of a column has runs that never reach a training accuracy."""
    for value, group in rows.groupby(varied, sort=True):
        mean = 100 * group["best_train_accuracy"].astype(float).mean()
        if mean < FITTED:
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
