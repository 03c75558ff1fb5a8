"""Table 2: what FP adds to the best learning rate with augmentation."""

from functools import partial

from fisher_jax.report.choose import TEST_ACCURACY
from fisher_jax.report.claims import Claim
from fisher_jax.report.rules import generalises_better
from fisher_jax.report.shapes.method_table import BEST_METHODS, method_table

FITTED = 97.5  # training accuracy in %: the least of η* in table 7

ITEM = method_table(
    "Table 2",
    "Test accuracy with augmentation, without and with FP",
    "section 4",
    ("table2",),
    columns=BEST_METHODS,
    published={
        ("tiny_imagenet_wide_resnet",): ((54.70, 0.0), (60.00, 0.1)),
        ("cifar100_densenet",): ((74.41, 0.5), (74.19, 0.5)),
        ("cifar100_vgg11",): ((59.82, 1.2), (65.08, 0.5)),
        ("cifar100_wide_resnet",): ((69.48, 0.3), (71.53, 1.2)),
        ("cifar10_simple_cnn",): ((87.16, 0.2), (87.52, 0.5)),
    },
    quantities=TEST_ACCURACY,
    caption=(
        "Test accuracy in % with η* and standard augmentation, without and with FP."
    ),
    claims=(
        Claim(
            "FP improves on η* with augmentation.",
            partial(generalises_better, method="fp", than="eta_star", fitted=FITTED),
        ),
    ),
)
