"""Figure 6: high or low regularisation in the first epochs only, cifar100."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.phases import (
    ends_flatter,
    ends_more_accurate,
    phase_one_ends_flatter,
)
from fisher_jax.report.shapes.two_phase import ALT, CAPTION, TwoPhase, draw_two_phase

VARIED = "learning_rate"
PUBLISHED = {
    "high": TwoPhase(1230, (1200, 1350), 55.0),
    "low": TwoPhase(2720, (3100, 4200), 49.0),
}

ITEM = Item(
    name="Figure 6",
    title="Final Tr(H) and accuracy by the first epochs' learning rate",
    place="section 5",
    experiments=("fig06",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(draw_two_phase, varied=VARIED, dataset="cifar100", published=PUBLISHED),
        CAPTION.format(word="learning rate"),
        ALT,
    ),
    claims=(
        Claim(
            "A high early learning rate ends phase one with a smaller Tr(F).",
            partial(phase_one_ends_flatter, varied=VARIED),
        ),
        Claim(
            "A high early learning rate ends in flatter minima (smaller Tr(H)).",
            partial(ends_flatter, varied=VARIED),
        ),
        Claim(
            "A high early learning rate ends in better accuracy.",
            partial(ends_more_accurate, varied=VARIED),
        ),
    ),
)
