"""Early Tr(F) against accuracy, a point for each value of a hyperparameter."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, pairs, settings_of
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.names import position
from fisher_jax.report.rules import early_goes_with_better, most_fit
from fisher_jax.report.statistics import correlate, summarise
from fisher_jax.report.values import LETTERS

CAPTION = (
    "Tr(F) at the first epoch whose training loss is below ε against accuracy. Large "
    "markers: means with one standard deviation over seeds; small: single runs, "
    "over which Pearson's r and Spearman's ρ are taken."
)
_DATASETS = ("imagenet2012", "cifar10", "cifar100")  # the paper's order of panels


class Point(NamedTuple):
    """A point of a plot, read by eye: early Tr(F) and accuracy in %."""

    trace: float
    accuracy: float


def early_item(
    name: str,
    place: str,
    experiment: str,
    *,
    varied: str,
    split: str,
    published: Mapping[str, Sequence[Point]] | None = None,
) -> Item:
    """Returns the item of early Tr(F) against the best accuracy of a split.

    Args:
        varied: "learning_rate" or "batch_size".
        split: "test", whose claim is a correlation, or "training".
        published: the paper's points by data set, by eye.
    """
    word = varied.replace("_", " ")
    is_test = split == "test"
    quantity = "best_test_accuracy" if is_test else "best_train_accuracy"
    draw = partial(
        draw_early,
        varied=varied,
        quantity=quantity,
        label=f"best {split} accuracy, %",
        published=published,
    )
    by_eye = " Hollow: the paper's points, read by eye." if published else ""
    alt = (
        f"Scatter of early Tr(F) against best {split} accuracy, a colour for each "
        f"{word}."
    )
    text = "Most runs reach a training accuracy of about 99%."
    rule = partial(most_fit, quantity=quantity)
    if is_test:
        text = f"Across {word}s, a smaller early Tr(F) goes with better accuracy."
        rule = partial(early_goes_with_better, varied=varied)
    return Item(
        name=name,
        title=f"Early Tr(F) against {split} accuracy, by {word}",
        place=place,
        experiments=(experiment,),
        published=published,
        figure=FigurePart(draw, CAPTION + by_eye, alt, shows_fisher_trace=True),
        claims=(Claim(text, rule),),
    )


def draw_early(
    rows: pd.DataFrame,
    runs: Runs,
    *,
    varied: str,
    quantity: str,
    label: str,
    published: Mapping[str, Sequence[Point]] | None = None,
) -> Drawing:
    """Draws a panel for each setting.

    Args:
        varied: the column whose values the points stand for.
        quantity: the column across, from 0 to 1, drawn in %, ``label`` on the axis.
        published: the paper's points by data set.
    """
    settings = sorted(settings_of(rows, final=True), key=_order_of_panels)
    figure, all_axes = canvas.new_panels(len(settings), height=2.3)
    losses = {loss for s in settings for loss in s.rows["early_loss"].dropna()}
    notes = [f"ε = {', '.join(f'{loss:g}' for loss in sorted(losses))}"]
    notes += canvas.notes_of(settings)
    for axes, setting in zip(all_axes, settings, strict=True):
        _draw_points(axes, setting, varied, quantity)
        points = (published or {}).get(setting.dataset, ())
        if points and not setting.form:
            axes.plot(
                [point.trace for point in points],
                [point.accuracy for point in points],
                label="paper, by eye",
                **canvas.HOLLOW,
            )
        _finish(axes, setting, quantity, label)
        missing = int(setting.rows["early_fisher_trace"].isna().sum())
        if missing:
            count = f"{missing} of {len(setting.rows)} runs"
            notes.append(f"{setting.title}: {count} have not reached ε")
    return canvas.drawing_of(figure, settings, notes)


def _order_of_panels(setting: Setting) -> tuple[str, int]:
    return setting.form, position(setting.dataset, _DATASETS)[0]


def _draw_points(axes: Axes, setting: Setting, varied: str, quantity: str) -> None:
    markers = iter(canvas.MARKERS * 3)
    values = list(setting.rows[varied].dropna())
    for value, colour in canvas.ordered_colours(values).items():
        group = setting.rows[setting.rows[varied] == value]
        x, y = pairs(group, "early_fisher_trace", quantity)
        marker = next(markers)
        across, up = summarise(list(x)), summarise(list(100 * y))
        if across is None or up is None:
            continue
        label = f"{LETTERS[varied]} = {value:g} (n = {across.n})"
        axes.plot([], [], marker=marker, ls="none", color=colour, label=label)
        axes.plot(x, 100 * y, marker=marker, ls="none", color=colour, ms=2.2, alpha=0.5)
        spread = {"xerr": np.nan_to_num(across.std), "yerr": np.nan_to_num(up.std)}
        axes.errorbar(across.mean, up.mean, **spread, fmt=marker, color=colour, lw=0.9)


def _finish(axes: Axes, setting: Setting, quantity: str, label: str) -> None:
    x, y = pairs(setting.rows, "early_fisher_trace", quantity)
    axes.margins(0.12)
    low, high = axes.dataLim.intervalx
    if x.size and high > 8 * low > 0:
        axes.set_xscale("log")
    text = canvas.correlation_text(correlate(x, y))
    axes.set_title(f"{canvas.plain(setting.title)}\n{text}")
    axes.set_xlabel("early Tr(F)")
    axes.set_ylabel(label)
    canvas.mark_empty(axes, "no run has reached ε\nand ended")
    if x.size:
        axes.legend(loc="best")
