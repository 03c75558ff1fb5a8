"""Figure 18: Tr(F) and minibatch accuracy at every step, by learning rate."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.every_step import CAPTION, draw_every_step, peak_is_higher

ITEM = Item(
    name="Figure 18",
    title="Tr(F) at every step, by learning rate",
    place="appendix D",
    experiments=("fig18",),
    figure=FigurePart(
        partial(draw_every_step, varied="learning_rate", letter="η"),
        CAPTION,
        "Tr(F) on the left and minibatch accuracy on the right against the step, a "
        "colour for each learning rate.",
    ),
    claims=(
        Claim(
            "At no step has the large rate a Tr(F) as large as the small one's peak.",
            partial(peak_is_higher, varied="learning_rate", higher="smallest"),
        ),
    ),
)
