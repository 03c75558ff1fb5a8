"""Table 6: final training accuracy in the runs of table 1."""

from functools import partial

import pandas as pd

from fisher_jax.report.choose import REFERENCES, Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, mostly
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.rules import FITTED, chosen_runs, method_is_higher
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
NO_LOWER = 0.5  # percentage points: what counts as no lower, in the paper 0.01


def _most_fit(setting: Setting, runs: Runs) -> Decision | None:
    """Whether most runs with η* or the small learning rate reach the paper's ~100%."""
    chosen = pd.concat([chosen_runs(setting, method) for method in REFERENCES])
    percent = 100 * chosen["final_train_accuracy"].astype(float).dropna()
    fits = {index: bool(value >= FITTED) for index, value in percent.items()}
    return mostly(fits, name=f"runs at {FITTED:g}% or more") if fits else None


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
            "Without a penalty most runs end near 100% training accuracy.",
            _most_fit,
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
