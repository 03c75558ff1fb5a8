"""Every experiment at the paper's scale against the paper, value by value.

The table below is written from the paper and not from the code: for each figure, table
and setting the section that states a value, the configuration key and the value. What
the paper leaves open or contradicts is in the table too, as open with our reading. A
key that a table does not name must have its default in every run.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import experiments
from experiments import base
from fisher_jax.run_files import flatten

Run = dict[str, Any]  # a flat configuration, sequences as tuples


class Row(NamedTuple):
    """One value: where the paper states it, or how we read what it leaves open."""

    section: str  # "" = open
    key: str
    value: Any
    reading: str = ""


class Each(tuple):
    """A grid: over an item's runs the key takes each of these values."""


class Item(NamedTuple):
    """The runs of one line, column or point, and all that is said of them."""

    name: str
    experiment: str  # the file
    rows: Mapping[str, Row]
    selected: Mapping[str, Any]  # labels of its runs: setting, method, stage, group


def stated(section: str, key: str, value: Any) -> Row:
    return Row(section, key, value)


def opened(key: str, value: Any, reading: str) -> Row:
    assert reading
    return Row("", key, value, reading)


def each(*values: Any) -> Each:
    return Each(values)


def log_grid(low: float, high: float, count: int) -> Each:
    """Uniformly spaced on a logarithmic scale, at 6 digits."""
    return each(*(float(f"{value:.6g}") for value in np.geomspace(low, high, count)))


def rows_of(*parts: Row | Mapping[str, Row]) -> dict[str, Row]:
    """The rows by key; a later one replaces an earlier one."""
    rows: dict[str, Row] = {}
    for part in parts:
        rows |= {part.key: part} if isinstance(part, Row) else part
    return rows


# ---------------------------------------------------------------- what all share

COMMON = rows_of(
    stated("I.1, I.2, I.4", "optimizer.momentum", 0.9),
    stated("4.1", "dataset.label_noise", 0.0),
    opened("dataset.num_train", None, "all examples that are not held out"),
    stated("5", "train.init_from", None),
    opened("model.compute_dtype", "float32", "PyTorch's and TensorFlow's default"),
    opened("model.padding", None, "Keras's own example"),
    *(
        stated("I", f"model.{key}", None)
        for key in ("depth", "width", "growth_rate", "normalisation")
    ),
    # Without a penalty, unless a row below switches one on.
    stated("4", "penalty.name", "none"),
    stated("4", "penalty.coefficient", 0.0),
    stated("C", "penalty.draw", "labels"),
    stated("C", "penalty.update_every", 10),
    stated("C", "penalty.num_examples", None),
    stated("4", "penalty.start_epoch", 0),
    opened("penalty.batch_norm", "train", "the pass that trains"),
    opened("penalty.method", "exact", "the gradient itself"),
    stated("4.1", "mixup.beta", 0.0),
    stated("4", "sam.radius", 0.0),
    # Tr(F) as defined: the mean of per-example squared norms, labels from the model.
    stated("2, C", "measure.fisher_estimator", "per_example"),
    stated("2", "measure.fisher_draw", "labels"),
    opened("measure.every_epochs", 1, "curves against epochs"),
    stated("D, E", "measure.every_steps", 0),
    opened("measure.train_examples", None, "accuracy of the whole training set"),
    stated("B", "measure.hessian_probes", 0),
    opened("measure.hessian_every_epochs", 1, "with every record, where it is on"),
    opened("measure.hessian_examples", 128, "one batch, where it is on"),
    opened("measure.gradient_examples", 500, "of no use without noisy labels"),
    opened("measure.estimator_repeats", 0, "not in the paper"),
    stated("I.2", "eval.reestimate_batch_norm", 0),
    opened("seed", (0,), "one run"),
)
THREE_SEEDS = opened("seed", (1, 2, 3), "how many is not said; not the search's")

# -------------------------------------------------- sections 3 and 5: I.1 and I.4

