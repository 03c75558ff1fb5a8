"""Which runs may be averaged: those of one setting, code version and candidate.

Whatever is left out is told in a note, which the report prints at the cell or figure.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import pandas as pd

from fisher_jax.report.collect import INCOMPLETE
from fisher_jax.report.names import SETTINGS, position
from fisher_jax.report.statistics import Summary, summarise
from fisher_jax.run_files import DIVERGED, FINISHED

REFERENCES = ("eta_star", "baseline")  # methods without a penalty
# Which is taken: the first that runs have. Without a validation split it is the last.
TEST_ACCURACY = ("test_accuracy_at_best_validation", "test_accuracy")


class Chosen(NamedTuple):
    """Runs of one kind, and what was left out of them."""

    rows: pd.DataFrame
    notes: tuple[str, ...]


class Setting(NamedTuple):
    """The runs of one setting, of one code version: a row of a table, a panel.

    Attributes:
        title: as it reads.
        notes: what was left out and what has not ended, each with the title.
        other_code: of ``notes``, without the title, what is said of other versions.
    """

    title: str
    rows: pd.DataFrame
    notes: tuple[str, ...]
    form: str
    dataset: str
    model: str = ""
    other_code: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What published values of the setting go by."""
        return f"{self.dataset}_{self.model}"

    def of(self, method: str) -> pd.DataFrame:
        """Returns the rows of a method."""
        return self.rows[self.rows["method"] == method]

    @property
    def final(self) -> pd.DataFrame:
        """The rows of the final stage; of the search where there are no others."""
        return final_stage(self.rows)

    def best(self, method: str) -> Chosen:
        """Returns what a table's cell averages of a method, and a claim compares."""
        return best_runs(self.of(method))


def one_version(rows: pd.DataFrame) -> Chosen:
    """Keeps the code version (commit and packages) with the most runs.

    Of equally many the one whose runs got further is kept. Runs of different code are
    never averaged.
    """
    if rows["version"].nunique() <= 1:
        return Chosen(rows, ())
    groups = rows.groupby("version", sort=True)
    order = groups.agg(n=("path", "size"), epochs=("last_epoch", "sum"))
    version = order.sort_values(["n", "epochs"], ascending=False).index[0]
    kept = rows[rows["version"] == version]
    left_out = rows[rows["version"] != version]
    labels = ", ".join(sorted(left_out["version_label"].unique()))
    return Chosen(
        kept,
        (
            f"{_runs(len(left_out))} by other code ({labels}) not averaged with "
            f"{_runs(len(kept))} by {kept['version_label'].iloc[0]}",
        ),
    )


def best_candidate(rows: pd.DataFrame) -> Chosen:
    """Keeps the configuration with the best mean validation accuracy, as the paper.

    Where no run has a validation split, test accuracy decides and the note says so.
    """
    if rows["candidate"].nunique() <= 1:
        return Chosen(rows, ())
    by = "best_validation_accuracy"
    if rows[by].isna().all():
        by = "best_test_accuracy"
    scores = rows.groupby("candidate", sort=True)[by].mean()
    if scores.isna().all():
        return Chosen(rows.iloc[:0], ("no candidate has an accuracy yet",))
    kept = rows[rows["candidate"] == scores.idxmax()]
    word = "validation" if by == "best_validation_accuracy" else "test (no validation)"
    return Chosen(kept, (f"best of {len(scores)} candidates by {word} accuracy",))


def best_runs(rows: pd.DataFrame) -> Chosen:
    """Keeps the best candidate of a method's runs, of the final stage if it is there.

    Args:
        rows: of one code version, as a ``Setting``'s are.

    Returns:
        Runs of one candidate, unfinished ones among them; what is averaged is then
        only what they have.
    """
    rows = final_stage(rows)
    candidate = best_candidate(rows)
    if not (rows["stage"] != "final").any():
        return candidate
    note = "from the search stage, as there are no final runs"
    return Chosen(candidate.rows, (note, *candidate.notes))


def unfinished_note(rows: pd.DataFrame) -> tuple[str, ...]:
    """Says how many of the runs diverged or have not ended."""
    counts = rows["status"].value_counts()
    words = {DIVERGED: "diverged", INCOMPLETE: "not ended"}
    parts = [
        f"{counts[status]} of {_runs(len(rows))} {word}"
        for status, word in words.items()
        if counts.get(status)
    ]
    return ("; ".join(parts),) if parts else ()


