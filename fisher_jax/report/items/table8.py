"""Table 8: what is learnt of right labels beside wrong ones."""

from fisher_jax.report.choose import Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, larger
from fisher_jax.report.shapes.memorisation import NOISE
from fisher_jax.report.shapes.method_table import NOISE_METHODS, method_table
from fisher_jax.report.values import by_seed


def _spares_clean(setting: Setting, runs: Runs) -> Decision | None:
    """Whether clean training accuracy is further above noisy with FP than without."""
    gaps = []
    for chosen in (setting.best(method).rows for method in ("fp", "baseline")):
        clean, noisy = (
            100 * chosen[f"final_train_{kind}_accuracy"].astype(float)
            for kind in ("clean", "noisy")
        )
        gaps.append(by_seed(chosen, clean - noisy))
    if not all(gaps):
        return None
    names = "clean above noisy with FP", "without"
    return larger(gaps[0], gaps[1], names=names)


ITEM = method_table(
    "Table 8",
    "Final training accuracy on clean examples, at 25% label noise",
    "appendix A.3",
    ("table3", "digits_fp"),
    columns=NOISE_METHODS,
    published={
        ("cifar100_vgg11", "0.25"): (99.79, 73.14, 97.46, 79.52, 81.75),
        ("cifar100_wide_resnet", "0.25"): (95.87, 77.71, 95.88, 78.72, 74.21),
    },
    quantities=("final_train_clean_accuracy",),
    noise=NOISE,
    caption=(
        "Final training accuracy in % on the examples whose labels were kept, at 25% "
        "label noise, in the runs of table 3."
    ),
    claims=(
        Claim(
            "FP lowers training accuracy less on clean examples than on noisy ones.",
            _spares_clean,
            NOISE,
        ),
    ),
)
