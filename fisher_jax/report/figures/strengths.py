"""How strong and how often: figures 16, 17 and 20."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import published
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.figures.coefficients import (
    REFERENCES,
    SPREAD,
    draw_coefficients,
    finish_panel,
    penalised,
)
from fisher_jax.report.figures.curves import accuracy_name
from fisher_jax.report.names import method_label
from fisher_jax.report.published import PenaltyResult
from fisher_jax.report.tables import ROOT_REASON

_LINES = ("--", ":", "-.", (0, (5, 1)))


def figure_16(runs: Runs) -> Drawing | str:
    """FP recomputed every 10 steps and every step, by coefficient."""
    return _penalty_strength(
        runs,
        "figure16",
        "fig16",
        "How often the penalty is recomputed hardly matters",
        "Fisher Penalty recomputed every f steps",
        {},
    )


def figure_17(runs: Runs) -> Drawing | str:
    """The single-example penalty of equation 6, by coefficient."""
    return _penalty_strength(
        runs,
        "figure17",
        "fig17",
        "The penalty of a single example (equation 6)",
        "The penalty is the squared gradient norm of one example, at every step",
        published.FIGURE_17,
    )


def figure_20(runs: Runs) -> Drawing | str:
    """FP on the first 128 examples of a batch of 1280, by coefficient."""
    return _penalty_strength(
        runs,
        "figure20",
        "fig20",
        "With a large batch the penalty makes up for the lost noise",
        "Batch ten times as large, half the learning rate, FP at every step on the "
        "first 128 examples",
        {k: v for k, v in published.FIGURE_20.items() if k != "eta_star"},
    )


def _penalty_strength(
    runs: Runs,
    key: str,
    experiment: str,
    title: str,
    caption: str,
    paper: Mapping[str, PenaltyResult],
) -> Drawing | str:
    # The search's runs too: they are the curves.
    rows = runs.table[runs.table["experiment"] == experiment]
    if not len(rows):
        return f"no runs of {experiment}"
    parts = [part for panel in canvas.panels_of(rows) for part in _by_period(panel)]
    figure, all_axes = canvas.new_figure(len(parts), 2, height=2.1)
    colours = canvas.coefficient_colours(figure, all_axes, penalised(rows))
    for panel, (left, right) in zip(parts, all_axes, strict=True):
        accuracy = accuracy_name(panel.runs, runs)
        is_reference = panel.runs["method"].isin(REFERENCES)
        for axes, name, label, factor in (
            (left, accuracy, f"{accuracy.split('/')[0]} accuracy, %", 100.0),
            (right, "trace/fisher", "Tr(F)", 1.0),
        ):
            kept = panel.runs[~is_reference]
            draw_coefficients(axes, kept, runs, name, colours, factor)
            _draw_references(axes, panel.runs[is_reference], runs, name, factor)
            finish_panel(axes, label)
            axes.set_title(panel.title)
        canvas.start_at_zero(right)
        if not panel.is_small:
            _published_marks(left, right, paper)
        if left.get_legend_handles_labels()[1]:
            left.legend(loc="lower right", fontsize=6)
        canvas.add_root_axis(right)
    hollow = " Hollow: published test accuracy, and peak Tr(F) read as a square root."
    return Drawing(
        key,
        title,
        figure,
        f"{caption}. {SPREAD} Grey: no penalty. Not smoothed."
        f"{hollow if paper else ''} {ROOT_REASON}",
        "Accuracy on the left and Tr(F) on the right against epoch, a line for each "
        "coefficient from blue to red.",
        (experiment,),
        len(rows),
        canvas.notes_of(parts),
    )


def _by_period(panel: Panel) -> list[Panel]:
    """One panel for each f, the runs without a penalty in all of them."""
    is_reference = panel.runs["method"].isin(REFERENCES)
    periods = sorted(set(panel.runs.loc[~is_reference, "update_every"].dropna()))
    return [
        panel._replace(
            runs=panel.runs[is_reference | (panel.runs["update_every"] == every)],
            title=f"{panel.title}, f = {every:g}",
        )
        for every in periods or [1.0]
    ]


def _draw_references(
    axes: Axes, rows: pd.DataFrame, runs: Runs, name: str, factor: float
) -> None:
    """A grey line for each batch size and learning rate without a penalty."""
    kinds = rows.groupby(["batch_size", "learning_rate"], sort=True)
    for place, ((size, rate), group) in enumerate(kinds):
        curve = canvas.mean_curve(group, runs.metrics, name, factor=factor)
        label = "no penalty"
        if len(kinds) > 1:
            label += f", S = {size:g}, η = {rate:.3g}"
        line = {"color": "#555555", "linestyle": _LINES[place % len(_LINES)]}
        canvas.draw_curve(axes, curve, label=label, **line)


def _published_marks(
    left: Axes, right: Axes, paper: Mapping[str, PenaltyResult]
) -> None:
    """Published results as hollow markers at the right edge, named in a legend.

    Tr(F) is set where its printed value stands on the axis of the square root.
    """
    for place, (name, value) in enumerate(paper.items()):
        hollow = {**canvas.HOLLOW, "marker": canvas.MARKERS[place], "clip_on": False}
        label = f"paper, {method_label(name).replace('_', ' ')}"
        x = 1 - 0.05 * place
        across = left.get_yaxis_transform()
        left.plot([x], [value.accuracy], transform=across, label=label, **hollow)
        if value.peak_trace is not None:
            across = right.get_yaxis_transform()
            right.plot([x], [value.peak_trace**2], transform=across, **hollow)
