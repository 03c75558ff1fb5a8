"""Figure 5: learning of right and of wrong labels, first network."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.memorisation import (
    ALT,
    CAPTION,
    at_papers_noise,
    draw_memorisation,
    ratio_falls,
)

ITEM = Item(
    name="Figure 5",
    title="Gradients and accuracy on clean and noisy examples",
    place="section 4.1",
    experiments=("table3", "digits_fp"),
    figure=FigurePart(partial(draw_memorisation, is_second=False), CAPTION, ALT),
    claims=(
        Claim(
            "FP lowers the gradient norm of noisy examples more than of clean ones.",
            at_papers_noise(partial(ratio_falls, is_second=False)),
        ),
    ),
)
