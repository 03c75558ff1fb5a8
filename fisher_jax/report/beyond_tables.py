"""Tables beyond the paper: RFP beside its rivals, and the errors of the estimators."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from fisher_jax.report.choose import best_candidate, one_version, unfinished_note
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures.beyond import (
    ESTIMATORS,
    EXPERIMENT,
    SETTING_KEYS,
    accuracy_of,
    estimator_panels,
    estimators_of,
    setting_title,
    strength_of,
)
from fisher_jax.report.names import METHODS, method_label, position
from fisher_jax.report.render import MINUS, summary_text
from fisher_jax.report.statistics import paired_difference, summarise

COLLAPSE = 5.0  # percentage points below no penalty


class TextTable(NamedTuple):
    """A table whose cells are texts already; the first column names the row."""

    key: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    experiments: tuple[str, ...]
    run_count: int


def build_beyond_tables(runs: Runs) -> tuple[list[TextTable], dict[str, str]]:
    """Returns the tables that there are runs for, and why the others are missing."""
    tables, missing = [], {}
    for key, table in (
        ("beyond_rfp_table", rfp_table(runs)),
        ("beyond_estimators_table", estimators_table(runs)),
    ):
        if table is None:
            missing[key] = f"no runs of {key.removesuffix('_table')}"
        else:
            tables.append(table)
    return tables, missing


def rfp_table(runs: Runs) -> TextTable | None:
    """Every method at its own best strength, with the paired difference to FP."""
    rows = runs.table[runs.table["experiment"] == EXPERIMENT]
    if not len(rows):
        return None
    lines: list[tuple[str, ...]] = []
    notes: list[str] = []
    for keys, group in rows.groupby(SETTING_KEYS):
        chosen = one_version(group)
        title = setting_title(keys)
        notes += [f"{title}: {n}" for n in chosen.notes]
        notes += [f"{title}: {n}" for n in unfinished_note(chosen.runs)]
        lines += [(title, *line) for line in _method_lines(chosen.runs)]
    return TextTable(
        "beyond_rfp_table",
        "RFP beside its rivals, each at its own best strength",
        "Test accuracy in % (at the best validation epoch where there is one), mean ± "
        "standard deviation over seeds. The strength is chosen by validation accuracy. "
        "Minus FP: mean difference over the seeds that both have, with a 95% bootstrap "
        "interval. Collapses at: the smallest strength of the grid at which the mean "
        f"is more than {COLLAPSE:g} points below no penalty.",
        ("setting", "method", "strength", "test accuracy", "n", "minus FP",
         "collapses at"),
        tuple(lines),
        tuple(dict.fromkeys(notes)),
        (EXPERIMENT,),
        len(rows),
    )  # fmt: skip


def _method_lines(runs: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    methods = sorted(set(runs["method"]), key=lambda m: position(m, METHODS))
    best = {m: _best_runs(runs[runs["method"] == m]) for m in methods}
    plain = (
        summarise(list(accuracy_of(best["baseline"]))) if "baseline" in best else None
    )
    for method in methods:
        kept = best[method]
        summary = summarise(list(accuracy_of(kept)))
        strength = strength_of(kept)
        yield (
            method_label(method),
            f"{strength.iloc[0]:g}" if len(kept) and strength.iloc[0] > 0 else "–",
            summary_text(summary, 2),
            str(summary.n if summary else 0),
            _minus(kept, best.get("fp")) if method != "fp" else "",
            _collapse(runs[runs["method"] == method], plain and plain.mean),
        )


def _best_runs(runs: pd.DataFrame) -> pd.DataFrame:
    final = runs[runs["stage"] == "final"]
    return best_candidate(final if len(final) else runs).runs


def _minus(kept: pd.DataFrame, fp: pd.DataFrame | None) -> str:
    if fp is None:
        return "–"
    ours = accuracy_of(kept).groupby(kept["seed"]).mean()
    theirs = accuracy_of(fp).groupby(fp["seed"]).mean()
    both = ours.index.intersection(theirs.index)
    found = paired_difference(list(ours[both]), list(theirs[both]))
    if found is None:
        return "–"
    text = f"{found.mean:+.2f}"
    if found.n > 1:
        text += f" [{found.low:+.2f}, {found.high:+.2f}]"
    return text.replace("-", MINUS)


def _collapse(runs: pd.DataFrame, plain: float | None) -> str:
    strengths = strength_of(runs)
    if plain is None or not (strengths > 0).any():
        return ""
    for strength in sorted(set(strengths[strengths > 0])):
        at_strength = runs[strengths == strength]
        summary = summarise(list(accuracy_of(at_strength)))
        diverged = (at_strength["status"] == "diverged").all()
        if diverged or (summary and summary.mean < plain - COLLAPSE):
            return f"{strength:g}"
    return "nowhere"


def estimators_table(runs: Runs) -> TextTable | None:
    """The relative error of each estimator, median and worst over the records."""
    panels = estimator_panels(runs)
    if not panels:
        return None
    lines = []
    for panel in panels:
        frames = [runs.metrics[index] for index in panel.runs.index]
        for name in estimators_of(panel, runs):
            errors = pd.concat([f[name] for f in frames if name in f]).dropna()
            if len(errors):
                lines.append(
                    (
                        panel.title,
                        name.removeprefix(ESTIMATORS),
                        _percent(float(np.median(errors))),
                        _percent(float(errors.max())),
                        str(len(errors)),
                    )
                )
    return TextTable(
        "beyond_estimators_table",
        "Errors of the estimators of Tr(F) and Tr(H) at equal cost",
        "Relative error in % against the exact value, at the cost of four gradients: "
        "median and largest over all records of all runs.",
        ("setting", "estimator", "median error", "largest error", "records"),
        tuple(lines),
        tuple(note for panel in panels for note in panel.notes),
        ("beyond_estimators",),
        sum(len(panel.runs) for panel in panels),
    )


def _percent(share: float) -> str:
    """Two digits, and all of the whole ones."""
    return f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.2g}"
