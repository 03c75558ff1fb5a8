"""All figures, drawn and written: the list, and the writing as PNG and PDF."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import (
    beyond,
    curves,
    early,
    memorisation,
    onset,
    strengths,
    traces,
    two_phase,
)
from fisher_jax.report.figures.canvas import Drawing, finish, style

FIGURES: Mapping[str, Callable[[Runs], Drawing | str]] = {
    "figure1": curves.figure_1,
    "figure2": early.figure_2,
    "figure3": onset.figure_3,
    "figure4": curves.figure_4,
    "figure5": memorisation.figure_5,
    "figure6": two_phase.figure_6,
    "figure7": early.figure_7,
    "figure8": early.figure_8,
    "figure9": early.figure_9,
    "figure10": curves.figure_10,
    "figure11": memorisation.figure_11,
    "figure12": memorisation.figure_12,
    "figure13": two_phase.figure_13,
    "figure14": curves.figure_14,
    "figure15": traces.figure_15,
    "figure16": strengths.figure_16,
    "figure17": strengths.figure_17,
    "figure18": curves.figure_18,
    "figure19": curves.figure_19,
    "figure20": strengths.figure_20,
    "figure21": traces.figure_21,
    "beyond_rfp": beyond.figure_beyond_rfp,
    "beyond_estimators": beyond.figure_beyond_estimators,
}


def draw(key: str, runs: Runs) -> Drawing | str:
    """Draws one figure in the report's style, or returns why it cannot be."""
    with style():
        drawing = FIGURES[key](runs)
        if isinstance(drawing, Drawing):
            finish(drawing.figure)
        return drawing


def write(drawing: Drawing, folder: Path) -> Path:
    """Writes KEY.png and KEY.pdf and returns the PNG's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{drawing.key}.png"
    with style():
        # No date: the same runs give the same file.
        metadata = {"CreationDate": None, "Title": drawing.title}
        drawing.figure.savefig(path.with_suffix(".pdf"), metadata=metadata)
        drawing.figure.savefig(path, metadata={"Description": drawing.alt})
    return path
