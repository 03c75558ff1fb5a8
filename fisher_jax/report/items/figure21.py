"""Figure 21: Tr(H) against Tr(F) along training, a panel for each network."""

from functools import partial

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import final_stage, pairs_along_training, settings_of
from fisher_jax.report.claims import Claim, correlated_along_training
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.scatter import finish_scatter

METRICS = ("trace/fisher", "trace/hessian")


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    rows = final_stage(rows)
    settings = settings_of(rows)
    figure, all_axes = canvas.new_panels(len(settings), height=2.3)
    for axes, setting in zip(all_axes, settings, strict=True):
        x, y = pairs_along_training(setting.runs, runs.metrics, *METRICS)
        axes.plot(x, y, ".", ms=3, alpha=0.6, color=canvas.BLUE_TO_RED(0.0))
        if x.size:
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axes.plot(ends, ends, color="#BBBBBB", lw=0.8, zorder=0, label="equal")
            axes.legend(loc="upper left")
        finish_scatter(axes, (x, y), ("Tr(F)", "Tr(H)"))
        axes.set_title(f"{canvas.plain(setting.title)}\n{axes.get_title()}")
    return Drawing(figure, len(rows), canvas.notes_of(settings))


ITEM = Item(
    name="Figure 21",
    title="Tr(H) against Tr(F) along training",
    place="appendix F",
    experiments=("fig21",),
    figure=FigurePart(
        _draw,
        "A point for each record of each run. For networks that are piecewise linear "
        "in each layer's weights the two are equal on the same examples, whatever the "
        "labels; what is left is the error of the estimates. Correlations are of the "
        "logarithms (Pearson) and ranks (Spearman, 95% bootstrap interval).",
        "Scatter of Tr(H) against Tr(F) on logarithmic axes around the grey line of "
        "equality, a panel for each network.",
    ),
    claims=(
        Claim(
            "Tr(H) follows Tr(F).",
            partial(correlated_along_training, x=METRICS[0], y=METRICS[1], sign=1),
        ),
    ),
)
