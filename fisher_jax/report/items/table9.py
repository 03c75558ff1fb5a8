"""Table 9: what is memorised of wrong labels."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.rules import method_is_higher
from fisher_jax.report.shapes.memorisation import NOISE
from fisher_jax.report.shapes.method_table import NOISE_METHODS, method_table

QUANTITY = "final_train_noisy_accuracy"


ITEM = method_table(
    "Table 9",
    "Final training accuracy on noisy examples, at 25% label noise",
    "appendix A.3",
    ("table3", "digits_fp"),
    columns=NOISE_METHODS,
    published={
        ("cifar100_vgg11", "0.25"): (99.56, 8.29, 89.23, 4.10, 4.96),
        ("cifar100_wide_resnet", "0.25"): (73.67, 4.22, 72.67, 4.14, 2.86),
    },
    quantities=(QUANTITY,),
    best="min",
    noise=NOISE,
    caption=(
        "Final training accuracy in % on the examples whose labels were replaced, that "
        "is, how much was memorised, at 25% label noise, in the runs of table 3."
    ),
    claims=(
        Claim(
            "FP memorises fewer wrong labels than the baseline.",
            partial(
                method_is_higher,
                high="baseline",
                low="fp",
                quantity=QUANTITY,
                factor=100,
            ),
            NOISE,
        ),
    ),
)
