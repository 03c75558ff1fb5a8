"""Figure 19: Tr(F) and minibatch accuracy at every step, by batch size."""

from functools import partial

from fisher_jax.report.claims import Claim, correlated
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.every_step import CAPTION, draw_every_step

ITEM = Item(
    name="Figure 19",
    title="Tr(F) at every step, by batch size",
    place="appendix E",
    experiments=("fig19",),
    figure=FigurePart(
        partial(draw_every_step, varied="batch_size", letter="S"),
        CAPTION,
        "Tr(F) on the left and minibatch accuracy on the right against the step, a "
        "colour for each batch size.",
    ),
    claims=(
        Claim(
            "At every step: a smaller batch keeps Tr(F) lower.",
            partial(correlated, x="batch_size", y="max_fisher_trace", sign=1),
        ),
    ),
)
