"""Figure 15: Tr(F) and Tr(F_B) along training, and one against the other."""

from functools import partial

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import (
    Setting,
    pairs_along_training,
    settings_of,
)
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.permutation import across_values
from fisher_jax.report.rules import follows
from fisher_jax.report.shapes.scatter import CAPTION, finish_scatter
from fisher_jax.report.values import highest_of

METRICS = ("trace/fisher", "trace/fisher_minibatch")
LABELS = ("Tr(F)", "Tr(F$_B$)")


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, final=True)
    figure, all_axes = canvas.new_figure(len(settings), 3, height=2.1)
    for setting, (left, middle, right) in zip(settings, all_axes, strict=True):
        colours = canvas.ordered_colours(list(setting.rows["learning_rate"].dropna()))
        for rate, colour in colours.items():
            group = setting.rows[setting.rows["learning_rate"] == rate]
            for axes, name in zip((left, middle), METRICS, strict=True):
                axes.set_yscale("log")
                curve = canvas.mean_curve(group, runs.metrics, name)
                canvas.draw_curve(axes, curve, color=colour, label=f"η = {rate:.3g}")
            points = pairs_along_training(group, runs.metrics, *METRICS)
            right.plot(*points, ".", ms=2.5, alpha=0.6, color=colour)
        for axes, label in zip((left, middle), LABELS, strict=True):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            canvas.mark_empty(axes)
        left.set_title(canvas.plain(setting.title))
        right.set_xlabel(LABELS[0])
        right.set_ylabel(LABELS[1])
        finish_scatter(right, setting.rows, runs, METRICS)
    canvas.legend_below(figure, *all_axes.flat)
    return canvas.drawing_of(figure, settings)


def _falls_with_rate(setting: Setting, runs: Runs, *, metric: str) -> Decision | None:
    rows = setting.final
    rates = rows["learning_rate"].astype(float).tolist()
    peaks = highest_of(rows, runs, metric, after_epoch=1)
    return across_values(rates, peaks.tolist(), rates, rows["seed"].tolist(), -1)


ITEM = Item(
    name="Figure 15",
    title="Tr(F) and its minibatch form Tr(F_B) along training",
    place="appendix C",
    experiments=("fig15",),
    figure=FigurePart(
        _draw,
        "Tr(F) is the mean squared gradient norm of single examples, Tr(F_B) the "
        "squared norm of the mean gradient of one batch of B examples; with sampled "
        "labels the expectation of the second is the first divided by B. Blue to red: "
        "small to large learning rates; means over seeds, bands one standard "
        f"deviation. Right: a point for each record. {CAPTION}",
        "Tr(F) and Tr(F_B) against epoch for several learning rates, and a scatter of "
        "one against the other.",
        shows_fisher_trace=True,
    ),
    claims=(
        Claim(
            "Tr(F_B) of one batch follows Tr(F) along training.",
            partial(follows, x=METRICS[0], y=METRICS[1]),
        ),
        *(
            Claim(f"Large learning rates lower the peak of {name}.", rule)
            for name, rule in (
                ("Tr(F)", partial(_falls_with_rate, metric=METRICS[0])),
                ("Tr(F_B)", partial(_falls_with_rate, metric=METRICS[1])),
            )
        ),
    ),
)
