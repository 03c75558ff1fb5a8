"""Table 8: what is learnt of right labels beside wrong ones."""

import pandas as pd

from fisher_jax.report.choose import Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, larger
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.rules import by_seed, chosen_runs
from fisher_jax.report.shapes.memorisation import NOISE, at_papers_noise
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
        rows[rows["noise"] == NOISE],
        runs,
        published=PUBLISHED,
        columns=NOISE_METHODS,
        quantities=("final_train_clean_accuracy",),
        factor=100,
        by_noise=True,
    )


def _spares_clean(setting: Setting, runs: Runs) -> Decision | None:
    """Whether clean training accuracy is further above noisy with FP than without."""
    gaps = []
    for chosen in (chosen_runs(setting, method) for method in ("fp", "baseline")):
        clean, noisy = (
            100 * chosen[f"final_train_{kind}_accuracy"].astype(float)
            for kind in ("clean", "noisy")
        )
        gaps.append(by_seed(chosen, clean - noisy))
    if not all(gaps):
        return None
    names = "clean above noisy with FP", "without"
    return larger(gaps[0], gaps[1], names=names)


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
    claims=(
        Claim(
            "FP lowers training accuracy less on clean examples than on noisy ones.",
            at_papers_noise(_spares_clean),
        ),
    ),
)
