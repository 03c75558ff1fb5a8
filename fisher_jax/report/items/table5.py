"""Table 5: the time of an epoch in the runs of table 1."""

from fisher_jax.report.choose import Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import HOLDS, Decision, ratio_below
from fisher_jax.report.rules import withheld
from fisher_jax.report.shapes.method_table import PENALTY_METHODS, method_table
from fisher_jax.report.values import by_seed

LARGEST_RATIO = 1.69  # of FP's published times to the baseline's


def _is_cheap(setting: Setting, runs: Runs) -> Decision | None:
    fp, baseline = (
        by_seed(chosen, chosen["seconds_per_epoch"])
        for chosen in (setting.best(m).rows for m in ("fp", "baseline"))
    )
    if not fp or not baseline:
        return None
    decision = ratio_below(fp, baseline, LARGEST_RATIO, names=("FP", "Baseline"))
    # A step with FP is a step without it and more.
    is_impossible = ratio_below(fp, baseline, 1.0).status == HOLDS
    disturbed = "other work ran beside the baseline, or FP could not be the faster"
    return withheld(decision, disturbed if is_impossible else "")


ITEM = method_table(
    "Table 5",
    "Seconds per epoch",
    "appendix A.2",
    ("table1", "cifar10_simplecnn_fp"),
    columns=PENALTY_METHODS,
    published={
        ("tiny_imagenet_wide_resnet",): (
            *(214.45, 142.69, 233.14),
            *(143.78, 208.62, 371.74),
        ),
        ("cifar100_densenet",): (78.88, 57.40, 77.89, 78.66, 97.25, 75.96),
        ("cifar100_vgg11",): (30.50, 35.27, 31.54, 32.52, 43.41, 42.40),
        ("cifar100_wide_resnet",): (49.64, 47.99, 71.33, 61.36, 76.93, 53.25),
        ("cifar10_simple_cnn",): (18.64, 19.51, 26.09, 19.91, 21.21, 20.55),
    },
    quantities=("seconds_per_epoch",),
    caption=(
        "Seconds of training per epoch in the runs of table 1, measuring left out; "
        "devices differ from the paper's, so only ratios within a row compare."
    ),
    claims=(
        Claim(
            "FP costs at most 1.69 times the baseline's time, as in the paper.",
            _is_cheap,
        ),
    ),
)
