"""Figure 4: accuracy and Tr(F) along training by method: VGG-11, Wide ResNets."""

from fisher_jax.report.shapes.by_method import by_method_item

ITEM = by_method_item(
    "Figure 4",
    "Accuracy and Tr(F) along training, by method",
    "section 4",
    ("table1", "cifar10_simplecnn_fp"),
    is_figure_10=False,
)
