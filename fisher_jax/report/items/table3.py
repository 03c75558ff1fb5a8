"""Table 3: test accuracy with noisy labels."""

from functools import partial

from fisher_jax.report.choose import TEST_ACCURACY
from fisher_jax.report.claims import Claim
from fisher_jax.report.rules import generalises_better
from fisher_jax.report.shapes.method_table import NOISE_METHODS, method_table

ITEM = method_table(
    "Table 3",
    "Test accuracy with noisy labels",
    "section 4.1",
    ("table3", "digits_fp"),
    columns=NOISE_METHODS,
    published={
        ("cifar100_vgg11", "0.25"): (41.74, 52.31, 45.94, 60.18, 58.46),
        ("cifar100_wide_resnet", "0.25"): (53.30, 61.61, 52.70, 58.31, 57.60),
        ("cifar100_vgg11", "0.5"): (30.05, 39.15, 34.26, 51.33, 50.33),
        ("cifar100_wide_resnet", "0.5"): (43.35, 51.71, 42.99, 47.99, 50.08),
    },
    quantities=TEST_ACCURACY,
    caption=(
        "Test accuracy in % at the best validation epoch, with a share of the training "
        "labels replaced by uniform draws. A draw may hit the true class, so fewer are "
        "wrong: the effective rate is the one we measured."
    ),
    claims=(
        Claim(
            "With noisy labels FP generalises better than the baseline.",
            partial(generalises_better, method="fp", than="baseline"),
        ),
    ),
)
