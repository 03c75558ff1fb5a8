"""Table 9: what is memorised of wrong labels."""

from functools import partial

import pandas as pd

from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.rules import method_is_higher
from fisher_jax.report.shapes.memorisation import NOISE, at_papers_noise
from fisher_jax.report.tables import NOISE_METHODS, Table, by_method, published_rows

PUBLISHED = published_rows(
    NOISE_METHODS,
    {
        ("cifar100_vgg11", "0.25"): (99.56, 8.29, 89.23, 4.10, 4.96),
        ("cifar100_wide_resnet", "0.25"): (73.67, 4.22, 72.67, 4.14, 2.86),
    },
)
QUANTITY = "final_train_noisy_accuracy"


def _fill(rows: pd.DataFrame, runs: Runs) -> Table | str:
    return by_method(
        rows[rows["noise"] == NOISE],
        runs,
        published=PUBLISHED,
        columns=NOISE_METHODS,
        quantities=(QUANTITY,),
        factor=100,
        best="min",
        by_noise=True,
    )


ITEM = Item(
    name="Table 9",
    title="Final training accuracy on noisy examples, at 25% label noise",
    place="appendix A.3",
    experiments=("table3", "digits_fp"),
    published=PUBLISHED,
    table=TablePart(
        _fill,
        "Final training accuracy in % on the examples whose labels were replaced, that "
        "is, how much was memorised, at 25% label noise, in the runs of table 3.",
    ),
    claims=(
        Claim(
            "FP memorises fewer wrong labels than the baseline.",
            at_papers_noise(
                partial(
                    method_is_higher,
                    high="baseline",
                    low="fp",
                    quantity=QUANTITY,
                    factor=100,
                )
            ),
        ),
    ),
)