RESNET26 = rows_of(
    stated("3", "model.name", "resnet"),
    stated("3", "model.depth", 26),
    # No batch normalisation, initialised as by Arpit et al. 2019.
    stated("I.1, I.4", "model.normalisation", "weight_norm"),
    stated("I.1, I.4", "optimizer.weight_decay", 1e-5),
    stated("I.1, I.4", "optimizer.decay_factor", 0.5),
    stated("I.1, I.4", "measure.fisher_examples", 5000),
    opened("dataset.num_validation", 0, "none is mentioned, test accuracy is shown"),
)
CIFAR10 = rows_of(
    RESNET26,
    stated("I.1, I.4", "dataset.name", "cifar10"),
    stated("I.1, I.4", "dataset.augment", "flip"),
    stated("3, I.1", "measure.early_loss", 1.2),
)
CIFAR100 = rows_of(
    RESNET26,
    stated("I.1, I.4", "dataset.name", "cifar100"),
    stated("I.1, I.4", "dataset.augment", "none"),
    stated("3, I.1", "measure.early_loss", 3.5),
)
I1 = rows_of(
    stated("I.1", "optimizer.decay_epochs", (60, 120, 170)),
    stated("I.1", "train.num_epochs", 200),
    stated("I.1", "seed", tuple(range(32))),
)
I4 = rows_of(
    stated("I.4", "optimizer.decay_epochs", (80, 150, 200)),
    stated("I.4", "train.num_epochs", 250),
    stated("I.4", "seed", tuple(range(32))),
    stated("B", "measure.hessian_probes", 30),
    opened("measure.hessian_examples", 1000, "a number whose Tr(H) is stable"),
)
IMAGENET = rows_of(
    stated("I.1", "dataset.name", "imagenet2012"),
    stated("I.1", "dataset.augment", "none"),
    opened("dataset.num_validation", 0, "none is mentioned"),
    opened("dataset.resize_size", 256, "as ImageNet is usually evaluated"),
    opened("dataset.crop_size", 224, "as ImageNet is usually evaluated"),
    stated("3, I.1", "model.name", "fixup_resnet"),
    stated("I.1", "train.batch_size", 256),
    stated("I.1", "optimizer.weight_decay", 1e-4),
    stated("I.1", "optimizer.decay_factor", 0.1),
    stated("I.1", "optimizer.decay_epochs", (29,)),
    stated("I.1", "train.num_epochs", 50),
    stated("I.1", "measure.fisher_examples", 2500),
    stated("3", "measure.early_loss", 3.5),
    opened("measure.train_examples", 50_000, "reading all of them costs an epoch"),
)


def early_items() -> Iterator[Item]:
    """Figures 2 and 8, 7 and 9, and the files of their settings."""
    rates = {
        "cifar10": (
            rows_of(CIFAR10, I1, stated("I.1", "train.batch_size", 256)),
            each(0.007, 0.01, 0.05),
        ),
        "cifar100": (
            rows_of(CIFAR100, I1, stated("I.1", "train.batch_size", 100)),
            each(0.005, 0.001, 0.01),
        ),
    }
    for name, (rows, grid) in rates.items():
        rate = stated("I.1", "optimizer.learning_rate", grid)
        setting = f"{name}_resnet26"
        yield item(f"figures 2, 8: {name}", "fig02", rows, rate, setting=setting)
        largest = stated("I.1", "optimizer.learning_rate", max(grid))
        one = opened("seed", (0,), "a single run of the setting")
        yield item(name, "cifar_resnet26", rows, largest, one, variant=name)
    rate = stated("I.1", "optimizer.learning_rate", each(0.001, 0.01, 0.1))
    two = stated("I.1", "seed", (0, 1))
    yield item(
        "figures 2, 8: imagenet", "fig02", IMAGENET, rate, two,
        setting="imagenet_resnet18",
    )  # fmt: skip
    for value in rate.value:
        rate = stated("I.1", "optimizer.learning_rate", value)
        variant = f"eta_{value}"
        yield item(variant, "imagenet_resnet18_fixup", IMAGENET, rate, variant=variant)
    rate = stated("I.1", "optimizer.learning_rate", 0.02)
    for name, rows, sizes in (
        ("cifar10", CIFAR10, each(100, 500, 700)),
        ("cifar100", CIFAR100, each(100, 300, 700)),
    ):
        size = stated("I.1", "train.batch_size", sizes)
        setting = f"{name}_resnet26"
        yield item(
            f"figures 7, 9: {name}", "fig07", rows, I1, rate, size, setting=setting
        )


