"""Table 6: final training accuracy in the runs of table 1."""

from functools import partial

from fisher_jax.report.choose import REFERENCES
from fisher_jax.report.claims import Claim
from fisher_jax.report.rules import method_is_higher, most_fit
from fisher_jax.report.shapes.method_table import PENALTY_METHODS, method_table

NO_LOWER = 0.5  # percentage points: what counts as no lower, in the paper 0.01


ITEM = method_table(
    "Table 6",
    "Final training accuracy",
    "appendix A.2",
    ("table1", "cifar10_simplecnn_fp"),
    columns=PENALTY_METHODS,
    published={
        ("tiny_imagenet_wide_resnet",): (99.84, 99.96, 99.97, 93.84, 81.05, 86.46),
        ("cifar100_densenet",): (99.98, 99.97, 99.96, 99.91, 99.91, 99.39),
        ("cifar100_vgg11",): (99.98, 99.98, 99.85, 99.62, 97.73, 86.32),
        ("cifar100_wide_resnet",): (99.98, 99.98, 99.97, 99.96, 99.99, 99.94),
        ("cifar10_simple_cnn",): (100.0, 100.0, 97.79, 100.0, 93.80, 94.64),
    },
    quantities=("final_train_accuracy",),
    caption="Final training accuracy in % in the runs of table 1.",
    claims=(
        Claim(
            "Without a penalty most runs end near 100% training accuracy.",
            partial(most_fit, quantity="final_train_accuracy", methods=REFERENCES),
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
