"""The tests that decide a claim: each errs in at most 5% of null cases.

A decision is "holds", "fails" (the reverse is established) or "undecided", and an
undecided one says why. All tests are two-sided: where there is no effect, holds and
fails together come out in at most 5% of cases. ``tests/report/test_decide.py``
simulates that for few runs, skewed laws and coarse accuracies.

The unit is always the run: what is measured many times within a run counts once. What
is concluded speaks of the settings that were run, not of others.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
LEVEL = 0.05  # of one decision, and of all settings of one claim together
MIN_RUNS = 3  # for an interval
MIN_WITHOUT_SPREAD = 6  # for the sign test: 2 / 2^6 < 0.05
_LARGEST = 0.999  # of a coefficient: Fisher's z of 1 is infinite

# A value of each run by what tells the run from others, usually its seed.
Values = Mapping[Hashable, float]


class Decision(NamedTuple):
    """What runs say of a claim.

    Attributes:
        status: holds, fails or undecided.
        reason: why it is undecided, in a phrase; "" where it is decided.
        evidence: the numbers, with interval and count.
        p: two-sided p-value; nan where nothing was tested.
    """

    status: str
    reason: str
    evidence: str
    p: float = math.nan

    @property
    def is_tested(self) -> bool:
        """Whether a test was made, whatever it said."""
        return not math.isnan(self.p)


def undecided(reason: str, evidence: str = "") -> Decision:
    """Returns the decision that something other than chance forbids to decide."""
    return Decision(UNDECIDED, reason, evidence)


class Difference(NamedTuple):
    """A mean over runs, or a difference of two, as Student's t has it.

    Attributes:
        mean: the difference of the two means in ``sides``.
        sem: its standard error, with ``freedom`` degrees of freedom.
        kind: how it was formed, and of how many runs.
        n: pairs, or runs of the smaller side.
    """

    mean: float
    sem: float
    freedom: float
    kind: str
    n: int
    sides: tuple[float, float] = (math.nan, math.nan)

    @classmethod
    def of(
        cls,
        sample: Float[np.ndarray, " N"],
        kind: str,
        sides: tuple[float, float] = (math.nan, math.nan),
    ) -> "Difference":
        """The mean of a sample of at least two."""
        sem = float(sample.std(ddof=1)) / math.sqrt(sample.size)
        return cls(float(sample.mean()), sem, sample.size - 1, kind, sample.size, sides)

    @property
    def is_spread(self) -> bool:
        """Whether runs differ, by more than rounding."""
        scale = max(abs(self.mean), *(abs(s) for s in self.sides if s == s), 1e-300)
        return self.sem > 1e-12 * scale

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.mean - self._half

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.mean + self._half

    @property
    def _half(self) -> float:
        return float(special.stdtrit(self.freedom, 1 - LEVEL / 2)) * self.sem

    def p_value(self, bound: float) -> float:
        """Two-sided p that the mean is the bound; without spread by the sign test."""
        if not self.is_spread:
            is_bound = math.isclose(self.mean, bound, rel_tol=1e-9, abs_tol=1e-12)
            return 1.0 if is_bound else 2.0 ** (1 - self.n)
        t = abs(self.mean - bound) / self.sem
        return float(2 * special.stdtr(self.freedom, -t))

    def describe(self, names: tuple[str, str]) -> str:
        """Both means, their difference with its interval, and the count."""
        high, low = self.sides
        return (
            f"{names[0]} {number(high)}, {names[1]} {number(low)}: difference "
            f"{number(self.mean)} {_interval(self.low, self.high)}, {self.kind}"
        )


def difference(high: Values, low: Values) -> Difference | str:
    """Returns the difference of two means by the rule of ``larger``, or why none."""
    a, b = _finite(high), _finite(low)
    shared = [key for key in a if key in b]
    if len(shared) >= MIN_RUNS:
        first = np.array([a[key] for key in shared])
        second = np.array([b[key] for key in shared])
        sides = float(first.mean()), float(second.mean())
        kind = f"paired, n = {len(shared)}"
        return Difference.of(first - second, kind, sides)
    if min(len(a), len(b)) < MIN_RUNS:
        return _too_few(min(len(a), len(b)), "seed")
    parts = [Difference.of(np.array(list(side.values())), "") for side in (a, b)]
    first_part, second_part = parts
    sem = math.hypot(first_part.sem, second_part.sem)
    smaller = min(first_part.n, second_part.n)
    freedom: float = smaller - 1
    if first_part.n == second_part.n and sem > 0:
        fourths = first_part.sem**4 + second_part.sem**4
        freedom = (smaller - 1) * sem**4 / fourths
    return Difference(
        first_part.mean - second_part.mean,
        sem,
        freedom,
        f"Welch, n = {first_part.n} and {second_part.n}",
        smaller,
        (first_part.mean, second_part.mean),
    )


def larger(
    high: Values,
    low: Values,
    *,
    by: float = 0.0,
    names: tuple[str, str] = ("first", "second"),
) -> Decision:
    """Decides whether the mean of ``high`` exceeds that of ``low`` by more than ``by``.

    Student's t interval of the difference at 95%. Runs are paired over the seeds that
    both sides have if these are at least three; otherwise the interval is Welch's,
    with the smaller count less one as degrees of freedom where the counts differ
    (Hsu 1938; Welch's own are too many there). The seeds alone say which. Below three
    runs a side nothing is decided.

    Assumed: the differences of pairs, or the values of each side, are near normal, or
    without an effect both sides have the same law. Where no two runs differ there is no
    spread to go by, and the sign test decides, which takes six runs.

    Args:
        by: a negative one asks whether ``high`` is lower by less than that.
        names: of the two sides, for the evidence.
    """
    found = difference(high, low)
    if isinstance(found, str):
        return undecided(found, _sides(high, low, names))
    return _against(found, by, found.describe(names))


def alike(
    one: Values,
    other: Values,
    *,
    within: float,
    names: tuple[str, str] = ("first", "second"),
) -> Decision:
    """Decides whether two means differ by less than ``within``, either way.

    It holds if the interval of ``larger`` lies within ±``within`` and fails if it lies
    outside (two one-sided tests, Schuirmann 1987); few runs hence never show likeness.
    """
    found = difference(one, other)
    if isinstance(found, str):
        return undecided(found, _sides(one, other, names))
    evidence = f"{found.describe(names)}, to be within ±{number(within)}"
    nearer = math.copysign(within, found.mean)
    p = found.p_value(nearer)
    if p > LEVEL:
        return Decision(UNDECIDED, _why(found, nearer), evidence, p)
    return Decision(HOLDS if abs(found.mean) < within else FAILS, "", evidence, p)


def above(values: Values, bound: float, *, name: str = "mean") -> Decision:
    """Decides whether a mean over runs exceeds a bound, by Student's t interval."""
    return _one_mean(values, bound, name, 1)


def below(values: Values, bound: float, *, name: str = "mean") -> Decision:
    """Decides whether a mean over runs stays below a bound, by Student's t interval."""
    return _one_mean(values, bound, name, -1)


def mostly(flags: Mapping[Hashable, bool], *, name: str = "runs") -> Decision:
    """Decides whether more than half of all runs do something, by the sign test."""
    n, count = len(flags), sum(flags.values())
    evidence = f"{count} of {n} {name}"
    if n < MIN_RUNS:
        return undecided(_too_few(n, "run"), evidence)
    p = min(1.0, 2 * float(special.bdtr(min(count, n - count), n, 0.5)))
    if p > LEVEL:
        reason = f"p = {p:.2g}: too few runs to tell from one half"
        return Decision(UNDECIDED, reason, evidence, p)
    return Decision(HOLDS if 2 * count > n else FAILS, "", evidence, p)


def ratio_below(
    numerator: Values,
    denominator: Values,
    bound: float,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Decision:
    """Decides whether a ratio of positive quantities, as times, is below a bound.

    The ratio is that of geometric means, its interval ``larger``'s of the logarithms:
    for times and traces, whose spread grows with their size. Undecided where a value
    is not positive, as an estimate of Tr(H) may be: it has no logarithm, and without it
    the others would tell a better story.
    """
    sides = _finite(numerator), _finite(denominator)
    everything = [value for side in sides for value in side.values()]
    if negative := sum(value <= 0 for value in everything):
        return undecided(
            f"{negative} of {len(everything)} values are not positive",
            _sides(numerator, denominator, names),
        )
    found = difference(
        *({key: math.log(value) for key, value in side.items()} for side in sides)
    )
    if isinstance(found, str):
        return undecided(found, _sides(numerator, denominator, names))
    ratio, low, high = (math.exp(v) for v in (found.mean, found.low, found.high))
    evidence = (
        f"{names[0]} {number(ratio)} times {names[1]} {_interval(low, high)}, "
        f"{found.kind}, to be below {number(bound)}"
    )
    return _flipped(_against(found, math.log(bound), evidence, shown=bound))


def along_training(coefficients: Values) -> Decision:
    """Decides whether two quantities rise together along training, by a run's r each.

    Student's t interval over runs of Fisher's z = artanh r, at least three runs.
    Records within a run depend on each other and are not counted.

    Assumed: without an effect a run's coefficient is as likely to be r as -r. Two
    quantities that only drift, each its own way in every run alike, do go together.
    """
    z = {
        key: math.atanh(min(max(r, -_LARGEST), _LARGEST))
        for key, r in _finite(coefficients).items()
    }
    if len(z) < MIN_RUNS:
        evidence = _sides(coefficients, {}, ("r", ""))
        return undecided(_too_few(len(z), "run"), evidence)
    mean = Difference.of(np.array(list(z.values())), "")
    low, high = math.tanh(mean.low), math.tanh(mean.high)
    evidence = (
        f"r = {number(math.tanh(mean.mean))} {_interval(low, high)}, n = {len(z)}"
    )
    return _against(mean, 0.0, evidence)


def throughout(decisions: Iterable[Decision]) -> Decision:
    """Returns whether what was decided at each of several places is so at all of them.

    It holds if it does at every place, each at 5% (an intersection-union test: p is the
    largest), and fails if at one place the reverse survives Holm's correction over all.
    The evidence is that of the place which decides.
    """
    everything = list(decisions)
    if not everything or not all(decision.is_tested for decision in everything):
        return undecided(_all_reasons(everything) or "no runs")
    corrected = holm([decision.p for decision in everything])
    reversals = [
        (p, decision.evidence)
        for p, decision in zip(corrected, everything, strict=True)
        if decision.status == FAILS
    ]
    if not reversals:
        return max(everything, key=lambda decision: decision.p)
    p, evidence = min(reversals)
    if p <= LEVEL:
        return Decision(FAILS, "", evidence, p)
    reason = f"reversed at {len(reversals)} of {len(everything)}, as chance may"
    return Decision(UNDECIDED, reason, evidence, p)


def together(decisions: Iterable[Decision]) -> Decision:
    """Returns what the settings of one claim say together.

    A setting counts as decided if its p survives Holm's correction over the settings
    that were tested, so that the claim as a whole errs in at most 5% of null cases. The
    claim holds if every decided setting holds, fails if every decided one fails, and is
    undecided where they disagree or none is decided. p is the smallest corrected one.
    """
    everything = list(decisions)
    tested = [decision for decision in everything if decision.is_tested]
    if not tested:
        return undecided(_all_reasons(everything) if everything else "no runs")
    corrected = holm([decision.p for decision in tested])
    decided = [
        decision.status
        for decision, p in zip(tested, corrected, strict=True)
        if p <= LEVEL and decision.status != UNDECIDED
    ]
    p = min(corrected)
    if len(set(decided)) == 1:
        return Decision(decided[0], "", _count(decided, everything), p)
    if decided:
        reason = "settings disagree: " + ", ".join(
            f"{status} in {decided.count(status)}" for status in (HOLDS, FAILS)
        )
        return Decision(UNDECIDED, reason, _count(decided, everything), p)
    if len(tested) > 1 and any(d.status != UNDECIDED for d in tested):
        reason = f"nothing survives Holm's correction over {len(tested)} settings"
    else:
        reason = _all_reasons(tested)
    return Decision(UNDECIDED, reason, "", p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number (Holm 1979): compare them with 0.05.

    They keep the chance of any false one among them at the level, whatever their
    dependence.
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def by_chance(decisions: Iterable[Decision]) -> tuple[int, float]:
    """Returns how many claims were tested, and how many chance alone would decide.

    That is 5% of them, half as holding and half as failing, were there no effect
    anywhere.
    """
    tested = sum(decision.is_tested for decision in decisions)
    return tested, LEVEL * tested


def number(value: float) -> str:
    """Returns four significant digits with a true minus sign; rounding's rest is 0."""
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}".replace("-", "−")


def _against(
    difference: Difference, bound: float, evidence: str, shown: float | None = None
) -> Decision:
    """Decides whether a mean is above a bound, which the reason shows."""
    p = difference.p_value(bound)
    if p <= LEVEL:
        return Decision(HOLDS if difference.mean > bound else FAILS, "", evidence, p)
    why = _why(difference, bound if shown is None else shown)
    return Decision(UNDECIDED, why, evidence, p)


def _why(difference: Difference, bound: float) -> str:
    """Why a mean is neither above nor below a bound."""
    if not difference.is_spread:
        return (
            f"all {difference.n} runs give the same: without a spread "
            f"{MIN_WITHOUT_SPREAD} are needed"
        )
    return (
        f"the interval holds {number(bound)}: too small an effect for "
        f"{difference.n} runs"
    )


def _one_mean(values: Values, bound: float, name: str, sign: int) -> Decision:
    finite = _finite(values)
    if len(finite) < MIN_RUNS:
        evidence = _sides(finite, {}, (name, ""))
        return undecided(_too_few(len(finite), "run"), evidence)
    mean = Difference.of(np.array(list(finite.values())), "")
    word = "above" if sign > 0 else "below"
    evidence = f"{name} {number(mean.mean)} {_interval(mean.low, mean.high)}, n = "
    evidence += f"{mean.n}, to be {word} {number(bound)}"
    decision = _against(mean, bound, evidence)
    return decision if sign > 0 else _flipped(decision)


def _flipped(decision: Decision) -> Decision:
    flipped = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
    return decision._replace(status=flipped[decision.status])


def _finite(values: Values) -> dict[Hashable, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _sides(a: Values, b: Values, names: tuple[str, str]) -> str:
    sides = _finite(a), _finite(b)
    return ", ".join(
        f"{name} {number(float(np.mean(list(side.values()))))} (n = {len(side)})"
        for name, side in zip(names, sides, strict=True)
        if side
    )


def _interval(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]"


def _too_few(n: int, word: str) -> str:
    return (
        f"too few {word}s: {n} {word if n == 1 else word + 's'}, at least {MIN_RUNS} "
        "are needed"
    )


def _all_reasons(decisions: Sequence[Decision]) -> str:
    """Each reason once; a decision may have several."""
    parts = (part for d in decisions for part in d.reason.split("; ") if part)
    return "; ".join(dict.fromkeys(parts))


def _count(decided: Sequence[str], everything: Sequence[Decision]) -> str:
    return f"{len(decided)} of {len(everything)} settings decided"