def late_items() -> Iterator[Item]:
    """Figures 14, 6 and 13."""
    every_ten = stated("A.4", "measure.hessian_every_epochs", 10)
    yield item(
        "figure 14: cifar10", "fig14", CIFAR10, I4, every_ten,
        stated("I.4", "optimizer.learning_rate", 0.02),
        stated("A.4", "train.batch_size", each(480, 500, 520, 80, 100, 120)),
        setting="cifar10_resnet26",
    )  # fmt: skip
    yield item(
        "figure 14: cifar100", "fig14", CIFAR100, I4, every_ten,
        stated("I.4", "train.batch_size", 100),
        stated("A.4", "optimizer.learning_rate",
               each(0.0008, 0.001, 0.0012, 0.008, 0.01, 0.012)),
        setting="cifar100_resnet26",
    )  # fmt: skip
    pairs = {
        "figure 6": ("cifar100", CIFAR100, {
            "high": (opened("optimizer.learning_rate", 0.01, "from figure 14"),
                     stated("I.4", "train.batch_size", 100)),
            "low": (opened("optimizer.learning_rate", 0.001, "from figure 14"),
                    stated("I.4", "train.batch_size", 100)),
        }),
        "figure 13": ("cifar10", CIFAR10, {
            "high": (stated("I.4", "optimizer.learning_rate", 0.02),
                     opened("train.batch_size", 100, "from figure 14")),
            "low": (stated("I.4", "optimizer.learning_rate", 0.02),
                    opened("train.batch_size", 500, "from figure 14")),
        }),
    }  # fmt: skip
    for name, (data, rows, configurations) in pairs.items():
        setting = f"{data}_resnet26"
        for early, values in configurations.items():
            yield item(
                f"{name}: 20 epochs, {early}", "fig06", rows, I4, *values,
                stated("5, A.4", "train.num_epochs", 20),
                stated("A.4", "seed", (0,)),
                setting=setting, phase="early", early=early,
            )  # fmt: skip
            start = f"OUT/{setting}-baseline-phase_early-early_{early}-seed_0"
            yield item(
                f"{name}: continued after {early}", "fig06", rows, I4,
                *configurations["low"],
                stated("5, A.4", "train.init_from", start),
                opened("train.num_epochs", 230, "the 20 epochs count"),
                opened("optimizer.decay_epochs", (60, 130, 180), "the 20 count"),
                stated("5", "seed", tuple(range(1, 9))),
                setting=setting, phase="continued", early=early,
            )  # fmt: skip


# --------------------------------------------------------- section 4: I.2 and I.3

