"""Figure 16: FP recomputed every 10 steps and every step, by coefficient."""

from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.coefficients import (
    STRENGTH_ALT,
    STRENGTH_CAPTION,
    draw_strengths,
)
from fisher_jax.report.tables import ROOT_REASON

ITEM = Item(
    name="Figure 16",
    title="FP recomputed every 10 steps and every step, by coefficient",
    place="appendix C",
    experiments=("fig16",),
    figure=FigurePart(
        draw_strengths,
        f"Fisher Penalty recomputed every f steps. {STRENGTH_CAPTION} {ROOT_REASON}",
        STRENGTH_ALT,
    ),
)
