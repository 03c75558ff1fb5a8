"""What figures and tables show of runs: means, spread, correlations, smoothing."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import special


class Summary(NamedTuple):
    """Mean, sample standard deviation (n - 1; nan for one value) and count."""

    mean: float
    std: float
    n: int


class Correlation(NamedTuple):
    """Pearson's r and Spearman's rho over n points."""

    pearson: float
    spearman: float
    n: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Returns mean ± std and n of the finite values; None where there is none."""
    finite = np.array([v for v in values if v is not None and math.isfinite(v)])
    if not finite.size:
        return None
    std = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    return Summary(float(finite.mean()), std, int(finite.size))


def half_width(summary: Summary) -> float:
    """Returns half the 95% Student-t interval of the mean; nan for one value."""
    if summary.n < 2:
        return math.nan
    quantile = float(special.stdtrit(summary.n - 1, 0.975))
    return quantile * summary.std / math.sqrt(summary.n)


def correlate(
    x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]
) -> Correlation | None:
    """Correlates two samples; None below three points or where one is constant."""
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x)[keep], np.asarray(y)[keep]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    first, second = pd.Series(x), pd.Series(y)
    return Correlation(
        pearson=float(first.corr(second)),
        spearman=float(first.corr(second, method="spearman")),
        n=int(x.size),
    )


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
    if decay == 0:
        return values
    smoothed, total, weight = np.empty(len(values)), 0.0, 0.0
    fading = decay ** np.diff(x, prepend=x[:1])
    for index, (fade, value) in enumerate(zip(fading, values, strict=True)):
        total, weight = fade * total + value, fade * weight + 1.0
        smoothed[index] = total / weight
    return smoothed
