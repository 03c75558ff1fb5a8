"""Accuracy and Tr(F) along training, a line for each method."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import ROOT_REASON, Drawing
from fisher_jax.report.choose import (
    Setting,
    accuracy_metric,
    settings_of,
)
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.names import in_method_order, method_label

DECAY = 0.8  # over about five epochs; open in the paper
CAPTION = (
    "Baseline, FP and GP_x train with η*/10, in the medium form with η*/3. Lines are "
    "means over seeds, bands one standard deviation. Every run is smoothed by an "
    f"exponential moving average with decay {DECAY:g} per epoch (the paper does not "
    "say how it smooths)."
)
ALT = (
    "For each setting accuracy above and Tr(F) below against epoch, a line for each "
    "method."
)
# Figure 10's; figure 4 has the others (appendix A.2).
_NETWORKS_OF_FIGURE_10 = ("densenet", "simple_cnn")
_SHOWN = ("eta_star", "baseline", "fp", "gp_x", "rfp")


def by_method_item(
    name: str,
    title: str,
    place: str,
    experiments: tuple[str, ...],
    *,
    is_figure_10: bool,
) -> Item:
    """Returns figure 4, or figure 10 with the networks that it has."""
    draw = partial(draw_methods, is_figure_10=is_figure_10)
    return Item(
        name=name,
        title=title,
        place=place,
        experiments=experiments,
        figure=FigurePart(
            draw, f"{CAPTION} {ROOT_REASON}", ALT, shows_fisher_trace=True
        ),
    )


def draw_methods(
    rows: pd.DataFrame, runs: Runs, *, is_figure_10: bool
) -> Drawing | str:
    """Draws two panels, one above the other, for each setting.

    Args:
        is_figure_10: of the networks of the second of two figures, or all others.
    """
    of_figure = rows["model"].isin(_NETWORKS_OF_FIGURE_10) == is_figure_10
    rows = rows[rows["method"].isin(_SHOWN) & of_figure]
    if not len(rows):
        return "no runs with these networks"
    settings = settings_of(rows, final=True)
    columns = min(3, len(settings))
    figure, all_axes = canvas.new_figure(2 * -(-len(settings) // 3), columns)
    if len(settings) == 1:
        figure.set_figwidth(canvas.COLUMN * 1.15)
    for axes in all_axes.flat:
        axes.set_axis_off()
    notes = list(canvas.notes_of(settings))
    for index, setting in enumerate(settings):
        row, column = 2 * (index // 3), index % 3
        upper, lower = all_axes[row, column], all_axes[row + 1, column]
        notes += _draw_setting(setting, runs, upper, lower)
    canvas.legend_below(figure, *all_axes.flat)
    return canvas.drawing_of(figure, settings, notes)


def _draw_setting(setting: Setting, runs: Runs, upper: Axes, lower: Axes) -> list[str]:
    accuracy = accuracy_metric(setting.rows, runs.metrics)
    upper.set_axis_on()
    lower.set_axis_on()
    lower.set_yscale("log")
    notes: list[str] = []
    for method in in_method_order(setting.rows["method"]):
        chosen = setting.best(method)
        notes += [f"{setting.title}, {method_label(method)}: {n}" for n in chosen.notes]
        line = canvas.method_line(method) | {"label": canvas.method_text(method)}
        for axes, name, factor in (
            (upper, accuracy, 100.0),
            (lower, "trace/fisher", 1.0),
        ):
            curve = canvas.mean_curve(
                chosen.rows, runs.metrics, name, factor=factor, decay=DECAY
            )
            canvas.draw_curve(axes, curve, **line)
    word = accuracy.split("/")[0]
    canvas.label_axes(upper, setting.title, "", f"{word} accuracy, %")
    canvas.label_axes(lower, "", "epoch", "Tr(F)")
    for axes in (upper, lower):
        canvas.mark_empty(axes)
    canvas.add_root_axis(lower)
    return notes
