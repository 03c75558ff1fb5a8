"""Figure 11: learning of right and of wrong labels, second network."""

from functools import partial

from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.memorisation import ALT, CAPTION, draw_memorisation

ITEM = Item(
    name="Figure 11",
    title="Gradients and accuracy on clean and noisy examples, second network",
    place="appendix A.3",
    experiments=("table3", "digits_fp"),
    figure=FigurePart(partial(draw_memorisation, network=1), CAPTION, ALT),
)
