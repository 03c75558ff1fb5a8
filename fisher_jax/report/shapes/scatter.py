"""One trace against another along training, a point for each record."""

import numpy as np
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.statistics import correlate


def finish_scatter(
    axes: Axes, points: tuple[np.ndarray, np.ndarray], labels: tuple[str, str]
) -> None:
    """Makes both axes logarithmic and puts the correlations above the panel."""
    x, y = points
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if x.size:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(canvas.correlation_text(correlate(np.log(x), np.log(y))))
    canvas.mark_empty(axes, "not recorded together")
