"""Figure 2: early Tr(F) against best test accuracy, by learning rate."""

from fisher_jax.report.shapes.early import Point, early_item

# By eye, from the largest learning rate to the smallest.
PUBLISHED = {
    "imagenet2012": (Point(1000, 59.5), Point(5000, 48.0), Point(27000, 38.5)),
    "cifar10": (Point(370, 93.0), Point(1050, 90.9), Point(1350, 90.0)),
    "cifar100": (Point(950, 57.0), Point(1450, 57.0), Point(3750, 51.7)),
}

ITEM = early_item(
    "Figure 2",
    "section 3",
    "fig02",
    varied="learning_rate",
    split="test",
    published=PUBLISHED,
)
