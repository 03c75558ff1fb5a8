"""Beyond the paper: RFP beside its rivals, by strength and each at its best."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import (
    accuracies,
    best_runs,
    settings_of,
    strengths,
)
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import LEVEL, Difference, difference, holm
from fisher_jax.report.item import FigurePart, Item, TablePart
from fisher_jax.report.names import in_method_order, method_label
from fisher_jax.report.render import interval_text, summary_text
from fisher_jax.report.rules import generalises_better
from fisher_jax.report.statistics import summarise
from fisher_jax.report.tables import Row, Table
from fisher_jax.report.values import by_seed
from fisher_jax.run_files import DIVERGED

COLLAPSE = 5.0  # percentage points below no penalty


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, by_noise=True)
    figure, all_axes = canvas.new_panels(len(settings), height=2.3)
    for axes, setting in zip(all_axes, settings, strict=True):
        for method in in_method_order(setting.rows["method"]):
            _draw_method(axes, setting.rows, method)
        axes.set_xscale("log")
        # Three panels stand in a row, and a line would reach into the next one.
        axes.set_title(canvas.plain(setting.title).replace(", ", ",\n", 1))
        axes.set_xlabel("strength (α, or SAM's radius)")
        axes.set_ylabel("test accuracy, %")
        canvas.mark_empty(axes, "no run has ended")
    canvas.legend_below(figure, *all_axes)
    return canvas.drawing_of(figure, settings)


def _draw_method(axes: Axes, rows: pd.DataFrame, method: str) -> None:
    group = rows[rows["method"] == method]
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
    """Every method at its own best strength, with the difference to FP."""
    settings = settings_of(rows, by_noise=True)
    lines = [(s.title, line) for s in settings for line in _lines(s.rows)]
    tested = [line.minus_fp for _, line in lines if line.minus_fp is not None]
    corrected = iter(holm([found.p_value(0.0) for found in tested]))
    filled = [
        Row(title, line.cells(next(corrected) if line.minus_fp else 1.0))
        for title, line in lines
    ]
    columns = ("method", "strength", "test accuracy", "n", "minus FP", "collapses at")
    notes = (f"{len(tested)} differences to FP were tested",)
    return Table(columns, tuple(filled), len(rows), canvas.notes_of(settings) + notes)


class _Line(NamedTuple):
    """One method in one setting."""

    method: str
    strength: str
    accuracy: str
    n: int
    minus_fp: Difference | None
    collapses_at: str

    def cells(self, corrected_p: float) -> tuple[str, ...]:
        """What stands in its row; the difference has a star if it survives."""
        difference = ""
        if self.minus_fp is not None:
            star = " *" if corrected_p <= LEVEL else ""
            difference = interval_text(self.minus_fp) + star
        return (
            method_label(self.method),
            self.strength,
            self.accuracy,
            str(self.n),
            difference,
            self.collapses_at,
        )


def _lines(rows: pd.DataFrame) -> Iterator[_Line]:
    methods = in_method_order(rows["method"])
    best = {
        method: best_runs(rows[rows["method"] == method]).rows for method in methods
    }
    plain = None
    if "baseline" in best:
        plain = summarise(list(accuracies(best["baseline"])))
    for method in methods:
        kept = best[method]
        summary = summarise(list(accuracies(kept)))
        strength = strengths(kept)
        yield _Line(
            method,
            f"{strength.iloc[0]:g}" if len(kept) and strength.iloc[0] > 0 else "–",
            summary_text(summary, 2),
            summary.n if summary else 0,
            _minus(kept, best.get("fp")) if method != "fp" else None,
            _collapse(rows[rows["method"] == method], plain and plain.mean),
        )


def _minus(kept: pd.DataFrame, fp: pd.DataFrame | None) -> Difference | None:
    if fp is None:
        return None
    found = difference(*(by_seed(rows, accuracies(rows)) for rows in (kept, fp)))
    return None if isinstance(found, str) else found


def _collapse(rows: pd.DataFrame, plain: float | None) -> str:
    strength_of = strengths(rows)
    if plain is None or not (strength_of > 0).any():
        return ""
    for strength in sorted(set(strength_of[strength_of > 0])):
        at_strength = rows[strength_of == strength]
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
        "both have, with Student's 95% interval; * survives Holm's correction over all "
        "differences of the table. Collapses at: the smallest strength of the grid at "
        f"which the mean is more than {COLLAPSE:g} points below no penalty.",
    ),
    claims=(
        Claim(
            "RFP generalises better than FP, each at its best strength.",
            partial(generalises_better, method="rfp", than="fp"),
        ),
    ),
)