SECTION_4 = rows_of(
    stated("I.2", "train.batch_size", 128),
    stated("I.2", "train.num_epochs", 300),
    stated("I.2", "optimizer.decay_factor", 0.1),
    stated("I.2", "optimizer.decay_epochs", (150, 225)),
    stated("I.2", "measure.fisher_examples", 128),  # as many as the batch
    stated("table 1", "dataset.augment", "none"),
)
CIFAR100_ERROR = opened("measure.early_loss", 3.5, "not drawn in section 4")
CIFAR10_ERROR = opened("measure.early_loss", 1.2, "not drawn in section 4")
DENSENET = rows_of(
    SECTION_4,
    CIFAR100_ERROR,
    stated("I.2", "dataset.name", "cifar100"),
    stated("I.2", "dataset.num_validation", 5000),
    stated("I.2", "model.name", "densenet"),
    stated("I.2", "model.depth", 40),
    stated("I.2", "model.growth_rate", 12),
    stated("I.2", "optimizer.weight_decay", 1e-4),
    stated("I.2", "eval.reestimate_batch_norm", 100),
)
WRESNET = rows_of(
    SECTION_4,
    CIFAR100_ERROR,
    stated("I.2", "dataset.name", "cifar100"),
    stated("I.2", "dataset.num_validation", 5000),
    stated("I.2", "model.name", "wide_resnet"),
    stated("I.2", "model.depth", 44),
    stated("I.2", "model.width", 3),
    stated("I.2", "model.normalisation", "skip_init"),
    stated("I.2", "optimizer.weight_decay", 1e-3),
)
VGG11 = rows_of(
    SECTION_4,
    CIFAR100_ERROR,
    stated("I.2", "dataset.name", "cifar100"),
    stated("I.2", "dataset.num_validation", 5000),
    stated("I.2", "model.name", "vgg11"),
    stated("I.2", "optimizer.weight_decay", 1e-4),
    stated("I.2", "optimizer.decay_epochs", (80, 120, 160, 200, 240, 280)),
)
SIMPLE_CNN = rows_of(
    SECTION_4,
    CIFAR10_ERROR,
    stated("I.2", "dataset.name", "cifar10"),
    opened("dataset.num_validation", 5000, "as in the settings on CIFAR-100"),
    stated("I.2", "model.name", "simple_cnn"),
    opened("optimizer.weight_decay", 0.0, "none is mentioned"),
)
TINY_IMAGENET = rows_of(
    SECTION_4,
    CIFAR100_ERROR,
    stated("I.2", "dataset.name", "tiny_imagenet"),
    stated("I.2", "dataset.num_validation", 0),
    stated("table 1", "dataset.augment", "standard"),
    stated("I.2", "model.name", "wide_resnet"),
    stated("I.2", "model.depth", 44),
    stated("I.2", "model.width", 3),
    stated("I.2", "model.normalisation", "batch_norm"),
    stated("I.2", "optimizer.weight_decay", 1e-4),
    stated("I.2", "eval.reestimate_batch_norm", 100),
)
FP = rows_of(
    stated("4", "penalty.name", "fisher"),
    stated("C", "penalty.update_every", 10),
)
OTHER_PENALTIES_EVERY = opened("penalty.update_every", 10, "as FP")
PENALTIES = {
    "fp": FP,
    "gp": rows_of(stated("4", "penalty.name", "gradient"), OTHER_PENALTIES_EVERY),
    "gp_r": rows_of(stated("4", "penalty.name", "random_label"), OTHER_PENALTIES_EVERY),
    "gp_x": rows_of(
        stated("4", "penalty.name", "input_gradient"), OTHER_PENALTIES_EVERY
    ),
}


class Setting(NamedTuple):
    """A row of tables 1 and 2."""

    name: str
    file: str
    rows: Mapping[str, Row]
    eta_star: Row
    baseline: Row
    slow: Row  # of the sweeps: eta* divided
    num_coefficients: int = 10


def _setting(name: str, file: str, rows: Mapping[str, Row], eta_star: float) -> Setting:
    reading = "of the grid from 1e-2 to 1e0; the search decides"
    best = opened("optimizer.learning_rate", eta_star, reading)
    slow = stated("I.2", "optimizer.learning_rate", eta_star / 10)
    return Setting(name, file, rows, best, slow, slow)


SIMPLE_CNN_SETTING = _setting(
    "cifar10_simplecnn", "cifar10_simplecnn_fp", SIMPLE_CNN, 0.0316
)
DENSENET_SETTING = _setting("cifar100_densenet", "cifar100_densenet_fp", DENSENET, 0.1)
VGG11_SETTING = _setting("cifar100_vgg11", "cifar100_vgg11_fp", VGG11, 0.0316)
WRESNET_SETTING = _setting("cifar100_wresnet", "cifar100_wresnet_fp", WRESNET, 0.0316)
TINY_IMAGENET_SETTING = Setting(
    "tinyimagenet_wresnet",
    "tinyimagenet_fp",
    TINY_IMAGENET,
    stated("figure 1", "optimizer.learning_rate", 0.0316),
    stated("figure 1", "optimizer.learning_rate", 0.001),
    stated("I.2", "optimizer.learning_rate", 0.0316 / 30),
    num_coefficients=5,
)
SETTINGS = (
    TINY_IMAGENET_SETTING,
    DENSENET_SETTING,
    VGG11_SETTING,
    WRESNET_SETTING,
    SIMPLE_CNN_SETTING,
)
RATE_GRID = stated("I.2", "optimizer.learning_rate", log_grid(1e-2, 1e0, 5))
CENTRE = opened("penalty.coefficient", 0.01, "the centre of the grid, v")
INPUT_CENTRE = opened("penalty.coefficient", 1.0, "GP_x wants a larger v")
AUGMENTED = stated("table 2", "dataset.augment", "standard")
SEARCHED_ONCE = stated("I.2", "seed", (0,))


