"""Figure 7: figure 2 by batch size."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.early import CAPTION, draw_early, early_goes_with_better

ITEM = Item(
    name="Figure 7",
    title="Early Tr(F) against test accuracy, by batch size",
    place="appendix A.1",
    experiments=("fig07",),
    figure=FigurePart(
        partial(
            draw_early,
            varied="batch_size",
            letter="S",
            quantity="best_test_accuracy",
            label="best test accuracy, %",
        ),
        CAPTION,
        "Scatter of early Tr(F) against best test accuracy, a colour for "
        "each batch size.",
    ),
    claims=(
        Claim(
            "Across batch sizes, a smaller early Tr(F) goes with better accuracy.",
            partial(early_goes_with_better, varied="batch_size"),
        ),
    ),
)
