"""Statistics over runs: means with their spread, correlations, intervals, smoothing."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

BOOTSTRAP_SEED = 0  # the same files give the same report
NUM_RESAMPLES = 1000


class Summary(NamedTuple):
    """Mean, sample standard deviation (n - 1; nan for one value) and count."""

    mean: float
    std: float
    n: int

    @property
    def sem(self) -> float:
        """Standard error of the mean."""
        return self.std / math.sqrt(self.n)


class Correlation(NamedTuple):
    """Pearson's r, Spearman's rho and rho's 95% bootstrap interval over n points."""

    pearson: float
    spearman: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Mean difference with its 95% interval, over n pairs or the smaller group."""

    mean: float
    low: float
    high: float
    n: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Returns mean ± std and n of the finite values; None where there is none."""
    finite = np.array([v for v in values if v is not None and math.isfinite(v)])
    if not finite.size:
        return None
    std = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    return Summary(float(finite.mean()), std, int(finite.size))


def correlate(
    x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]
) -> Correlation | None:
    """Correlates two samples; None below three points or where one is constant.

    The interval is the percentile bootstrap's, over resampled points.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x)[keep], np.asarray(y)[keep]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    random = np.random.default_rng(BOOTSTRAP_SEED)
    resampled = []
    # A few resamples at a time: all of thousands of points would take gigabytes.
    at_once = max(1, min(NUM_RESAMPLES, 500_000 // x.size))
    for start in range(0, NUM_RESAMPLES, at_once):
        count = min(at_once, NUM_RESAMPLES - start)
        chosen = random.integers(0, x.size, (count, x.size))
        ranks = [stats.rankdata(sample[chosen], axis=1) for sample in (x, y)]
        resampled.append(_row_correlations(*ranks))
    # A resample that drew one value only has no correlation and is left out.
    low, high = np.nanpercentile(np.concatenate(resampled), (2.5, 97.5))
    return Correlation(
        pearson=float(stats.pearsonr(x, y).statistic),
        spearman=float(stats.spearmanr(x, y).statistic),
        low=float(low),
        high=float(high),
        n=int(x.size),
    )


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """Returns mean(a - b) over pairs, as runs of one seed, and its interval."""
    differences = np.asarray(a, float) - np.asarray(b, float)
    differences = differences[np.isfinite(differences)]
    if not differences.size:
        return None
    low, high = _bootstrap(differences, np.mean)
    return Difference(float(differences.mean()), low, high, int(differences.size))


def smooth(
    x: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"], decay: float
) -> Float[np.ndarray, " N"]:
    """Returns the exponential moving average over x, started without bias.

    s_t = Σ_k w_k v_k / Σ_k w_k over the values so far, w_k = decay^(x_t - x_k): by
    epochs or steps, not by records, so that thinned records are smoothed alike. decay 0
    returns the values.

    Args:
        x: increasing.
    """
    smoothed, total, weight = np.empty(len(values)), 0.0, 0.0
    fading = decay ** np.diff(x, prepend=x[:1])
    for index, (fade, value) in enumerate(zip(fading, values, strict=True)):
        total, weight = fade * total + value, fade * weight + 1.0
        smoothed[index] = total / weight
    return smoothed


def _bootstrap(
    sample: Float[np.ndarray, " N"], statistic: Callable[..., np.ndarray]
) -> tuple[float, float]:
    random = np.random.default_rng(BOOTSTRAP_SEED)
    chosen = random.integers(0, sample.size, (NUM_RESAMPLES, sample.size))
    low, high = np.percentile(statistic(sample[chosen], axis=1), (2.5, 97.5))
    return float(low), float(high)


def _row_correlations(
    x: Float[np.ndarray, "R N"], y: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.where(scale > 0, (x * y).sum(axis=1) / scale, np.nan)