def coefficients(setting: Setting, method: str) -> tuple[Row, Row]:
    """The grid of alpha, and what is taken where it is not searched."""
    where = "I.2" if setting.num_coefficients == 10 else "4"
    if method == "gp_x":
        grid = log_grid(1e-1, 1e1, setting.num_coefficients)
        reading = "0.1 v to 10 v with v = 1"
        return opened("penalty.coefficient", grid, reading), INPUT_CENTRE
    grid = log_grid(1e-3, 1e-1, setting.num_coefficients)
    return stated(where, "penalty.coefficient", grid), CENTRE


def setting_items() -> Iterator[Item]:
    """The settings' own files: a run for each column of tables 1 and 2."""
    for setting in SETTINGS:
        plain = {"eta_star": setting.eta_star, "baseline": setting.baseline}
        for variant, rate in plain.items():
            yield item(variant, setting.file, setting.rows, rate, variant=variant)
        for variant, penalty in PENALTIES.items():
            _, alpha = coefficients(setting, variant)
            yield item(
                variant, setting.file, setting.rows, setting.baseline, penalty, alpha,
                variant=variant,
            )  # fmt: skip
        augmented = (setting.rows, setting.eta_star, AUGMENTED)
        if setting is TINY_IMAGENET_SETTING:  # whose table 1 is augmented too
            yield item("table 2: FP", setting.file, *augmented, FP, CENTRE,
                       variant="fp_eta_star")  # fmt: skip
            continue
        yield item("table 2", setting.file, *augmented, variant="eta_star_augmented")
        yield item("table 2: FP", setting.file, *augmented, FP, CENTRE,
                   variant="fp_augmented")  # fmt: skip


def table_1_items() -> Iterator[Item]:
    """Tables 1, 4, 5 and 6, figures 4 and 10."""
    for setting in SETTINGS:
        where = {"experiment": "table1", "setting": setting.name}
        yield item("table 1: search of eta*", rows=[setting.rows, RATE_GRID],
                   method="eta_star", stage="search", **where)  # fmt: skip
        for method, rate in (
            ("eta_star", setting.eta_star),
            ("baseline", setting.slow),
        ):
            yield item(f"table 1: {method}", rows=[setting.rows, rate, THREE_SEEDS],
                       method=method, stage="final", **where)  # fmt: skip
        for method, penalty in PENALTIES.items():
            yield from _searched(
                f"table 1: {method}", [setting.rows, setting.slow, penalty],
                coefficients(setting, method), method=method, **where,
            )  # fmt: skip


def table_2_items() -> Iterator[Item]:
    """Tables 2 and 7."""
    for setting in SETTINGS:
        rows = [setting.rows, AUGMENTED]
        where = {"experiment": "table2", "setting": setting.name}
        yield item("table 2: search of eta*", rows=[*rows, RATE_GRID],
                   method="eta_star", stage="search", **where)  # fmt: skip
        rows = [*rows, setting.eta_star]
        yield item("table 2: eta*", rows=[*rows, THREE_SEEDS],
                   method="eta_star", stage="final", **where)  # fmt: skip
        yield from _searched("table 2: FP", [*rows, FP], coefficients(setting, "fp"),
                             method="fp", **where)  # fmt: skip


