"""Table 1: test accuracy of every method."""

from functools import partial

from fisher_jax.report.choose import TEST_ACCURACY
from fisher_jax.report.claims import Claim
from fisher_jax.report.rules import generalises_better
from fisher_jax.report.shapes.method_table import PENALTY_METHODS, method_table

ITEM = method_table(
    "Table 1",
    "Test accuracy with a large and a small learning rate and with penalties",
    "section 4",
    ("table1", "cifar10_simplecnn_fp"),
    columns=PENALTY_METHODS,
    published={
        ("tiny_imagenet_wide_resnet",): (54.67, 52.57, 52.79, 56.44, 56.73, 55.41),
        ("cifar100_densenet",): (66.09, 58.51, 62.12, 64.42, 66.41, 66.39),
        ("cifar100_vgg11",): (45.86, 36.86, 45.26, 47.35, 49.87, 48.26),
        ("cifar100_wide_resnet",): (53.96, 46.38, 58.68, 57.68, 57.05, 58.15),
        ("cifar10_simple_cnn",): (76.94, 71.32, 75.68, 75.73, 79.66, 79.76),
    },
    quantities=TEST_ACCURACY,
    with_green=True,
    caption=(
        "Test accuracy in % at the best validation epoch (at the last epoch where "
        "there is no validation split). All columns but η* train with η*/10, on "
        "TinyImageNet η*/30, in the medium form η*/3. Green: the small learning rate "
        "with a penalty reaches at least η*'s mean."
    ),
    claims=(
        Claim(
            "FP makes up for a small learning rate: better than the baseline.",
            partial(generalises_better, method="fp", than="baseline"),
        ),
        Claim(
            "FP with a small learning rate beats the best learning rate η*.",
            partial(generalises_better, method="fp", than="eta_star"),
        ),
    ),
)
