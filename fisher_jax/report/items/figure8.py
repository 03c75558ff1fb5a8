"""Figure 8: the training accuracy of figure 2's runs."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.early import CAPTION, draw_early, most_fit

ITEM = Item(
    name="Figure 8",
    title="Early Tr(F) against training accuracy, by learning rate",
    place="appendix A.1",
    experiments=("fig02",),
    figure=FigurePart(
        partial(
            draw_early,
            varied="learning_rate",
            letter="η",
            quantity="best_train_accuracy",
            label="best training accuracy, %",
        ),
        CAPTION,
        "Scatter of early Tr(F) against best training accuracy, a colour for "
        "each learning rate.",
    ),
    claims=(Claim("Most runs reach a training accuracy of about 99%.", most_fit),),
)