def table_3_items() -> Iterator[Item]:
    """Tables 3, 8 and 9, figures 5, 11 and 12."""
    # The main part's 6 log-spaced values and the appendix's four.
    both = (*log_grid(0.01, 10, 6), 0.1, 0.31)
    alpha = opened("penalty.coefficient", each(*both), "the union of both")
    middle = opened("penalty.coefficient", 0.31, "the appendix's third value")
    grids = {
        "fp": (alpha, middle),
        "gp_r": (alpha, middle),
        "gp_x": (
            stated("I.3", "penalty.coefficient", each(10, 30, 100, 300, 1000)),
            opened("penalty.coefficient", 100.0, "the middle"),
        ),
        "mixup": (
            opened("mixup.beta", each(0.2, 0.4, 0.8, 1.6, 3.2, 6.4), "with 4.1's 0.2"),
            opened("mixup.beta", 1.6, "the middle"),
        ),
    }
    for setting in (VGG11_SETTING, WRESNET_SETTING):
        for noise in (0.25, 0.5):
            rows = [
                setting.rows,
                stated("I.3", "optimizer.weight_decay", 0.0),
                stated("4.1", "dataset.label_noise", noise),
                opened("dataset.augment", "none", "as in table 1"),
                opened("measure.gradient_examples", 128, "a minibatch of each"),
                opened("optimizer.learning_rate", setting.eta_star.value, "eta*"),
            ]
            where = {"experiment": "table3", "setting": setting.name, "noise": noise}
            yield item("table 3: baseline", rows=[*rows, THREE_SEEDS],
                       method="baseline", **where)  # fmt: skip
            for method, (grid, reading) in grids.items():
                penalty = PENALTIES.get(method, {})
                yield from _searched(
                    f"table 3: {method}",
                    [*rows, penalty],
                    (grid, reading),
                    method=method,
                    **where,
                )
            if noise == 0.25:
                where = {
                    "experiment": "fig05",
                    "setting": f"{setting.name}_strengths",
                }
                yield item("figures 5, 11, 12: baseline", rows=[*rows, THREE_SEEDS],
                           method="baseline", **where)  # fmt: skip
                for method in ("fp", "gp_r"):
                    yield item(
                        f"figures 5, 11, 12: {method}",
                        rows=[*rows, PENALTIES[method], alpha, THREE_SEEDS],
                        method=method,
                        **where,
                    )


def _searched(
    name: str, rows: list[Any], grid_and_reading: tuple[Row, Row], **where: Any
) -> Iterator[Item]:
    grid, reading = grid_and_reading
    yield item(f"{name}, search", rows=[*rows, grid], stage="search", **where)
    yield item(name, rows=[*rows, reading, THREE_SEEDS], stage="final", **where)


# ------------------------------------------- figures 1 and 3, and appendices C to F


def other_items() -> Iterator[Item]:
    for method, rate in (
        ("eta_star", TINY_IMAGENET_SETTING.eta_star),
        ("baseline", TINY_IMAGENET_SETTING.baseline),
    ):
        yield item(f"figure 1: {method}", "fig01", TINY_IMAGENET, rate, THREE_SEEDS,
                   method=method)  # fmt: skip
    onsets = stated("4", "penalty.start_epoch", each(1, 2, 4, 8, 16, 32, 64, 128))
    for setting in (
        WRESNET_SETTING,
        VGG11_SETTING,
        SIMPLE_CNN_SETTING,
        DENSENET_SETTING,
    ):
        where = {"experiment": "fig03", "setting": setting.name}
        for method, rate in (
            ("eta_star", setting.eta_star),
            ("baseline", setting.slow),
        ):
            yield item(f"figure 3: {method}", rows=[setting.rows, rate, THREE_SEEDS],
                       method=method, **where)  # fmt: skip
        rows = [setting.rows, setting.slow, FP, CENTRE, onsets, THREE_SEEDS]
        yield item("figure 3: FP", rows=rows, method="fp", **where)
    spacing = "log-spaced, as all grids of the paper"
    yield item(
        "figure 15", "fig15", SIMPLE_CNN, THREE_SEEDS,
        opened("optimizer.learning_rate", log_grid(1e-3, 1e-1, 5), spacing),
    )  # fmt: skip
    slow = opened("optimizer.learning_rate", 0.0316 / 10, "table 1's, eta*/10")
    yield item(
        "figure 16", "fig16", SIMPLE_CNN, FP, slow, THREE_SEEDS,
        stated("C", "penalty.update_every", each(10, 1)),
        stated("C", "penalty.coefficient", log_grid(1e-2, 1e0, 10)),
    )  # fmt: skip
    yield item(
        "figure 17", "fig17", SIMPLE_CNN, slow, THREE_SEEDS,
        stated("C", "penalty.name", "fisher_single"),
        stated("C", "penalty.update_every", 1),
        stated("C", "penalty.coefficient", log_grid(1e-4, 1e-2, 10)),
    )  # fmt: skip
    each_step = rows_of(
        stated("D, E", "measure.every_steps", 1),
        stated("D, E", "measure.fisher_examples", 128),
        opened("train.num_epochs", 50, "past the small rate's peak"),
        THREE_SEEDS,
    )
    rates = opened(
        "optimizer.learning_rate", each(0.0316, 0.0316 / 10), "table 1's two"
    )
    yield item("figure 18", "fig18", SIMPLE_CNN, each_step, rates)
    yield item(
        "figure 19", "fig19", SIMPLE_CNN, each_step,
        opened("optimizer.learning_rate", 0.0316, "eta*"),
        opened("train.batch_size", each(32, 128, 512), "table 1's, a quarter, 4 times"),
    )  # fmt: skip
    yield from _figure_20()
    yield from _figure_21()


