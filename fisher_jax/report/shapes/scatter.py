"""One trace against another along training, a point for each record."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.collect import Runs
from fisher_jax.report.values import rank_correlation

CAPTION = (
    "ρ is Spearman's rank correlation over the records of a run, its mean over runs "
    "where there are several."
)


def finish_scatter(
    axes: Axes, rows: pd.DataFrame, runs: Runs, metrics: tuple[str, str]
) -> None:
    """Makes both axes logarithmic and puts the correlation along runs above."""
    if axes.has_data():
        axes.set_xscale("log")
        axes.set_yscale("log")
    found = [rank_correlation(runs.metrics[index], *metrics) for index in rows.index]
    known = [rho for rho in found if not np.isnan(rho)]
    if known:
        text = f"ρ = {np.mean(known):.2f}, n = {len(known)}"
        axes.set_title(text.replace("-", "−"))
    canvas.mark_empty(axes, "not recorded together")
