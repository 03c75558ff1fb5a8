"""Table 7: final training accuracy in the runs of table 2."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.items.table2 import FITTED
from fisher_jax.report.rules import reaches
from fisher_jax.report.shapes.method_table import BEST_METHODS, method_table

ITEM = method_table(
    "Table 7",
    "Final training accuracy with augmentation, without and with FP",
    "appendix A.2",
    ("table2",),
    columns=BEST_METHODS,
    published={
        ("cifar100_densenet",): ((98.75, 0.27), (97.53, 1.75)),
        ("cifar10_simple_cnn",): ((97.52, 1.98), (98.94, 0.08)),
        ("cifar100_vgg11",): ((98.64, 0.06), (93.06, 0.01)),
        ("cifar100_wide_resnet",): ((99.97, 0.01), (99.97, 0.00)),
        ("tiny_imagenet_wide_resnet",): ((99.86, 0.02), (93.65, 5.85)),
    },
    quantities=("final_train_accuracy",),
    caption=(
        "Final training accuracy in %, on images as they are, in the runs of table 2."
    ),
    claims=(
        Claim(
            f"With augmentation η* ends at {FITTED:g}% training accuracy or more.",
            partial(reaches, method="eta_star", percent=FITTED),
        ),
    ),
)