def _figure_20() -> Iterator[Item]:
    # "The number of examples equal to the batch size used in training" is said of
    # section 4; whether it holds in appendix E is open.
    as_many = opened("measure.fisher_examples", 1280, "as many as the batch")
    large = rows_of(stated("E", "train.batch_size", 1280), as_many)
    same = SIMPLE_CNN_SETTING.eta_star
    half = stated("E", "optimizer.learning_rate", 0.0316 / 2)
    for name, method, rows, group in (
        ("batch 128", "eta_star", {}, {"batch_size": 128, "learning_rate": "eta_star"}),
        ("batch 1280", "baseline", large,
         {"batch_size": 1280, "learning_rate": "eta_star"}),
        ("half the rate", "baseline", rows_of(large, half),
         {"batch_size": 1280, "learning_rate": "half"}),
    ):  # fmt: skip
        yield item(f"figure 20: {name}", "fig20", SIMPLE_CNN, same, rows, THREE_SEEDS,
                   method=method, **group)  # fmt: skip
    fp = rows_of(
        large,
        half,
        FP,
        stated("E", "penalty.update_every", 1),
        stated("E", "penalty.num_examples", 128),
    )
    grid = opened("penalty.coefficient", log_grid(1e-3, 1e-1, 10), "table 1's grid")
    yield from _searched("figure 20: FP", [SIMPLE_CNN, fp], (grid, CENTRE),
                         experiment="fig20", method="fp")  # fmt: skip


def _figure_21() -> Iterator[Item]:
    both = rows_of(
        stated("B", "measure.hessian_probes", 30),
        stated("F", "measure.fisher_examples", 128),
        opened("measure.hessian_examples", 128, "the same minibatch"),
        THREE_SEEDS,
    )
    slow = "the setting's baseline"
    for name, rows, rate in (
        ("cifar100_densenet", DENSENET, 0.01),
        ("cifar10_simplecnn", SIMPLE_CNN, 0.0316 / 10),
    ):
        rate_row = opened("optimizer.learning_rate", rate, slow)
        yield item("figure 21", "fig21", rows, both, rate_row, setting=name)
    yield item(
        "figure 21", "fig21", SIMPLE_CNN, both,
        stated("F", "model.name", "resnet"),
        stated("F", "model.depth", 56),
        opened("model.normalisation", "batch_norm", "He et al. 2016"),
        opened("optimizer.weight_decay", 1e-4, "He et al. 2016"),
        opened("eval.reestimate_batch_norm", 100, "as the others with batch norm"),
        opened("optimizer.learning_rate", 0.0316 / 10, slow),
        setting="cifar10_resnet56",
    )  # fmt: skip


def item(
    name: str,
    experiment: str,
    *parts: Row | Mapping[str, Row],
    rows: Sequence[Row | Mapping[str, Row]] = (),
    **selected: Any,
) -> Item:
    return Item(name, experiment, rows_of(COMMON, *parts, *rows), selected)


FILES = {path.stem for path in Path(experiments.__path__[0]).glob("*.py")}
# Of what the paper has; an experiment that is removed is no longer asked for.
TABLE = tuple(
    entry
    for entry in (
        *early_items(),
        *late_items(),
        *setting_items(),
        *table_1_items(),
        *table_2_items(),
        *table_3_items(),
        *other_items(),
    )
    if entry.experiment in FILES
)

# What an item needs beside the paper: data on disk, memory, files of the run.
_OURS = frozenset(
    ("tracker", "dataset.data_dir", "dataset.decode_threads", "dataset.num_workers",
     "dataset.read_ahead", "train.deterministic", "measure.batch_size",
     "measure.chunk_size", "checkpoint.every_epochs", "checkpoint.min_seconds",
     "checkpoint.keep")
)  # fmt: skip
# What the others share, digits, and what goes beyond the paper.
_NOT_PAPER = frozenset(
    ("__init__", "base", "methods", "settings", "sweeps", "digits_fp", "beyond_rfp",
     "beyond_estimators", "beyond_stale")
)  # fmt: skip


