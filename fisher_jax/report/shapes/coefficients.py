"""A curve for each coefficient, from blue to red."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import (
    REFERENCES,
    Setting,
    accuracy_metric,
    settings_of,
)
from fisher_jax.report.collect import Runs

SPREAD = (
    "Colour runs from blue (small α) to red (large α); lines are means over seeds, "
    "bands one standard deviation."
)
STRENGTH_ALT = (
    "Accuracy on the left and Tr(F) on the right against epoch, a line for each "
    "coefficient from blue to red."
)
STRENGTH_CAPTION = f"{SPREAD} Grey: no penalty, where it was run. Not smoothed."
HOLLOW_CAPTION = (
    "Hollow, for the paper's networks: published test accuracy, and peak Tr(F) read as "
    "a square root."
)
_LINES = ("--", ":", "-.", (0, (5, 1)))


class PenaltyResult(NamedTuple):
    """Published test accuracy in %, and maximum Tr(F) where the paper gives it."""

    accuracy: float
    peak_trace: float | None = None


def draw_strengths(
    rows: pd.DataFrame,
    runs: Runs,
    *,
    published: Mapping[str, PenaltyResult] | None = None,
) -> Drawing:
    """Draws accuracy and Tr(F) against epoch, a row for each setting and period f.

    Runs of the search stage are drawn, too: they are the curves.

    Args:
        published: the paper's results by what the legend calls them.
    """
    parts = [part for setting in settings_of(rows) for part in _by_period(setting)]
    figure, all_axes = canvas.new_figure(len(parts), 2, height=2.1)
    colours = canvas.coefficient_colours(figure, all_axes, penalised(rows))
    for part, (left, right) in zip(parts, all_axes, strict=True):
        accuracy = accuracy_metric(part.rows, runs.metrics)
        is_reference = part.rows["method"].isin(REFERENCES)
        for axes, name, label, factor in (
            (left, accuracy, f"{accuracy.split('/')[0]} accuracy, %", 100.0),
            (right, "trace/fisher", "Tr(F)", 1.0),
        ):
            penalised_runs = part.rows[~is_reference]
            draw_coefficients(axes, penalised_runs, runs, name, colours, factor)
            _draw_references(axes, part.rows[is_reference], runs, name, factor)
            canvas.label_axes(axes, part.title, "epoch", label)
            canvas.mark_empty(axes)
        canvas.start_at_zero(right)
        if published and not part.form:
            _mark_published(left, right, published)
        canvas.add_root_axis(right)
    canvas.legend_below(figure, *all_axes[:, 0])
    return Drawing(figure, len(rows), canvas.notes_of(parts))


def penalised(rows: pd.DataFrame) -> list[float]:
    """Returns the coefficients of the penalised runs."""
    kept = rows.loc[~rows["method"].isin(REFERENCES), "coefficient"].dropna()
    return [float(value) for value in kept]


def coefficient_groups(
    rows: pd.DataFrame, colours: Mapping[float, tuple[float, ...]]
) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """Returns the runs of each α, those without a penalty first, and their line."""
    is_reference = rows["method"].isin(REFERENCES)
    found: list[tuple[pd.DataFrame, dict[str, Any]]] = []
    # With one coefficient there is no bar of colours that says which line is which.
    is_named = len(colours) < 2
    if is_reference.any():
        label = {"label": "no penalty"} if is_named else {}
        found.append((rows[is_reference], canvas.method_line("baseline") | label))
    present = set(penalised(rows))
    for coefficient, colour in colours.items():
        if coefficient in present:
            label = {"label": f"α = {coefficient:g}"} if is_named else {}
            group = rows[~is_reference & (rows["coefficient"] == coefficient)]
            found.append((group, {"color": colour} | label))
    return found


def draw_coefficients(
    axes: Axes,
    rows: pd.DataFrame,
    runs: Runs,
    name: str,
    colours: Mapping[float, tuple[float, ...]],
    factor: float,
    **line: Any,
) -> None:
    """Draws a metric's mean curve for each coefficient, and without a penalty."""
    for group, own in coefficient_groups(rows, colours):
        curve = canvas.mean_curve(group, runs.metrics, name, factor=factor)
        canvas.draw_curve(axes, curve, **(own | line))


def _by_period(setting: Setting) -> list[Setting]:
    """One part for each f, the largest first; runs without a penalty in all."""
    is_reference = setting.rows["method"].isin(REFERENCES)
    periods = set(setting.rows.loc[~is_reference, "update_every"].dropna())
    return [
        setting._replace(
            rows=setting.rows[is_reference | (setting.rows["update_every"] == every)],
            title=f"{setting.title}, f = {every:g}",
        )
        for every in sorted(periods, reverse=True) or [1.0]
    ]


def _draw_references(
    axes: Axes, rows: pd.DataFrame, runs: Runs, name: str, factor: float
) -> None:
    """A grey line for each batch size and learning rate without a penalty."""
    kinds = rows.groupby(["batch_size", "learning_rate"], sort=True)
    for index, ((size, rate), group) in enumerate(kinds):
        curve = canvas.mean_curve(group, runs.metrics, name, factor=factor)
        label = "no penalty"
        if len(kinds) > 1:
            label += f", S = {size:g}, η = {rate:.3g}"
        line = {"color": "#555555", "linestyle": _LINES[index % len(_LINES)]}
        canvas.draw_curve(axes, curve, label=label, **line)


def _mark_published(
    left: Axes, right: Axes, published: Mapping[str, PenaltyResult]
) -> None:
    """Published results as hollow markers at the right edge, named in a legend.

    Tr(F) is set where its printed value stands on the axis of the square root.
    """
    for index, (name, value) in enumerate(published.items()):
        hollow = {**canvas.HOLLOW, "marker": canvas.MARKERS[index], "clip_on": False}
        x = 1 - 0.05 * index
        across = left.get_yaxis_transform()
        label = f"paper, {name}"
        left.plot([x], [value.accuracy], transform=across, label=label, **hollow)
        if value.peak_trace is not None:
            across = right.get_yaxis_transform()
            right.plot([x], [value.peak_trace**2], transform=across, **hollow)
