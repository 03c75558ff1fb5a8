"""Figure 5: learning of right and of wrong labels, first network."""

from functools import partial

from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.memorisation import ALT, CAPTION, draw_memorisation

ITEM = Item(
    name="Figure 5",
    title="Gradients and accuracy on clean and noisy examples",
    place="section 4.1",
    experiments=("table3", "digits_fp"),
    figure=FigurePart(partial(draw_memorisation, network=0), CAPTION, ALT),
)