def runs_of(entry: Item) -> list[Run]:
    """The item's runs as the experiment's file defines them."""
    if "variant" in entry.selected:
        module = importlib.import_module(f"experiments.{entry.experiment}")
        return [_flat(module.get_config(entry.selected["variant"]))]
    runs = labelled_runs(entry.experiment)
    return [run for labels, run in runs if entry.selected.items() <= labels.items()]


@cache
def labelled_runs(experiment: str) -> list[tuple[dict[str, Any], Run]]:
    """All runs of an experiment with their labels."""
    module = importlib.import_module(f"experiments.{experiment}")
    return [
        (
            {
                **run.group,
                "setting": run.setting,
                "method": run.method,
                "stage": "search" if run.search else "final",
            },
            _flat(run.config),
        )
        for run in module.get_runs("")
    ]


def _flat(config: Any) -> Run:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in flatten(config.to_dict()).items()
    }


DEFAULTS = _flat(base.get_config())


def problems(entry: Item, runs: Sequence[Run]) -> list[str]:
    """What in these runs is not as the table says."""
    found = []
    for key, default in DEFAULTS.items():
        row = entry.rows.get(key)
        values = {run[key] for run in runs}
        if key == "seed" or (key in _OURS and row is None):
            continue
        expected = default if row is None else row.value
        wanted = set(expected) if isinstance(expected, Each) else {expected}
        if values != wanted:
            found.append(f"{key}: {sorted(map(str, values))} for {expected}")
    # The full product of the grids, each point once with each of the seeds.
    seeds = entry.rows["seed"].value
    points: dict[tuple, list[int]] = {}
    for run in runs:
        point = tuple(value for key, value in run.items() if key != "seed")
        points.setdefault(point, []).append(run["seed"])
    grids = [row.value for row in entry.rows.values() if isinstance(row.value, Each)]
    if len(points) != np.prod([len(set(grid)) for grid in grids], dtype=int):
        found.append(f"{len(points)} settings for grids {grids}")
    if any(tuple(sorted(of_point)) != seeds for of_point in points.values()):
        found.append(f"seeds: {list(points.values())} for {seeds}")
    return found


def changed(value: Any) -> Any:
    """Another value than this one, or any that stands in the table's grids."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 1.7 * value + 1
    if isinstance(value, tuple):
        return (*value, 999)
    return f"not {value}"


def title(entry: Item) -> str:
    words = [entry.experiment, entry.name]
    words += [str(entry.selected[key]) for key in ("setting", "noise", "variant")
              if key in entry.selected]  # fmt: skip
    return " ".join(words).replace("*", "")


@pytest.mark.parametrize("entry", TABLE, ids=title)
def test_the_experiment_is_the_papers(entry):
    assert problems(entry, runs_of(entry)) == []


@pytest.mark.parametrize("entry", TABLE, ids=title)
def test_any_other_value_would_be_seen(entry):
    runs = runs_of(entry)
    for key in DEFAULTS.keys() - (_OURS - entry.rows.keys()):
        for index in {0, len(runs) - 1}:
            other = [dict(run) for run in runs]
            other[index][key] = changed(other[index][key])
            assert problems(entry, other), (key, other[index][key])
    assert problems(entry, runs[1:])
    assert problems(entry, [*runs, runs[0]])


def test_every_row_is_of_a_key_and_says_why():
    for entry in TABLE:
        assert entry.rows.keys() <= DEFAULTS.keys()
        assert all(row.section or row.reading for row in entry.rows.values())


def test_every_experiment_of_the_paper_is_in_the_table():
    assert {entry.experiment for entry in TABLE} == FILES - _NOT_PAPER


@pytest.mark.parametrize(
    "name", sorted({e.experiment for e in TABLE if "variant" not in e.selected})
)
def test_every_run_is_in_the_table(name):
    entries = [entry for entry in TABLE if entry.experiment == name]
    assert sum(len(runs_of(entry)) for entry in entries) == len(labelled_runs(name))
