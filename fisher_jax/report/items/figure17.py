"""Figure 17: the single-example penalty of equation 6, by coefficient."""

import pandas as pd

from fisher_jax.report.canvas import ROOT_REASON, Drawing
from fisher_jax.report.choose import Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import end_alike
from fisher_jax.report.shapes.coefficients import (
    HOLLOW_CAPTION,
    STRENGTH_ALT,
    STRENGTH_CAPTION,
    PenaltyResult,
    draw_strengths,
)

PUBLISHED = {
    "FP exact": PenaltyResult(79.7, 24.16),
    "FP": PenaltyResult(80.02, 21.38),
}

WITHIN = 1.0  # percentage points; the paper: "to a similar degree", 79.7 and 80.02


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing | str:
    rows = rows[rows["experiment"] == "fig17"]
    return draw_strengths(rows, runs, published=PUBLISHED) if len(rows) else "no runs"


def _ends_alike(setting: Setting, runs: Runs) -> Decision | None:
    single, usual = (setting.of(method) for method in ("fp_single", "fp"))
    usual = usual[usual["update_every"] == 10]
    return end_alike(single, usual, names=("FP exact", "FP, f = 10"), within=WITHIN)


ITEM = Item(
    name="Figure 17",
    title="The penalty of a single example (equation 6), by coefficient",
    place="appendix C",
    experiments=("fig17", "fig16"),
    published=PUBLISHED,
    figure=FigurePart(
        _draw,
        "The penalty is the squared gradient norm of one example, at every step. "
        f"{STRENGTH_CAPTION} {HOLLOW_CAPTION} {ROOT_REASON}",
        STRENGTH_ALT,
        shows_fisher_trace=True,
    ),
    claims=(
        Claim(
            f"FP exact and FP end within {WITHIN:g} point of test accuracy.",
            _ends_alike,
        ),
    ),
)
