"""Beyond the paper: RFP beside its rivals, by strength and each at its best."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import (
    TEST_ACCURACY,
    accuracies,
    best_candidate,
    final_stage,
    settings_of,
    strengths,
)
from fisher_jax.report.claims import Claim, method_is_higher
from fisher_jax.report.collect import DIVERGED, Runs
from fisher_jax.report.item import FigurePart, Item, TablePart
from fisher_jax.report.names import METHODS, method_label, position
from fisher_jax.report.render import MINUS, summary_text
from fisher_jax.report.statistics import paired_difference, summarise
from fisher_jax.report.tables import Row, Table

COLLAPSE = 5.0  # percentage points below no penalty


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, by_noise=True)
    figure, all_axes = canvas.new_panels(len(settings), height=2.3)
    for axes, setting in zip(all_axes, settings, strict=True):
        for method in canvas.in_method_order(list(setting.runs["method"])):
            _draw_method(axes, setting.runs, method)
        axes.set_xscale("log")
        # Three panels stand in a row, and a line would reach into the next one.
        axes.set_title(canvas.plain(setting.title).replace(", ", ",\n", 1))
        axes.set_xlabel("strength (α, or SAM's radius)")
        axes.set_ylabel("test accuracy, %")
        canvas.mark_empty(axes, "no run has ended")
    canvas.legend_below(figure, *all_axes)
    return Drawing(figure, len(rows), canvas.notes_of(settings))


def _draw_method(axes: Axes, runs: pd.DataFrame, method: str) -> None:
    group = runs[runs["method"] == method]
    line, label = canvas.method_line(method), canvas.method_text(method)
    strength_of = strengths(group)
    if not (strength_of > 0).any():
        if (summary := summarise(list(accuracies(group)))) is not None:
            canvas.draw_level(axes, summary, label=label, **line)
        return
    points: list[tuple[float, float, float]] = []
    for strength in sorted(set(strength_of[strength_of > 0])):
        at_strength = group[strength_of == strength]
        summary = summarise(list(accuracies(at_strength)))
        if summary is not None:
            points.append((strength, summary.mean, float(np.nan_to_num(summary.std))))
        if (at_strength["status"] == DIVERGED).any():
            axes.plot(
                strength,
                0.03,
                "x",
                ms=4,
                color=line["color"],
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
    if points:
        x, y, spreads = zip(*points, strict=True)
        axes.errorbar(x, y, yerr=spreads, marker="o", ms=3, label=label, **line)


def _fill(rows: pd.DataFrame, runs: Runs) -> Table:
    """Every method at its own best strength, with the paired difference to FP."""
    settings = settings_of(rows, by_noise=True)
    lines = [Row(s.title, cells) for s in settings for cells in _lines(s.runs)]
    columns = ("method", "strength", "test accuracy", "n", "minus FP", "collapses at")
    return Table(columns, tuple(lines), len(rows), canvas.notes_of(settings))


def _lines(runs: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    methods = sorted(set(runs["method"]), key=lambda m: position(m, METHODS))
    best = {
        method: best_candidate(final_stage(runs[runs["method"] == method])).runs
        for method in methods
    }
    plain = None
    if "baseline" in best:
        plain = summarise(list(accuracies(best["baseline"])))
    for method in methods:
        kept = best[method]
        summary = summarise(list(accuracies(kept)))
        strength = strengths(kept)
        yield (
            method_label(method),
            f"{strength.iloc[0]:g}" if len(kept) and strength.iloc[0] > 0 else "–",
            summary_text(summary, 2),
            str(summary.n if summary else 0),
            _minus(kept, best.get("fp")) if method != "fp" else "",
            _collapse(runs[runs["method"] == method], plain and plain.mean),
        )


def _minus(kept: pd.DataFrame, fp: pd.DataFrame | None) -> str:
    if fp is None:
        return "–"
    ours = accuracies(kept).groupby(kept["seed"]).mean()
    theirs = accuracies(fp).groupby(fp["seed"]).mean()
    both = ours.index.intersection(theirs.index)
    found = paired_difference(list(ours[both]), list(theirs[both]))
    if found is None:
        return "–"
    text = f"{found.mean:+.2f}"
    if found.n > 1:
        text += f" [{found.low:+.2f}, {found.high:+.2f}]"
    return text.replace("-", MINUS)


def _collapse(runs: pd.DataFrame, plain: float | None) -> str:
    strength_of = strengths(runs)
    if plain is None or not (strength_of > 0).any():
        return ""
    for strength in sorted(set(strength_of[strength_of > 0])):
        at_strength = runs[strength_of == strength]
        summary = summarise(list(accuracies(at_strength)))
        diverged = (at_strength["status"] == DIVERGED).all()
        if diverged or (summary and summary.mean < plain - COLLAPSE):
            return f"{strength:g}"
    return "nowhere"


ITEM = Item(
    name="Beyond the paper: RFP",
    title="RFP beside FP and its rivals, by strength",
    place="",
    experiments=("beyond_rfp",),
    figure=FigurePart(
        _draw,
        "Test accuracy (at the best validation epoch where there is one) against the "
        "strength of each method, mean and one standard deviation over seeds. Crosses "
        "at the bottom: runs that diverged. Line with band: no penalty.",
        "Accuracy against the strength on a logarithmic axis, a line for each method; "
        "where a line falls off the method has become too strong.",
    ),
    table=TablePart(
        _fill,
        "Every method at its own best strength, chosen by validation accuracy. Test "
        "accuracy in % (at the best validation epoch where there is one), mean ± "
        "standard deviation over seeds. Minus FP: mean difference over the seeds that "
        "both have, with a 95% bootstrap interval. Collapses at: the smallest strength "
        f"of the grid at which the mean is more than {COLLAPSE:g} points below no "
        "penalty.",
    ),
    claims=(
        Claim(
            "RFP generalises better than FP, each at its best strength.",
            partial(
                method_is_higher,
                high="rfp",
                low="fp",
                quantities=TEST_ACCURACY,
                factor=100,
            ),
        ),
    ),
)
