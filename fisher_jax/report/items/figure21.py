"""Figure 21: Tr(H) against Tr(F) along training, a panel for each network."""

from functools import partial

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import pairs_along_training, settings_of
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import follows
from fisher_jax.report.shapes.scatter import CAPTION, finish_scatter

METRICS = ("trace/fisher_minibatch", "trace/hessian")
PER_EXAMPLE = "trace/fisher"


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, final=True)
    figure, all_axes = canvas.new_panels(len(settings), height=2.5)
    for axes, setting in zip(all_axes, settings, strict=True):
        blue, red = canvas.BLUE_TO_RED(0.0), canvas.BLUE_TO_RED(1.0)
        points = pairs_along_training(setting.rows, runs.metrics, *METRICS)
        axes.plot(*points, "o", ms=2.5, color=blue, label="minibatch form, Tr(F$_B$)")
        x, y = pairs_along_training(setting.rows, runs.metrics, PER_EXAMPLE, METRICS[1])
        axes.plot(x, y, "o", ms=2.5, mfc="none", mec=red, mew=0.6, label="Tr(F)")
        if x.size:
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axes.plot(ends, ends, color="#BBBBBB", lw=0.8, zorder=0, label="equal")
        finish_scatter(axes, setting.rows, runs, METRICS)
        axes.set_title(f"{canvas.plain(setting.title)}\n{axes.get_title()}")
        axes.set_xlabel("Tr(F$_B$) or Tr(F)")
        axes.set_ylabel("Tr(H)")
    canvas.legend_below(figure, *all_axes)
    return canvas.drawing_of(figure, settings)


ITEM = Item(
    name="Figure 21",
    title="Tr(H) against Tr(F) of a minibatch along training",
    place="appendix F",
    experiments=("fig21",),
    figure=FigurePart(
        _draw,
        "Tr(H) against the squared norm of a minibatch's mean gradient, Tr(F_B), as in "
        "the paper, a point for each record of each run; hollow, ours: against the "
        "mean over single examples, Tr(F), which for networks that are piecewise "
        "linear in each layer's weights is equal to Tr(H) on the same examples. "
        f"{CAPTION} It is that of Tr(F_B).",
        "Scatter on logarithmic axes, a panel for each network: Tr(H) against Tr(F_B) "
        "and against Tr(F), with the grey line of equality.",
        shows_fisher_trace=True,
    ),
    claims=(
        Claim(
            "Tr(H) follows Tr(F) of a minibatch along training.",
            partial(follows, x=METRICS[0], y=METRICS[1]),
        ),
    ),
)
