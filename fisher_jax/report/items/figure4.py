"""Figure 4: accuracy and Tr(F) along training by method, the other networks."""

from functools import partial

from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.by_method import ALT, CAPTION, draw_methods
from fisher_jax.report.tables import ROOT_REASON

ITEM = Item(
    name="Figure 4",
    title="Accuracy and Tr(F) along training, by method",
    place="section 4",
    experiments=("table1", "cifar10_simplecnn_fp"),
    figure=FigurePart(
        partial(draw_methods, is_second=False), f"{CAPTION} {ROOT_REASON}", ALT
    ),
)
