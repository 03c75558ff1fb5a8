"""Tr(F) and minibatch accuracy at every step, a curve for each value of a key."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import final_stage, settings_of
from fisher_jax.report.collect import Runs

DECAY = 0.95  # over about twenty steps
CAPTION = (
    "Tr(F) on 128 examples and the accuracy on the minibatch of the step. Faint: as "
    "measured, of one run; strong: the mean over seeds after an exponential moving "
    f"average with decay {DECAY:g} per step."
)


def draw_every_step(
    rows: pd.DataFrame, runs: Runs, *, varied: str, letter: str
) -> Drawing:
    """Draws Tr(F) on the left and accuracy on the right, a row for each setting.

    Args:
        varied: the column with a colour for each value, ``letter`` in the legend.
    """
    rows = final_stage(rows)
    settings = settings_of(rows)
    figure, all_axes = canvas.new_figure(len(settings), 2, height=2.0)
    for setting, (left, right) in zip(settings, all_axes, strict=True):
        colours = canvas.ordered_colours(list(setting.runs[varied].dropna()))
        for value, group in setting.runs.groupby(varied, sort=True):
            line = {"color": colours[value], "label": f"{letter} = {value:g}"}
            _draw_steps(left, group, runs, "trace/fisher", 1.0, line)
            _draw_steps(right, group, runs, "minibatch/accuracy", 100.0, line)
        canvas.label_axes(left, setting.title, "step", "Tr(F)")
        accuracy = "minibatch training accuracy, %"
        canvas.label_axes(right, setting.title, "step", accuracy)
        for axes in (left, right):
            canvas.mark_empty(axes)
        canvas.start_at_zero(left)
        right.legend(loc="lower right")
    return Drawing(figure, len(rows), canvas.notes_of(settings))


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
