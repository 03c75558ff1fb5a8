"""Table 6: final training accuracy in the runs of table 1."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.rules import FITTED, method_is_higher, reaches
from fisher_jax.report.tables import PENALTY_METHODS, by_method, published_rows

PUBLISHED = published_rows(
    PENALTY_METHODS,
    {
        ("tiny_imagenet_wide_resnet",): (99.84, 99.96, 99.97, 93.84, 81.05, 86.46),
        ("cifar100_densenet",): (99.98, 99.97, 99.96, 99.91, 99.91, 99.39),
        ("cifar100_vgg11",): (99.98, 99.98, 99.85, 99.62, 97.73, 86.32),
        ("cifar100_wide_resnet",): (99.98, 99.98, 99.97, 99.96, 99.99, 99.94),
        ("cifar10_simple_cnn",): (100.0, 100.0, 97.79, 100.0, 93.80, 94.64),
    },
)
NO_LOWER = 0.5  # percentage points: what counts as no lower; the paper's are within 0.3

ITEM = Item(
    name="Table 6",
    title="Final training accuracy",
    place="appendix A.2",
    experiments=("table1", "cifar10_simplecnn_fp"),
    published=PUBLISHED,
    table=TablePart(
        partial(
            by_method,
            published=PUBLISHED,
            columns=PENALTY_METHODS,
            quantities=("final_train_accuracy",),
            factor=100,
        ),
        "Final training accuracy in % in the runs of table 1.",
    ),
    claims=(
        Claim(
            "Without a penalty training ends near 100% training accuracy.",
            partial(reaches, method="baseline", percent=FITTED),
        ),
        Claim(
            "The small learning rate ends at no lower training accuracy than η*.",
            partial(
                method_is_higher,
                high="baseline",
                low="eta_star",
                quantity="final_train_accuracy",
                factor=100.0,
                by=-NO_LOWER,
            ),
        ),
    ),
)
