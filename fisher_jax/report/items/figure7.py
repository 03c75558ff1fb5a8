"""Figure 7: figure 2 by batch size."""

from fisher_jax.report.shapes.early import early_item

ITEM = early_item(
    "Figure 7", "appendix A.1", "fig07", varied="batch_size", split="test"
)
