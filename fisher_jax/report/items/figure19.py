"""Figure 19: Tr(F) and minibatch accuracy at every step, by batch size."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.every_step import CAPTION, draw_every_step, peak_is_higher

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
            "A large batch reaches a larger Tr(F) than a small one does at any step.",
            partial(peak_is_higher, varied="batch_size", higher="largest"),
        ),
    ),
)
