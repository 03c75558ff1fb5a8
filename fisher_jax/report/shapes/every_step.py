"""Tr(F) and minibatch accuracy at every step, a curve for each value of a key."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import settings_of
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import step_peak_is_higher
from fisher_jax.report.values import LETTERS

TRACE = "trace/fisher"
DECAY = 0.95  # over about twenty steps
CAPTION = (
    "Tr(F) on 128 examples and the accuracy on the minibatch of the step. Faint: as "
    "measured, of one run; strong: the mean over seeds, with a band of one standard "
    f"deviation, after an exponential moving average with decay {DECAY:g} per step."
)


def every_step_item(
    name: str, place: str, experiment: str, *, varied: str, claim: str, higher: str
) -> Item:
    """Returns the item of single steps, a curve for each value of ``varied``.

    Args:
        claim: that Tr(F) peaks higher at the ``higher`` end, "smallest" or "largest".
    """
    word = varied.replace("_", " ")
    alt = (
        "Tr(F) on the left and minibatch accuracy on the right against the step, a "
        f"colour for each {word}."
    )
    draw = partial(draw_every_step, varied=varied)
    return Item(
        name=name,
        title=f"Tr(F) at every step, by {word}",
        place=place,
        experiments=(experiment,),
        figure=FigurePart(draw, CAPTION, alt, shows_fisher_trace=True),
        claims=(
            Claim(claim, partial(step_peak_is_higher, varied=varied, higher=higher)),
        ),
    )


def draw_every_step(rows: pd.DataFrame, runs: Runs, *, varied: str) -> Drawing:
    """Draws Tr(F) on the left and accuracy on the right, a row for each setting.

    Args:
        varied: the column with a colour for each value.
    """
    settings = settings_of(rows, final=True)
    figure, all_axes = canvas.new_figure(len(settings), 2, height=2.0)
    for setting, (left, right) in zip(settings, all_axes, strict=True):
        colours = canvas.ordered_colours(list(setting.rows[varied].dropna()))
        for value, group in setting.rows.groupby(varied, sort=True):
            line = {"color": colours[value], "label": f"{LETTERS[varied]} = {value:g}"}
            _draw_steps(left, group, runs, TRACE, 1.0, line)
            _draw_steps(right, group, runs, "minibatch/accuracy", 100.0, line)
        canvas.label_axes(left, setting.title, "step", "Tr(F)")
        accuracy = "minibatch training accuracy, %"
        canvas.label_axes(right, setting.title, "step", accuracy)
        for axes in (left, right):
            canvas.mark_empty(axes)
        canvas.start_at_zero(left)
        right.legend(loc="lower right")
    return canvas.drawing_of(figure, settings)


def _draw_steps(
    axes: Axes,
    group: pd.DataFrame,
    runs: Runs,
    name: str,
    factor: float,
    line: dict[str, Any],
) -> None:
    raw = canvas.mean_curve(group.iloc[:1], runs.metrics, name, x="step", factor=factor)
    if raw is not None:
        axes.plot(raw.x, raw.mean, color=line["color"], alpha=0.25, linewidth=0.6)
    curve = canvas.mean_curve(
        group, runs.metrics, name, x="step", factor=factor, decay=DECAY
    )
    canvas.draw_curve(axes, curve, **line)
