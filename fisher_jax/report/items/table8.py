"""Table 8: what is learnt of right labels beside wrong ones."""

import pandas as pd

from fisher_jax.report.collect import Runs
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.tables import NOISE_METHODS, Table, by_method, published_rows

PUBLISHED = published_rows(
    NOISE_METHODS,
    {
        ("cifar100_vgg11", "0.25"): (99.79, 73.14, 97.46, 79.52, 81.75),
        ("cifar100_wide_resnet", "0.25"): (95.87, 77.71, 95.88, 78.72, 74.21),
    },
)


def _fill(rows: pd.DataFrame, runs: Runs) -> Table | str:
    return by_method(
        rows[rows["noise"] == 0.25],
        runs,
        published=PUBLISHED,
        columns=NOISE_METHODS,
        quantities=("final_train_clean_accuracy",),
        factor=100,
        by_noise=True,
    )


ITEM = Item(
    name="Table 8",
    title="Final training accuracy on clean examples, at 25% label noise",
    place="appendix A.3",
    experiments=("table3", "digits_fp"),
    published=PUBLISHED,
    table=TablePart(
        _fill,
        "Final training accuracy in % on the examples whose labels were kept, at 25% "
        "label noise, in the runs of table 3.",
    ),
)
