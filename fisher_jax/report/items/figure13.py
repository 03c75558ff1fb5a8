"""Figure 13: high or low regularisation in the first epochs only, cifar10."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.phases import (
    ends_flatter,
    ends_more_accurate,
    phase_one_ends_flatter,
)
from fisher_jax.report.shapes.two_phase import ALT, CAPTION, TwoPhase, draw_two_phase

VARIED = "batch_size"
PUBLISHED = {
    "high": TwoPhase(390, (730, 900), 88.7),
    "low": TwoPhase(1500, (1200, 1800), 87.6),
}

ITEM = Item(
    name="Figure 13",
    title="Final Tr(H) and accuracy by the first epochs' batch size",
    place="appendix A.4",
    experiments=("fig06",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(draw_two_phase, varied=VARIED, dataset="cifar10", published=PUBLISHED),
        CAPTION.format(word="batch size"),
        ALT,
    ),
    claims=(
        Claim(
            "A small early batch ends phase one with a smaller Tr(F).",
            partial(phase_one_ends_flatter, varied=VARIED),
        ),
        Claim(
            "A small early batch ends in flatter minima (smaller Tr(H)).",
            partial(ends_flatter, varied=VARIED),
        ),
        Claim(
            "A small early batch ends in better accuracy.",
            partial(ends_more_accurate, varied=VARIED),
        ),
    ),
)
