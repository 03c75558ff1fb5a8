"""Early Tr(F) against accuracy: figures 2, 7, 8 and 9."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import published
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.statistics import correlate, summarise


class _Figure(NamedTuple):
    """What one of the four shows."""

    key: str
    experiments: tuple[str, ...]
    varied: str
    letter: str
    quantity: str
    word: str
    title: str


_RATES = ("fig02", "fig08")
_BATCHES = ("fig07", "fig09")
_DATASETS = ("imagenet2012", "cifar10", "cifar100")  # the paper's order of panels


def figure_2(runs: Runs) -> Drawing | str:
    """Early Tr(F) against best test accuracy, by learning rate."""
    return _early(
        runs,
        _Figure(
            "figure2",
            _RATES,
            "learning_rate",
            "η",
            "best_test_accuracy",
            "best test accuracy, %",
            "A small early Tr(F) goes with good generalisation, across learning rates",
        ),
    )


def figure_8(runs: Runs) -> Drawing | str:
    """Early Tr(F) against best training accuracy, by learning rate."""
    return _early(
        runs,
        _Figure(
            "figure8",
            _RATES,
            "learning_rate",
            "η",
            "best_train_accuracy",
            "best training accuracy, %",
            "Early Tr(F) against training accuracy, across learning rates",
        ),
    )


def figure_7(runs: Runs) -> Drawing | str:
    """Early Tr(F) against best test accuracy, by batch size."""
    return _early(
        runs,
        _Figure(
            "figure7",
            _BATCHES,
            "batch_size",
            "S",
            "best_test_accuracy",
            "best test accuracy, %",
            "A small early Tr(F) goes with good generalisation, across batch sizes",
        ),
    )


def figure_9(runs: Runs) -> Drawing | str:
    """Early Tr(F) against best training accuracy, by batch size."""
    return _early(
        runs,
        _Figure(
            "figure9",
            _BATCHES,
            "batch_size",
            "S",
            "best_train_accuracy",
            "best training accuracy, %",
            "Early Tr(F) against training accuracy, across batch sizes",
        ),
    )


def _early(runs: Runs, what: _Figure) -> Drawing | str:
    rows = canvas.run_rows(runs, what.experiments)
    if not len(rows):
        return f"no runs of {' or '.join(what.experiments)}"
    panels = sorted(canvas.panels_of(rows), key=_paper_order)
    figure, all_axes = canvas.new_panels(len(panels), height=2.3)
    notes = list(canvas.notes_of(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        notes += _draw_panel(axes, panel, what)
    losses = sorted(set(rows["early_loss"].dropna()))
    epsilon = ", ".join(f"{loss:g}" for loss in losses)
    return Drawing(
        what.key,
        what.title,
        figure,
        "Tr(F) at the first epoch whose training loss is below ε "
        f"(ε = {epsilon}) against accuracy. Large markers: means with one standard "
        "deviation over seeds; small: single runs. Correlations are over single runs, "
        "with a 95% bootstrap interval."
        + (
            " Hollow: the paper's points, read by eye." if what.key == "figure2" else ""
        ),
        f"Scatter of early Tr(F) against {what.word.rstrip(', %')}, a colour for each "
        f"{what.varied.replace('_', ' ')}; falling from left to right if the paper's "
        "claim holds.",
        what.experiments,
        len(rows),
        tuple(dict.fromkeys(notes)),
    )


def _paper_order(panel: Panel) -> tuple[bool, int]:
    known = panel.dataset in _DATASETS
    place = _DATASETS.index(panel.dataset) if known else len(_DATASETS)
    return panel.is_small, place


def early_pairs(runs: pd.DataFrame, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns early Tr(F) and a quantity in %, of the runs that have both."""
    both = runs[["early_fisher_trace", quantity]].astype(float).dropna()
    return both["early_fisher_trace"].to_numpy(), 100 * both[quantity].to_numpy()


def _draw_panel(axes: Axes, panel: Panel, what: _Figure) -> list[str]:
    values = list(panel.runs[what.varied].dropna())
    markers = iter(canvas.MARKERS * 3)
    for value, colour in canvas.ordered_colours(values).items():
        group = panel.runs[panel.runs[what.varied] == value]
        x, y = early_pairs(group, what.quantity)
        marker, across, up = next(markers), summarise(list(x)), summarise(list(y))
        if across is None or up is None:
            continue
        label = f"{what.letter} = {value:g} (n = {across.n})"
        axes.plot([], [], marker=marker, ls="none", color=colour, label=label)
        axes.plot(x, y, marker=marker, ls="none", color=colour, ms=2.2, alpha=0.5)
        spread = {"xerr": np.nan_to_num(across.std), "yerr": np.nan_to_num(up.std)}
        axes.errorbar(across.mean, up.mean, **spread, fmt=marker, color=colour, lw=0.9)
    points = published.FIGURE_2.get(panel.dataset, ())
    if points and what.key == "figure2" and not panel.is_small:
        axes.plot(
            [point.trace for point in points],
            [point.accuracy for point in points],
            label="paper, by eye",
            **canvas.HOLLOW,
        )
    x, y = early_pairs(panel.runs, what.quantity)
    axes.margins(0.12)
    low, high = axes.dataLim.intervalx
    if x.size and high > 8 * low > 0:
        axes.set_xscale("log")
    text = canvas.correlation_text(correlate(x, y))
    axes.set_title(f"{panel.title}\n{text}", fontsize=7)
    axes.set_xlabel("early Tr(F)")
    axes.set_ylabel(what.word)
    canvas.mark_empty(axes, "no run has reached ε\nand ended")
    if x.size:
        axes.legend(loc="best", fontsize=6)
    missing = int(panel.runs["early_fisher_trace"].isna().sum())
    if not missing:
        return []
    return [f"{panel.title}: {missing} of {len(panel.runs)} runs have not reached ε"]
