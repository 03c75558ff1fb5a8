"""Figure 5: learning of right and of wrong labels, VGG-11."""

from fisher_jax.report.shapes.memorisation import memorisation_item

ITEM = memorisation_item(
    "Figure 5",
    "Gradients and accuracy on clean and noisy examples",
    "section 4.1",
    ("fig05", "table3", "digits_fp"),
    is_figure_5=True,
)
