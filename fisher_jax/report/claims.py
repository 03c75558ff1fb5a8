"""The paper's claims, each held against the runs of every setting by its rule.

Two means differ if they do so by more than two standard errors (Welch); a correlation
has a sign if its 95% bootstrap interval leaves out zero. A claim holds if it does in
every setting that was run, fails if it holds in none and is reversed in one, and is
mixed or unclear otherwise. With one seed nothing is decided.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fisher_jax.report.choose import (
    Setting,
    average,
    final_stage,
    for_cell,
    pairs,
    pairs_along_training,
    settings_of,
)
from fisher_jax.report.collect import Runs
from fisher_jax.report.names import method_label
from fisher_jax.report.statistics import Summary, correlate

HOLDS, FAILS, MIXED, UNCLEAR, NO_RUNS = "holds", "fails", "mixed", "unclear", "no runs"


class Decision(NamedTuple):
    """What one setting says: a status, its numbers, and why it is not decided."""

    status: str
    evidence: str
    reason: str = ""


Rule = Callable[[Setting, Runs], Decision | None]


class Claim(NamedTuple):
    """A sentence and the rule that decides it in one setting; None: nothing there."""

    text: str
    rule: Rule


class Finding(NamedTuple):
    """What one setting says of a claim."""

    setting: str
    decision: Decision


class Verdict(NamedTuple):
    """A claim with what all settings say together."""

    claim: str
    status: str
    findings: tuple[Finding, ...]


def verdict_on(claim: Claim, rows: pd.DataFrame, runs: Runs) -> Verdict:
    """Decides a claim in every setting of the rows, and over all of them."""
    settings = settings_of(rows, by_noise=True) if len(rows) else []
    decided = [(setting.title, claim.rule(setting, runs)) for setting in settings]
    findings = tuple(Finding(title, d) for title, d in decided if d is not None)
    status = together([finding.decision.status for finding in findings])
    return Verdict(claim.text, status, findings)


def together(statuses: Sequence[str]) -> str:
    """Returns the status of a claim from those of its settings."""
    if not statuses:
        return NO_RUNS
    distinct = set(statuses)
    if distinct == {HOLDS}:
        return HOLDS
    if HOLDS not in distinct and FAILS in distinct:
        return FAILS
    return MIXED if HOLDS in distinct or FAILS in distinct else UNCLEAR


def method_is_higher(
    setting: Setting,
    runs: Runs,
    *,
    high: str,
    low: str,
    quantities: Sequence[str],
    factor: float = 1.0,
) -> Decision | None:
    """Decides whether method ``high`` has the larger mean, each at its best strength.

    Args:
        quantities: the first that a method's runs have is compared.
    """
    means = []
    for method in (high, low):
        chosen = for_cell(setting.runs[setting.runs["method"] == method]).runs
        found = (average(chosen, quantity, factor)[0] for quantity in quantities)
        means.append(next((mean for mean in found if mean is not None), None))
    if means[0] is None or means[1] is None:
        return None
    text = f"{_word(high, means[0])} against {_word(low, means[1])}"
    return larger(means[0], means[1], text)


def correlated(
    setting: Setting, runs: Runs, *, x: str, y: str, sign: int
) -> Decision | None:
    """Decides whether two columns' rank correlation over single runs has a sign."""
    return has_sign(*pairs(final_stage(setting.runs), x, y), sign)


def correlated_along_training(
    setting: Setting, runs: Runs, *, x: str, y: str, sign: int
) -> Decision | None:
    """Decides whether two metrics' rank correlation over all records has a sign."""
    rows = final_stage(setting.runs)
    return has_sign(*pairs_along_training(rows, runs.metrics, x, y), sign)


def larger(a: Summary, b: Summary, evidence: str) -> Decision:
    """Decides whether a's mean is larger than b's, by two standard errors."""
    if min(a.n, b.n) < 2:
        return Decision(UNCLEAR, evidence, "one seed")
    error = math.hypot(a.sem, b.sem)
    if abs(a.mean - b.mean) <= 2 * error:
        return Decision(UNCLEAR, evidence, "the means are within two standard errors")
    return Decision(HOLDS if a.mean > b.mean else FAILS, evidence)


def has_sign(x: np.ndarray, y: np.ndarray, sign: int) -> Decision | None:
    """Decides whether Spearman's ρ has the sign, by its bootstrap interval."""
    if not x.size:
        return None
    found = correlate(x, y)
    if found is None:
        return Decision(UNCLEAR, f"no correlation of {x.size} points", "too few")
    evidence = (
        f"ρ = {found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}], n = {found.n}"
    ).replace("-", "−")
    if found.low <= 0 <= found.high:
        return Decision(UNCLEAR, evidence, "the interval holds zero")
    return Decision(HOLDS if found.spearman * sign > 0 else FAILS, evidence)


def _word(name: str, value: Summary) -> str:
    spread = "" if math.isnan(value.std) else f" ± {value.std:.3g}"
    return f"{method_label(name)} {value.mean:.4g}{spread} (n = {value.n})"
