"""Figure 10: accuracy and Tr(F) along training by method, DenseNet and SimpleCNN."""

from fisher_jax.report.shapes.by_method import by_method_item

ITEM = by_method_item(
    "Figure 10",
    "Accuracy and Tr(F) along training, by method: DenseNet, SimpleCNN",
    "appendix A.2",
    ("table1", "cifar10_simplecnn_fp"),
    is_figure_10=True,
)
