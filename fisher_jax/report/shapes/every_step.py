"""Tr(F) and minibatch accuracy at every step, a curve for each value of a key."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, final_stage, settings_of
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import HOLDS, Decision, ratio_below
from fisher_jax.report.rules import by_seed, extremes, highest_of, withheld

TRACE = "trace/fisher"
DECAY = 0.95  # over about twenty steps
CAPTION = (
    "Tr(F) on 128 examples and the accuracy on the minibatch of the step. Faint: as "
    "measured, of one run; strong: the mean over seeds, with a band of one standard "
    f"deviation, after an exponential moving average with decay {DECAY:g} per step."
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
            _draw_steps(left, group, runs, TRACE, 1.0, line)
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


def peak_is_higher(
    setting: Setting, runs: Runs, *, varied: str, higher: str
) -> Decision | None:
    """Decides whether Tr(F) of single steps peaks higher at one end of ``varied``.

    All steps count, those of the first epoch too. Undecided where a run is too short to
    hold the peak that could change the answer.

    Args:
        higher: the end claimed to peak higher: "smallest" or "largest".
    """
    both = extremes(setting, varied, higher)
    if both is None:
        return None
    peaks = [by_seed(rows, highest_of(rows, runs, TRACE)) for _, rows in both]
    names = f"peak with {both[1][0]}", f"that with {both[0][0]}"
    decision = ratio_below(peaks[1], peaks[0], 1.0, names=names)
    name, rows = both[1] if decision.status == HOLDS else both[0]
    is_short = still_rises(rows, runs, TRACE)
    why = "too short a run: its Tr(F) still rises at the end" if is_short else ""
    return withheld(decision, why, name)


def still_rises(rows: pd.DataFrame, runs: Runs, name: str) -> bool:
    """Returns whether a metric is highest in the last tenth of most of the runs.

    Medians are compared, as single records are noisy.
    """
    rising = []
    for index in rows.index:
        metrics = runs.metrics[index]
        values = metrics[name].dropna().to_numpy() if name in metrics else np.empty(0)
        if values.size:
            parts = np.array_split(values, min(10, values.size))
            medians = [np.median(part) for part in parts]
            rising.append(medians[-1] >= max(medians))
    return bool(rising) and float(np.mean(rising)) > 0.5
