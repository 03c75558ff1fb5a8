"""Table 7: final training accuracy in the runs of table 2."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.items.table2 import FITTED
from fisher_jax.report.rules import reaches
from fisher_jax.report.tables import by_method, published_rows

COLUMNS = ("eta_star", "fp")
PUBLISHED = published_rows(
    COLUMNS,
    {
        ("cifar100_densenet",): ((98.75, 0.27), (97.53, 1.75)),
        ("cifar10_simple_cnn",): ((97.52, 1.98), (98.94, 0.08)),
        ("cifar100_vgg11",): ((98.64, 0.06), (93.06, 0.01)),
        ("cifar100_wide_resnet",): ((99.97, 0.01), (99.97, 0.00)),
        ("tiny_imagenet_wide_resnet",): ((99.86, 0.02), (93.65, 5.85)),
    },
)

ITEM = Item(
    name="Table 7",
    title="Final training accuracy with augmentation, without and with FP",
    place="appendix A.2",
    experiments=("table2",),
    published=PUBLISHED,
    table=TablePart(
        partial(
            by_method,
            published=PUBLISHED,
            columns=COLUMNS,
            quantities=("final_train_accuracy",),
            factor=100,
        ),
        "Final training accuracy in %, on images as they are, in the runs of table 2.",
    ),
    claims=(
        Claim(
            f"With augmentation η* ends at {FITTED:g}% training accuracy or more.",
            partial(reaches, method="eta_star", percent=FITTED),
        ),
    ),
)
