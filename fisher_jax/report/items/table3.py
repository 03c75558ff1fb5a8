"""Table 3: test accuracy with noisy labels."""

from functools import partial

from fisher_jax.report.choose import TEST_ACCURACY
from fisher_jax.report.claims import Claim
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.rules import generalises_better
from fisher_jax.report.tables import NOISE_METHODS, by_method, published_rows

PUBLISHED = published_rows(
    NOISE_METHODS,
    {
        ("cifar100_vgg11", "0.25"): (41.74, 52.31, 45.94, 60.18, 58.46),
        ("cifar100_wide_resnet", "0.25"): (53.30, 61.61, 52.70, 58.31, 57.60),
        ("cifar100_vgg11", "0.5"): (30.05, 39.15, 34.26, 51.33, 50.33),
        ("cifar100_wide_resnet", "0.5"): (43.35, 51.71, 42.99, 47.99, 50.08),
    },
)

ITEM = Item(
    name="Table 3",
    title="Test accuracy with noisy labels",
    place="section 4.1",
    experiments=("table3", "digits_fp"),
    published=PUBLISHED,
    table=TablePart(
        partial(
            by_method,
            published=PUBLISHED,
            columns=NOISE_METHODS,
            quantities=TEST_ACCURACY,
            factor=100,
            by_noise=True,
        ),
        "Test accuracy in % at the best validation epoch, with a share of the training "
        "labels replaced by uniform draws. A draw may hit the true class, so fewer are "
        "wrong: the effective rate is the one we measured.",
    ),
    claims=(
        Claim(
            "With noisy labels FP generalises better than the baseline.",
            partial(generalises_better, method="fp", than="baseline"),
        ),
    ),
)
