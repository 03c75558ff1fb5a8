"""Table 4: the peak of Tr(F) in the runs of table 1."""

from functools import partial

from fisher_jax.report.canvas import ROOT_REASON
from fisher_jax.report.claims import Claim
from fisher_jax.report.names import method_label
from fisher_jax.report.rules import peak_is_lower
from fisher_jax.report.shapes.method_table import PENALTY_METHODS, method_table

ITEM = method_table(
    "Table 4",
    "Maximum of Tr(F) after epoch 1",
    "appendix A.2",
    ("table1", "cifar10_simplecnn_fp"),
    columns=PENALTY_METHODS,
    published={
        ("cifar100_densenet",): (24.68, 98.17, 83.64, 64.33, 66.24, 73.66),
        ("cifar100_vgg11",): (50.88, 148.19, 102.95, 58.53, 64.93, 62.96),
        ("cifar100_wide_resnet",): (26.21, 91.39, 41.43, 40.94, 56.53, 39.31),
        ("cifar10_simple_cnn",): (24.21, 52.05, 47.96, 25.03, 19.63, 25.35),
    },
    quantities=("max_fisher_trace",),
    with_root=True,
    caption=f"Maximum of Tr(F) after epoch 1 in the runs of table 1. {ROOT_REASON}",
    claims=tuple(
        Claim(
            f"{method_label(method)} lowers the peak of Tr(F).",
            partial(peak_is_lower, method=method, than="baseline"),
        )
        for method in ("gp_x", "gp", "fp", "gp_r")
    ),
)
