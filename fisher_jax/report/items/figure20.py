"""Figure 20: FP on the first 128 examples of a batch of 1280, by coefficient."""

from functools import partial

from fisher_jax.report.canvas import ROOT_REASON
from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import generalises_better, peak_is_lower
from fisher_jax.report.shapes.coefficients import (
    HOLLOW_CAPTION,
    STRENGTH_ALT,
    STRENGTH_CAPTION,
    PenaltyResult,
    draw_strengths,
)

# With the usual batch η* reaches 76.94.
PUBLISHED = {
    "large batch": PenaltyResult(73.7),
    "half learning rate": PenaltyResult(73.59),
    "FP": PenaltyResult(78.7),
}

ITEM = Item(
    name="Figure 20",
    title="FP with a large batch, by coefficient",
    place="appendix E",
    experiments=("fig20",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(draw_strengths, published=PUBLISHED),
        "Batch ten times as large (digits: five), half the learning rate, FP at every "
        "step on as many of its first examples as a usual batch has. "
        f"{STRENGTH_CAPTION} {HOLLOW_CAPTION} {ROOT_REASON}",
        STRENGTH_ALT,
        shows_fisher_trace=True,
    ),
    claims=(
        Claim(
            "With a large batch FP improves test accuracy.",
            partial(generalises_better, method="fp", than="baseline"),
        ),
        Claim(
            "With a large batch FP lowers the peak of Tr(F).",
            partial(peak_is_lower, method="fp", than="baseline"),
        ),
    ),
)
