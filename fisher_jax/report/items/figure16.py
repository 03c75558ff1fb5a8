"""Figure 16: FP recomputed every 10 steps and every step, by coefficient."""

from fisher_jax.report.canvas import ROOT_REASON
from fisher_jax.report.choose import Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import end_alike
from fisher_jax.report.shapes.coefficients import (
    STRENGTH_ALT,
    STRENGTH_CAPTION,
    draw_strengths,
)

WITHIN = 1.0  # percentage points; the paper: "both approximately 80%"


def _ends_alike(setting: Setting, runs: Runs) -> Decision | None:
    rows = setting.of("fp")
    tenth, every = (rows[rows["update_every"] == f] for f in (10, 1))
    return end_alike(tenth, every, names=("f = 10", "f = 1"), within=WITHIN)


ITEM = Item(
    name="Figure 16",
    title="FP recomputed every 10 steps and every step, by coefficient",
    place="appendix C",
    experiments=("fig16",),
    figure=FigurePart(
        draw_strengths,
        f"Fisher Penalty recomputed every f steps. {STRENGTH_CAPTION} {ROOT_REASON}",
        STRENGTH_ALT,
        shows_fisher_trace=True,
    ),
    claims=(
        Claim(
            f"FP with f = 10 and f = 1 end within {WITHIN:g} point of test accuracy.",
            _ends_alike,
        ),
    ),
)
