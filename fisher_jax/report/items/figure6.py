"""Figure 6: high or low regularisation in the first epochs only, cifar100."""

from fisher_jax.report.shapes.two_phase import TwoPhase, two_phase_item

ITEM = two_phase_item(
    "Figure 6",
    "section 5",
    varied="learning_rate",
    high="A high early learning rate",
    dataset="cifar100",
    published={
        "high": TwoPhase(1230, (1200, 1350), 55.0),
        "low": TwoPhase(2720, (3100, 4200), 49.0),
    },
)
