"""Figure 17: the single-example penalty of equation 6, by coefficient."""

from functools import partial

from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.coefficients import (
    HOLLOW_CAPTION,
    STRENGTH_ALT,
    STRENGTH_CAPTION,
    PenaltyResult,
    draw_strengths,
)
from fisher_jax.report.tables import ROOT_REASON

PUBLISHED = {
    "FP exact": PenaltyResult(79.7, 24.16),
    "FP": PenaltyResult(80.02, 21.38),
}

ITEM = Item(
    name="Figure 17",
    title="The penalty of a single example (equation 6), by coefficient",
    place="appendix C",
    experiments=("fig17",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(draw_strengths, published=PUBLISHED),
        "The penalty is the squared gradient norm of one example, at every step. "
        f"{STRENGTH_CAPTION} {HOLLOW_CAPTION} {ROOT_REASON}",
        STRENGTH_ALT,
    ),
)
