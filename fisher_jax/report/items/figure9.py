"""Figure 9: the training accuracy of figure 7's runs."""

from fisher_jax.report.shapes.early import early_item

ITEM = early_item(
    "Figure 9", "appendix A.1", "fig07", varied="batch_size", split="training"
)
