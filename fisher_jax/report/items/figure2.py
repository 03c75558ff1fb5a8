"""Figure 2: early Tr(F) against best test accuracy, by learning rate."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.early import (
    CAPTION,
    Point,
    draw_early,
    early_goes_with_better,
)

# By eye, from the largest learning rate to the smallest.
PUBLISHED = {
    "imagenet2012": (Point(1000, 59.5), Point(5000, 48.0), Point(27000, 38.5)),
    "cifar10": (Point(370, 93.0), Point(1050, 90.9), Point(1350, 90.0)),
    "cifar100": (Point(950, 57.0), Point(1450, 57.0), Point(3750, 51.7)),
}

ITEM = Item(
    name="Figure 2",
    title="Early Tr(F) against test accuracy, by learning rate",
    place="section 3",
    experiments=("fig02",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(
            draw_early,
            varied="learning_rate",
            letter="η",
            quantity="best_test_accuracy",
            label="best test accuracy, %",
            published=PUBLISHED,
        ),
        CAPTION + " Hollow: the paper's points, read by eye.",
        "Scatter of early Tr(F) against best test accuracy, a colour for "
        "each learning rate.",
    ),
    claims=(
        Claim(
            "Across learning rates, a smaller early Tr(F) goes with better accuracy.",
            partial(early_goes_with_better, varied="learning_rate"),
        ),
    ),
)
