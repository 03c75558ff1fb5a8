"""How methods, data sets, networks and quantities are called, and in which order."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# The order is that of the paper's columns.
METHOD_NAMES: Mapping[str, str] = {
    "eta_star": "η*",
    "baseline": "Baseline",
    "mixup": "Mixup",
    "gp_x": "GP_x",
    "gp": "GP",
    "fp": "FP",
    "fp_single": "FP exact",
    "gp_r": "GP_r",
    "rfp": "RFP (ours)",
    "fp_groups": "FP in groups",
    "importance": "Importance (ours)",
    "rfp_groups": "RFP in groups (ours)",
    "importance_groups": "Importance in groups (ours)",
    "sam": "SAM",
    "gradient_norm": "Gradient norm",
}
# Of those that LaTeX writes otherwise.
_LATEX_NAMES = {
    "eta_star": r"$\eta^*$",
    "gp_x": r"GP$_\mathrm{x}$",
    "gp_r": r"GP$_\mathrm{r}$",
}


class Quantity(NamedTuple):
    """What a run's result holds: its key, how it is called, its factor (100 for %)."""

    key: str
    label: str
    factor: float = 1.0


QUANTITIES = (
    Quantity("test_accuracy", "test accuracy, %", 100),
    Quantity("best_test_accuracy", "best test, %", 100),
    Quantity("best_validation_accuracy", "best validation, %", 100),
    Quantity("test_accuracy_at_best_validation", "test at best validation, %", 100),
    Quantity("final_train_accuracy", "training accuracy, %", 100),
    Quantity("best_train_accuracy", "best training, %", 100),
    Quantity("final_train_clean_accuracy", "correct labels learnt, %", 100),
    Quantity("final_train_noisy_accuracy", "wrong labels memorised, %", 100),
    Quantity("max_fisher_trace", "peak Tr(F)"),
    Quantity("early_fisher_trace", "early Tr(F)"),
    Quantity("hessian_trace_at_best_test", "Tr(H) at best test"),
    Quantity("seconds_per_epoch", "seconds per epoch"),
)

# How Tr(F) is drawn.
DRAWS: Mapping[str, str] = {
    "labels": "sampled labels, as in the paper",
    "rademacher": "random signs",
    "importance": "labels by importance",
}

DATASETS: Mapping[str, str] = {
    "imagenet2012": "ImageNet",
    "tiny_imagenet": "TinyImageNet",
    "cifar100": "CIFAR-100",
    "cifar10": "CIFAR-10",
    "digits": "digits",
}

MODELS: Mapping[str, str] = {
    "wide_resnet": "WResNet",
    "densenet": "DenseNet",
    "vgg11": "VGG-11",
    "resnet": "ResNet",
    "fixup_resnet": "ResNet (Fixup)",
    "simple_cnn": "SimpleCNN",
}

# The settings of tables 1 and 2, "data set_network" by the names of their
# configurations, in the order of their rows; sweeps have shorter names for them.
SETTINGS = (
    "tiny_imagenet_wide_resnet",
    "cifar100_densenet",
    "cifar100_vgg11",
    "cifar100_wide_resnet",
    "cifar10_simple_cnn",
)

# From penalty.name and penalty.draw; a batch in groups is another method.
METHOD_OF_PENALTY = {
    ("fisher", "labels"): "fp",
    ("fisher", "rademacher"): "rfp",
    ("fisher", "importance"): "importance",
    ("fisher_single", "labels"): "fp_single",
    ("gradient", "labels"): "gp",
    ("random_label", "labels"): "gp_r",
    ("input_gradient", "labels"): "gp_x",
}


def method_label(method: str) -> str:
    """Returns the method's name in text; its own key for one not known here."""
    return METHOD_NAMES.get(method, method)


def method_latex(method: str) -> str | None:
    """Returns the method's name in LaTeX; None for one not known here."""
    return _LATEX_NAMES.get(method, METHOD_NAMES.get(method))


def in_method_order(methods: Iterable[str]) -> list[str]:
    """Sorts method keys as the paper's columns stand, each once."""
    return sorted(set(methods), key=lambda method: position(method, METHOD_NAMES))


def method_of(config: Mapping[str, Any], variant: str = "") -> str:
    """Returns a run's method from its flat configuration.

    Args:
        variant: the text after ``:`` in ``--config=FILE.py:variant``, which alone
            tells the learning rate η* from a tenth of it.
    """
    if config.get("mixup.beta"):
        return "mixup"
    if config.get("sam.radius"):
        return "sam"
    penalty = str(config.get("penalty.name", "none"))
    if penalty != "none" and config.get("penalty.coefficient") != 0:
        draw = str(config.get("penalty.draw", "labels"))
        in_groups = "_groups" if config.get("penalty.num_groups", 1) > 1 else ""
        return METHOD_OF_PENALTY.get((penalty, draw), penalty) + in_groups
    return "eta_star" if variant == "eta_star" else "baseline"


def setting_label(config: Mapping[str, Any]) -> str:
    """Returns "network / data set" as the paper writes it, with the depth if odd."""
    dataset = str(config.get("dataset.name", "?"))
    model = str(config.get("model.name", "?"))
    name = MODELS.get(model, model)
    depth = config.get("model.depth")
    if depth and model in ("resnet", "fixup_resnet"):
        name = name.replace("ResNet", f"ResNet-{depth}")
    return f"{name} / {DATASETS.get(dataset, dataset)}"


def position(name: str, order: Iterable[str]) -> tuple[int, str]:
    """Returns a sort key: known names in their order, others behind by alphabet."""
    keys = list(order)
    return (keys.index(name), "") if name in keys else (len(keys), name)
