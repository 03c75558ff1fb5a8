"""A claim of the paper, and how the runs of each setting decide it."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from fisher_jax.report.choose import Setting, settings_of
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, together, undecided

Rule = Callable[[Setting, Runs], Decision | None]


class Claim(NamedTuple):
    """A sentence and the rule that decides it in one setting; None: nothing there.

    Attributes:
        noise: the share of noisy labels of the settings that it is of; None: of all.
    """

    text: str
    rule: Rule
    noise: float | None = None


class Finding(NamedTuple):
    """What one setting says of a claim."""

    setting: str
    decision: Decision

    @property
    def text(self) -> str:
        """The setting, its numbers, what they say, and why they do not say more."""
        decision = self.decision
        numbers = f", {decision.evidence}" if decision.evidence else ""
        why = f" ({decision.reason})" if decision.reason else ""
        return f"{self.setting}{numbers}: {decision.status}{why}"


class Verdict(NamedTuple):
    """A claim with what all settings say together, and each by itself."""

    claim: str
    decision: Decision
    findings: tuple[Finding, ...]

    @property
    def status(self) -> str:
        """Holds, fails or undecided; "no runs" where there is nothing to decide on."""
        return self.decision.status if self.findings else "no runs"

    @property
    def reason(self) -> str:
        """Why it is undecided; "" where it is decided or there are no runs."""
        return self.decision.reason if self.findings else ""


def verdicts_on(
    claims: Iterable[Claim], rows: pd.DataFrame, runs: Runs
) -> Iterator[Verdict]:
    """Decides each claim in every setting of the rows, and over all of them."""
    settings = settings_of(rows, by_noise=True)
    for claim in claims:
        decided = [
            (setting.title, decide_claim(claim, setting, runs)) for setting in settings
        ]
        findings = tuple(Finding(title, d) for title, d in decided if d is not None)
        yield Verdict(claim.text, together(f.decision for f in findings), findings)


def decide_claim(claim: Claim, setting: Setting, runs: Runs) -> Decision | None:
    """Returns what the rule says of a setting.

    With one seed nothing is decided, whatever the rule: it counts as not tested.
    """
    if claim.noise is not None and not (setting.rows["noise"] == claim.noise).all():
        return None
    decision = claim.rule(setting, runs)
    if decision is None or setting.final["seed"].nunique() > 1:
        return decision
    return undecided(decision.reason or "one seed", decision.evidence)
