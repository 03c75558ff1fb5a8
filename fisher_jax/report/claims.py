"""What reproduced: the paper's claims, each held against the runs by a stated rule.

Two means differ if they do so by more than two standard errors (Welch); a correlation
has a sign if its 95% bootstrap interval leaves out zero. A claim holds if it does in
every setting that was run, fails if it holds in none and is reversed in one, and is
mixed or unclear otherwise. With one seed nothing is decided.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from fisher_jax.report.choose import average, for_cell
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures.beyond import accuracy_of
from fisher_jax.report.figures.canvas import Panel, panels_of, run_rows
from fisher_jax.report.figures.early import early_pairs
from fisher_jax.report.figures.traces import pairs
from fisher_jax.report.figures.two_phase import phase_panels
from fisher_jax.report.names import method_label
from fisher_jax.report.statistics import Correlation, Summary, correlate, summarise

HOLDS, FAILS, MIXED, UNCLEAR, NO_RUNS = "holds", "fails", "mixed", "unclear", "no runs"


class Finding(NamedTuple):
    """What one setting says: a status and the numbers."""

    status: str
    evidence: str


class Verdict(NamedTuple):
    """A claim with what all settings say together."""

    items: tuple[str, ...]  # keys of the tables and figures that show it
    claim: str
    status: str
    findings: tuple[str, ...]


Check = Callable[[Runs], Iterable[Finding]]


class Claim(NamedTuple):
    """A sentence and how it is checked in every setting."""

    items: tuple[str, ...]
    text: str
    check: Check


def verdicts(runs: Runs) -> list[Verdict]:
    """Returns a verdict for every claim, in the paper's order."""
    result = []
    for claim in CLAIMS:
        findings = list(claim.check(runs))
        evidence = tuple(f"{f.evidence}: {f.status}" for f in findings)
        status = together([f.status for f in findings])
        result.append(Verdict(claim.items, claim.text, status, evidence))
    return result


def together(statuses: list[str]) -> str:
    """Returns the status of a claim from those of its settings."""
    if not statuses:
        return NO_RUNS
    distinct = set(statuses)
    if distinct == {HOLDS}:
        return HOLDS
    if HOLDS not in distinct and FAILS in distinct:
        return FAILS
    return MIXED if HOLDS in distinct or FAILS in distinct else UNCLEAR


def larger(a: Summary | None, b: Summary | None) -> str:
    """Returns whether a's mean is larger than b's, by two standard errors."""
    if a is None or b is None or min(a.n, b.n) < 2:
        return UNCLEAR
    error = math.hypot(a.sem, b.sem)
    if abs(a.mean - b.mean) <= 2 * error:
        return UNCLEAR
    return HOLDS if a.mean > b.mean else FAILS


def has_sign(correlation: Correlation | None, sign: int) -> str:
    """Returns whether Spearman's ρ has the sign, by its bootstrap interval."""
    if correlation is None or correlation.low <= 0 <= correlation.high:
        return UNCLEAR
    return HOLDS if correlation.spearman * sign > 0 else FAILS


def _methods(
    experiments: tuple[str, ...],
    quantities: tuple[str, ...],
    high: str,
    low: str,
    factor: float = 100.0,
) -> Check:
    """A check that method ``high`` has the larger mean than ``low``."""

    def check(runs: Runs) -> Iterator[Finding]:
        rows = runs.table[runs.table["experiment"].isin(experiments)]
        for title, group in _settings(rows):
            means = []
            for method in (high, low):
                chosen = for_cell(group[group["method"] == method]).runs
                found = (average(chosen, q, factor)[0] for q in quantities)
                means.append(next((m for m in found if m is not None), None))
            if None not in means:
                text = (
                    f"{title}, {_word(high, means[0])} against {_word(low, means[1])}"
                )
                yield Finding(larger(*means), text)

    return check


