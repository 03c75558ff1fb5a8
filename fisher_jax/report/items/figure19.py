"""Figure 19: Tr(F) and minibatch accuracy at every step, by batch size."""

from fisher_jax.report.shapes.every_step import every_step_item

ITEM = every_step_item(
    "Figure 19",
    "appendix E",
    "fig19",
    varied="batch_size",
    claim="A large batch reaches a larger Tr(F) than a small one does at any step.",
    higher="largest",
)
