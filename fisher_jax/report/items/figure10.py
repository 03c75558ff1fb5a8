"""Figure 10: accuracy and Tr(F) along training by method, DenseNet and SimpleCNN."""

from functools import partial

from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.by_method import ALT, CAPTION, draw_methods
from fisher_jax.report.tables import ROOT_REASON

ITEM = Item(
    name="Figure 10",
    title="Accuracy and Tr(F) along training, by method: DenseNet, SimpleCNN",
    place="appendix A.2",
    experiments=("table1", "cifar10_simplecnn_fp"),
    figure=FigurePart(
        partial(draw_methods, is_second=True), f"{CAPTION} {ROOT_REASON}", ALT
    ),
)
