"""Figure 11: learning of right and of wrong labels, Wide ResNet."""

from fisher_jax.report.shapes.memorisation import memorisation_item

ITEM = memorisation_item(
    "Figure 11",
    "Gradients and accuracy on clean and noisy examples, second network",
    "appendix A.3",
    ("fig05", "table3", "digits_fp"),
    is_figure_5=False,
)
