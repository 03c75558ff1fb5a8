"""High or low regularisation in the first epochs only: bars and histograms."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.phases import varied_settings
from fisher_jax.report.rules import (
    ends_flatter,
    ends_more_accurate,
    phase_one_ends_flatter,
)
from fisher_jax.report.statistics import summarise
from fisher_jax.report.values import last_of

CAPTION = (
    "Phase one trains with a high or low regularising {word}, phase two continues "
    "every run under the low one until it converges. Left: Tr(F) at the end of phase "
    "one, bars with one standard deviation over seeds, dots single runs. Middle and "
    "right: histograms over the continued runs of Tr(H) at the best test accuracy and "
    "of that accuracy. Hollow: the paper's values, by eye."
)
ALT = (
    "Bars of Tr(F) after phase one and histograms of final Tr(H) and best test "
    "accuracy, blue after high and red after low early regularisation."
)
COLOURS = {"high": "#0057B8", "low": "#C8102E"}


class TwoPhase(NamedTuple):
    """The paper's values, by eye; (lowest, highest) of a histogram."""

    early_trace: float
    final_hessian_trace: tuple[float, float]
    accuracy: float


def two_phase_item(
    name: str,
    place: str,
    *,
    varied: str,
    high: str,
    dataset: str,
    published: Mapping[str, TwoPhase],
) -> Item:
    """Returns the item of runs whose first phases differ in ``varied``.

    Args:
        high: the regularising first phase, as its claims name it.
        published: by "high" and "low", of the paper's runs on ``dataset``.
    """
    word = varied.replace("_", " ")
    claims = (
        ("phase one with a smaller Tr(F)", phase_one_ends_flatter),
        ("in flatter minima (smaller Tr(H))", ends_flatter),
        ("in better accuracy", ends_more_accurate),
    )
    return Item(
        name=name,
        title=f"Final Tr(H) and accuracy by the first epochs' {word}",
        place=place,
        experiments=("fig06",),
        published=published,
        figure=FigurePart(
            partial(
                draw_two_phase, varied=varied, dataset=dataset, published=published
            ),
            CAPTION.format(word=word),
            ALT,
            shows_fisher_trace=True,
        ),
        claims=tuple(
            Claim(f"{high} ends {what}.", partial(rule, varied=varied))
            for what, rule in claims
        ),
    )


def draw_two_phase(
    rows: pd.DataFrame,
    runs: Runs,
    *,
    varied: str,
    published: Mapping[str, TwoPhase],
    dataset: str,
) -> Drawing | str:
    """Draws three panels for each setting whose first phases differ in ``varied``.

    Args:
        published: by "high" and "low", of the paper's runs on ``dataset``.
    """
    settings = varied_settings(rows, runs.rows, varied)
    if not settings:
        return f"no runs with two values of the {varied.replace('_', ' ')}"
    figure, all_axes = canvas.new_figure(len(settings), 3, height=2.0)
    for setting, (bars, hessian, accuracy) in zip(settings, all_axes, strict=True):
        is_papers = setting.dataset == dataset and not setting.form
        paper = published if is_papers else {}
        second = setting.rows[setting.rows["phase"] == 2]
        _draw_bars(bars, setting.rows, runs, paper)
        _draw_histogram(hessian, second, "hessian_trace_at_best_test", 1.0)
        _draw_histogram(accuracy, second, "best_test_accuracy", 100.0)
        hessian.set_xlabel("Tr(H) at the best epoch")
        accuracy.set_xlabel("best test accuracy, %")
        hessian.set_title(canvas.plain(setting.title))
        for start, value in paper.items():
            _mark_published(hessian, value.final_hessian_trace, COLOURS[start])
            _mark_published(accuracy, (value.accuracy,), COLOURS[start])
    canvas.legend_below(figure, *all_axes.flat)
    return canvas.drawing_of(figure, settings)


def _mark_published(axes: Axes, values: tuple[float, ...], colour: str) -> None:
    top = [axes.get_ylim()[1]] * len(values)
    hollow: dict[str, Any] = {
        "mfc": "none",
        "mec": colour,
        "marker": "D",
        "clip_on": False,
    }
    axes.plot(values, top, color=colour, lw=0.7, **hollow)


def _draw_bars(
    axes: Axes, rows: pd.DataFrame, runs: Runs, paper: Mapping[str, TwoPhase]
) -> None:
    first = rows[rows["phase"] == 1]
    traces = last_of(first, runs, "trace/fisher")
    labels = []
    for index, start in enumerate(("high", "low")):
        values = list(traces[first["start"] == start].dropna())
        summary = summarise(values)
        labels.append(f"{start} (n = {summary.n if summary else 0})")
        if summary is not None:
            axes.bar(index, summary.mean, 0.6, color=COLOURS[start], alpha=0.75)
            if summary.n > 1:
                axes.errorbar(
                    index, summary.mean, yerr=summary.std, color="black", lw=0.8
                )
                jitter = np.linspace(-0.12, 0.12, len(values))
                axes.plot(index + jitter, values, "o", ms=2, color="black", alpha=0.6)
        if start in paper:
            axes.plot(
                index + 0.22, paper[start].early_trace, "o", mfc="none", mec="black"
            )
    if not axes.has_data():
        canvas.mark_empty(axes, "no first phase")
        return
    axes.set_xticks((0, 1), labels)
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylabel("Tr(F) after phase one")
    axes.set_xlabel("regularisation in phase one")
    axes.grid(visible=False, axis="x")


def _draw_histogram(
    axes: Axes, rows: pd.DataFrame, quantity: str, factor: float
) -> None:
    values = {
        start: factor * rows[rows["start"] == start][quantity].astype(float).dropna()
        for start in ("high", "low")
    }
    everything = np.concatenate([v.to_numpy() for v in values.values()])
    axes.set_ylabel("runs")
    if not everything.size:
        canvas.mark_empty(axes, "no continued run\nhas ended with it")
        return
    bins = np.histogram_bin_edges(everything, bins=min(12, max(5, everything.size)))
    for start, sample in values.items():
        if len(sample):
            axes.hist(
                sample,
                bins=list(bins),
                color=COLOURS[start],
                alpha=0.6,
                edgecolor="white",
                linewidth=0.4,
                label=f"{start} regularisation in phase one (n = {len(sample)})",
            )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
