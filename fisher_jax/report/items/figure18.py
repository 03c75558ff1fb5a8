"""Figure 18: Tr(F) and minibatch accuracy at every step, by learning rate."""

from fisher_jax.report.shapes.every_step import every_step_item

ITEM = every_step_item(
    "Figure 18",
    "appendix D",
    "fig18",
    varied="learning_rate",
    claim="At no step has the large rate a Tr(F) as large as the small one's peak.",
    higher="smallest",
)
