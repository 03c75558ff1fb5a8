"""Which runs may be averaged: one code version, one candidate, ended runs.

Whatever is left out is told in a note, which the report prints at the cell or figure.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from fisher_jax.report.quantities import DIVERGED, FINISHED, INCOMPLETE
from fisher_jax.report.statistics import Summary, summarise


class Chosen(NamedTuple):
    """Runs of one kind, and what was left out of them."""

    runs: pd.DataFrame
    notes: tuple[str, ...]


def one_version(runs: pd.DataFrame) -> Chosen:
    """Keeps the code version (commit and packages) with the most runs.

    Of equally many the one whose runs got further is kept. Runs of different code are
    never averaged.
    """
    if runs["version"].nunique() <= 1:
        return Chosen(runs, ())
    groups = runs.groupby("version", sort=True)
    order = groups.agg(n=("path", "size"), epochs=("last_epoch", "sum"))
    version = order.sort_values(["n", "epochs"], ascending=False).index[0]
    kept = runs[runs["version"] == version]
    left_out = runs[runs["version"] != version]
    labels = ", ".join(sorted(left_out["version_label"].unique()))
    return Chosen(
        kept,
        (
            f"{_runs(len(left_out))} by other code ({labels}) not averaged with "
            f"{_runs(len(kept))} by {kept['version_label'].iloc[0]}",
        ),
    )


def best_candidate(runs: pd.DataFrame) -> Chosen:
    """Keeps the configuration with the best mean validation accuracy, as the paper.

    Where no run has a validation split, test accuracy decides and the note says so.
    """
    if runs["candidate"].nunique() <= 1:
        return Chosen(runs, ())
    by = "best_validation_accuracy"
    if runs[by].isna().all():
        by = "best_test_accuracy"
    scores = runs.groupby("candidate", sort=True)[by].mean()
    if scores.isna().all():
        return Chosen(runs.iloc[:0], ("no candidate has an accuracy yet",))
    kept = runs[runs["candidate"] == scores.idxmax()]
    word = "validation" if by == "best_validation_accuracy" else "test (no validation)"
    return Chosen(kept, (f"best of {len(scores)} candidates by {word} accuracy",))


def for_cell(runs: pd.DataFrame) -> Chosen:
    """Keeps what one table cell averages: the final stage if it is there.

    Returns:
        Runs of one version and one candidate, unfinished ones among them; what is
        averaged is then only what they have.
    """
    notes: list[str] = []
    final = runs[runs["stage"] == "final"]
    if len(final):
        runs = final
    elif len(runs):
        notes.append("from the search stage; no final runs")
    versioned = one_version(runs)
    candidate = best_candidate(versioned.runs)
    return Chosen(candidate.runs, (*notes, *versioned.notes, *candidate.notes))


def unfinished_note(runs: pd.DataFrame) -> tuple[str, ...]:
    """Says how many of the runs diverged or have not ended."""
    counts = runs["status"].value_counts()
    words = {DIVERGED: "diverged", INCOMPLETE: "not ended"}
    parts = [
        f"{counts[status]} of {_runs(len(runs))} {word}"
        for status, word in words.items()
        if counts.get(status)
    ]
    return ("; ".join(parts),) if parts else ()


def average(
    runs: pd.DataFrame, quantity: str, factor: float = 1.0
) -> tuple[Summary | None, str]:
    """Returns the mean over runs, and why there is none where there is none."""
    if not len(runs):
        return None, "no runs"
    summary = summarise([factor * v for v in runs[quantity].astype(float)])
    if summary is not None:
        return summary, ""
    if not (runs["status"] == FINISHED).any():
        return None, unfinished_note(runs)[0]
    return None, f"{quantity.replace('_', ' ')} was not recorded"


def drawable(runs: pd.DataFrame) -> pd.DataFrame:
    """Keeps ended runs; all of them where none has ended, and diverged ones alone."""
    finished = runs[runs["status"] == FINISHED]
    return finished if len(finished) else runs


def join_notes(notes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns the notes of several choices, each once, in order."""
    return tuple(dict.fromkeys(note for group in notes for note in group))


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