def _settings(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for panel in panels_of(rows) if len(rows) else []:
        noises = sorted(set(rows["noise"]))
        same = rows[rows.index.isin(panel.runs.index)]
        for noise in noises:
            group = same[same["noise"] == noise]
            if len(group):
                noisy = f", {100 * noise:g}% noise" if noise else ""
                yield panel.title + noisy, group


def _word(name: str, value: Summary | None) -> str:
    if value is None:
        return f"{method_label(name)} –"
    spread = "" if math.isnan(value.std) else f" ± {value.std:.3g}"
    return f"{method_label(name)} {value.mean:.4g}{spread} (n = {value.n})"


def _correlated(
    experiments: tuple[str, ...],
    sign: int,
    points: Callable[[Panel, Runs], tuple[np.ndarray, np.ndarray]],
) -> Check:
    """A check that the points' rank correlation has a sign."""

    def check(runs: Runs) -> Iterator[Finding]:
        rows = run_rows(runs, experiments)
        for panel in panels_of(rows) if len(rows) else []:
            x, y = points(panel, runs)
            if not x.size:
                continue
            correlation = correlate(x, y)
            if correlation is None:
                numbers = f"no correlation of {x.size} points"
            else:
                numbers = (
                    f"ρ = {correlation.spearman:.2f} [{correlation.low:.2f}, "
                    f"{correlation.high:.2f}], n = {correlation.n}"
                ).replace("-", "−")
            yield Finding(has_sign(correlation, sign), f"{panel.title}, {numbers}")

    return check


def _cost(runs: Runs) -> Iterator[Finding]:
    rows = run_rows(runs, _TABLE_1)
    for title, group in _settings(rows):
        times = {
            method: average(
                for_cell(group[group["method"] == method]).runs, "seconds_per_epoch"
            )[0]
            for method in ("fp", "baseline")
        }
        fp, baseline = times["fp"], times["baseline"]
        if fp is not None and baseline is not None:
            ratio = fp.mean / baseline.mean
            status = HOLDS if ratio <= 1.69 else FAILS
            yield Finding(status, f"{title}, {ratio:.2f} times the baseline")


def _peaks_fall(experiment: str, varied: str, sign: int) -> Check:
    def points(panel: Panel, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
        both = panel.runs[[varied, "max_fisher_trace"]].astype(float).dropna()
        return both[varied].to_numpy(), both["max_fisher_trace"].to_numpy()

    return _correlated((experiment,), sign, points)


def _early_points(panel: Panel, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    return early_pairs(panel.runs, "best_test_accuracy")


def _onset_points(panel: Panel, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    kept = panel.runs[panel.runs["method"].isin(("fp", "rfp"))]
    both = kept[["start_epoch", "test_accuracy"]].astype(float).dropna()
    return both["start_epoch"].to_numpy(), both["test_accuracy"].to_numpy()


def _minibatch_points(panel: Panel, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    return pairs(panel.runs, runs, "trace/fisher", "trace/fisher_minibatch")


def _hessian_points(panel: Panel, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    return pairs(panel.runs, runs, "trace/fisher", "trace/hessian")


def _sharp_minima(panel: Panel, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    rows = panel.runs
    is_rate = rows["learning_rate"].nunique() > rows["batch_size"].nunique()
    strength = rows["learning_rate"] if is_rate else -rows["batch_size"]
    both = pd.DataFrame({"x": strength, "y": rows["hessian_trace_at_best_test"]})
    both = both.astype(float).dropna()
    return both["x"].to_numpy(), both["y"].to_numpy()


def _phases(quantity: str, factor: float, high_is_larger: bool) -> Check:
    def check(runs: Runs) -> Iterator[Finding]:
        for panel in phase_panels(runs):
            second = panel.runs[panel.runs["phase"] == 2]
            high, low = (
                summarise(
                    list(factor * second[second["start"] == s][quantity].astype(float))
                )
                for s in ("high", "low")
            )
            if high is not None and low is not None:
                pair = (high, low) if high_is_larger else (low, high)
                words = f"high start {high.mean:.4g}, low start {low.mean:.4g}"
                yield Finding(larger(*pair), f"{panel.title}, {words}")

    return check


def _best_of_strengths(experiment: str, high: str, low: str) -> Check:
    """A check between two methods, each at its own best strength by validation."""

    def check(runs: Runs) -> Iterator[Finding]:
        rows = runs.table[runs.table["experiment"] == experiment]
        for title, group in _settings(rows):
            means = []
            for method in (high, low):
                chosen = for_cell(group[group["method"] == method]).runs
                means.append(
                    summarise(list(accuracy_of(chosen))) if len(chosen) else None
                )
            if None not in means:
                text = (
                    f"{title}, {_word(high, means[0])} against {_word(low, means[1])}"
                )
                yield Finding(larger(*means), text)

    return check


_TABLE_1 = ("table1", "cifar10_simplecnn_fp")
_TABLE_3 = ("table3", "digits_fp")
_ACCURACY = ("test_accuracy_at_best_validation", "test_accuracy")

CLAIMS = (
    Claim(
        ("figure1",),
        "The smaller learning rate lets Tr(F) rise higher.",
        _peaks_fall("fig01", "learning_rate", -1),
    ),
    Claim(
        ("figure2",),
        "Across learning rates, a smaller early Tr(F) goes with better accuracy.",
        _correlated(("fig02", "fig08"), -1, _early_points),
    ),
    Claim(
        ("figure7",),
        "Across batch sizes, a smaller early Tr(F) goes with better accuracy.",
        _correlated(("fig07", "fig09"), -1, _early_points),
    ),
    Claim(
        ("figure3",),
        "The later FP is switched on, the less it helps.",
        _correlated(("fig03",), -1, _onset_points),
    ),
    Claim(
        ("table1", "figure4", "figure10"),
        "FP makes up for a small learning rate: better than the baseline.",
        _methods(_TABLE_1, _ACCURACY, "fp", "baseline"),
    ),
    Claim(
        ("table1",),
        "FP with a small learning rate beats the best learning rate η*.",
        _methods(_TABLE_1, _ACCURACY, "fp", "eta_star"),
    ),
    Claim(
        ("table2",),
        "FP improves on η* with augmentation.",
        _methods(("table2",), _ACCURACY, "fp", "eta_star"),
    ),
    Claim(
        ("table3",),
        "With noisy labels FP generalises better than the baseline.",
        _methods(_TABLE_3, _ACCURACY, "fp", "baseline"),
    ),
    Claim(
        ("table9", "figure5", "figure11", "figure12"),
        "FP memorises fewer wrong labels than the baseline.",
        _methods(_TABLE_3, ("final_train_noisy_accuracy",), "baseline", "fp"),
    ),
    Claim(
        ("table4", "figure4", "figure10"),
        "FP lowers the peak of Tr(F).",
        _methods(_TABLE_1, ("max_fisher_trace",), "baseline", "fp", 1.0),
    ),
    Claim(
        ("table5",),
        "FP costs at most 1.69 times the baseline's time, as in the paper.",
        _cost,
    ),
    Claim(
        ("figure6", "figure13"),
        "High early regularisation ends in flatter minima (smaller Tr(H)).",
        _phases("hessian_trace_at_best_test", 1.0, False),
    ),
    Claim(
        ("figure6", "figure13"),
        "High early regularisation ends in better accuracy.",
        _phases("best_test_accuracy", 100.0, True),
    ),
    Claim(
        ("figure14",),
        "Large learning rates and small batches end with a smaller Tr(H).",
        _correlated(("fig14",), -1, _sharp_minima),
    ),
    Claim(
        ("figure15",),
        "Tr(F_B) of one batch follows Tr(F).",
        _correlated(("fig15",), 1, _minibatch_points),
    ),
    Claim(
        ("figure18",),
        "At every step: a larger learning rate keeps Tr(F) lower.",
        _peaks_fall("fig18", "learning_rate", -1),
    ),
    Claim(
        ("figure19",),
        "At every step: a smaller batch keeps Tr(F) lower.",
        _peaks_fall("fig19", "batch_size", 1),
    ),
    Claim(
        ("figure20",),
        "FP makes up for a large batch.",
        _best_of_strengths("fig20", "fp", "baseline"),
    ),
    Claim(
        ("figure21",),
        "Tr(H) follows Tr(F).",
        _correlated(("fig21",), 1, _hessian_points),
    ),
    Claim(
        ("beyond_rfp",),
        "Beyond the paper: RFP generalises better than FP, each at its best strength.",
        _best_of_strengths("beyond_rfp", "rfp", "fp"),
    ),
)
