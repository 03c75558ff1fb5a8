"""Figure 8: the training accuracy of figure 2's runs."""

from fisher_jax.report.shapes.early import early_item

ITEM = early_item(
    "Figure 8", "appendix A.1", "fig02", varied="learning_rate", split="training"
)