def average(
    rows: pd.DataFrame, quantities: Sequence[str], factor: float = 1.0
) -> tuple[Summary | None, str]:
    """Returns the mean over runs, and why there is none where there is none."""
    if not len(rows):
        return None, "no runs"
    summary = summarise(list(factor * first_recorded(rows, quantities)))
    if summary is not None:
        return summary, ""
    if not (rows["status"] == FINISHED).any():
        return None, unfinished_note(rows)[0]
    return None, f"{quantities[-1].replace('_', ' ')} was not recorded"


def first_recorded(rows: pd.DataFrame, quantities: Sequence[str]) -> pd.Series:
    """Returns of each run the first of the quantities that it has."""
    first, *others = (rows[quantity].astype(float) for quantity in quantities)
    for other in others:
        first = first.fillna(other)
    return first


def settings_of(
    rows: pd.DataFrame, *, by_noise: bool = False, final: bool = False
) -> list[Setting]:
    """Splits runs by setting: the paper's sizes first, then the small forms.

    Args:
        by_noise: splits by the share of noisy labels, too.
        final: leaves out the search stage, once the code version is chosen. Claims get
            all stages and take ``Setting.final`` where a figure shows no others.
    """
    settings = []
    keys = ["form", "setting_label", "sweep_setting", *(["noise"] if by_noise else [])]
    for (form, label, sweep_setting, *noise), group in rows.groupby(keys):
        chosen = one_version(group)
        alike = (rows["setting_label"] == label) & (rows["form"] == form)
        same = sorted(rows[alike]["sweep_setting"].unique())
        title = f"{label} ({form})" if form else label
        if further := _further_words(sweep_setting, same):
            title += f", {further}"
        title += f", {100 * noise[0]:g}% noise" if any(noise) else ""
        kept = final_stage(chosen.rows) if final else chosen.rows
        notes = (*chosen.notes, *unfinished_note(kept))
        notes = tuple(f"{title}: {note}" for note in notes)
        dataset, model = group[["dataset", "model"]].iloc[0]
        settings.append(Setting(title, kept, notes, form, dataset, model, chosen.notes))
    return sorted(settings, key=_paper_order)


def _further_words(name: str, names: Sequence[str]) -> str:
    """The words of a name after those that all names begin with."""
    places = zip(*(other.split("_") for other in names), strict=False)
    shared = list(takewhile(lambda words: len(set(words)) == 1, places))
    return " ".join(name.split("_")[len(shared) :])


def _paper_order(setting: Setting) -> tuple[str, int]:
    return setting.form, position(setting.key, SETTINGS)[0]


def final_stage(rows: pd.DataFrame) -> pd.DataFrame:
    """Leaves out the runs of the search stage, if there are others."""
    final = rows[rows["stage"] == "final"]
    return final if len(final) else rows


def accuracies(rows: pd.DataFrame) -> pd.Series:
    """Returns test accuracy in %, at the best validation epoch where there is one."""
    return 100 * first_recorded(rows, TEST_ACCURACY)


def strengths(rows: pd.DataFrame) -> pd.Series:
    """Returns α, or SAM's radius or mixup's β where that is the method's strength."""
    strength = rows["coefficient"].astype(float)
    strength = strength.where(strength > 0, rows["sam_radius"].astype(float))
    return strength.where(strength > 0, rows["mixup_beta"].astype(float))


def pairs(rows: pd.DataFrame, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns two columns of the runs that have both."""
    both = rows[[x, y]].astype(float).dropna()
    return both[x].to_numpy(), both[y].to_numpy()


def pairs_along_training(
    rows: pd.DataFrame, metrics: Mapping[int, pd.DataFrame], x: str, y: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two metrics at all records of all runs that hold both, both positive."""
    frames = [
        frame[[x, y]].dropna()
        for frame in (metrics[index] for index in rows.index)
        if x in frame and y in frame
    ]
    if not frames:
        return np.empty(0), np.empty(0)
    both = pd.concat(frames)
    both = both[(both > 0).all(axis=1)]
    return both[x].to_numpy(float), both[y].to_numpy(float)


def accuracy_metric(rows: pd.DataFrame, metrics: Mapping[int, pd.DataFrame]) -> str:
    """Returns validation/accuracy, or test/accuracy where nothing was set aside."""
    has = any("validation/accuracy" in metrics[i] for i in rows.index)
    return "validation/accuracy" if has else "test/accuracy"


def drawable(rows: pd.DataFrame) -> pd.DataFrame:
    """Keeps finished runs; where there are none, all, diverged and unfinished."""
    finished = rows[rows["status"] == FINISHED]
    return finished if len(finished) else rows


def join_notes(notes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns the notes of several choices, each once, in order."""
    return tuple(dict.fromkeys(note for group in notes for note in group))


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
