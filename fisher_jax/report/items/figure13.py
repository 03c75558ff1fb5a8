"""Figure 13: high or low regularisation in the first epochs only, cifar10."""

from fisher_jax.report.shapes.two_phase import TwoPhase, two_phase_item

ITEM = two_phase_item(
    "Figure 13",
    "appendix A.4",
    varied="batch_size",
    high="A small early batch",
    dataset="cifar10",
    published={
        "high": TwoPhase(390, (730, 900), 88.7),
        "low": TwoPhase(1500, (1200, 1800), 87.6),
    },
)
