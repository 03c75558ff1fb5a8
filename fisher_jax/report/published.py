"""Every number the paper prints, and where: the one place for published values.

Jastrzębski et al., *Catastrophic Fisher Explosion*, ICML 2021, arXiv:2012.14193v3.
References name the paper's table or figure and its section; ``by_eye`` marks what was
read off a plot. Accuracies are in %, traces as the paper prints them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Published(NamedTuple):
    """One printed value; ``std`` where the paper gives one."""

    value: float
    std: float | None = None
    by_eye: bool = False


class Item(NamedTuple):
    """One table or figure: where it stands and its values by row and column keys."""

    reference: str
    values: Mapping[tuple[str, ...], Published]


TINY_WRN = "tiny_imagenet_wide_resnet"
C100_DENSENET = "cifar100_densenet"
C100_VGG = "cifar100_vgg11"
C100_WRN = "cifar100_wide_resnet"
C10_CNN = "cifar10_simple_cnn"
SETTINGS = (TINY_WRN, C100_DENSENET, C100_VGG, C100_WRN, C10_CNN)

METHODS = ("eta_star", "baseline", "gp_x", "gp", "fp", "gp_r")
NOISE_METHODS = ("baseline", "mixup", "gp_x", "fp", "gp_r")


def _rows(
    rows: Mapping[tuple[str, ...], Sequence[float]], columns: Sequence[str]
) -> dict[tuple[str, ...], Published]:
    return {
        (*row, column): Published(value)
        for row, values in rows.items()
        for column, value in zip(columns, values, strict=True)
    }


def _pairs(
    rows: Mapping[str, Sequence[tuple[float, float]]], columns: Sequence[str]
) -> dict[tuple[str, ...], Published]:
    return {
        (row, column): Published(*value)
        for row, values in rows.items()
        for column, value in zip(columns, values, strict=True)
    }


TABLE_1 = Item(
    "table 1, section 4: test accuracy, %",
    _rows(
        {
            (TINY_WRN,): (54.67, 52.57, 52.79, 56.44, 56.73, 55.41),
            (C100_DENSENET,): (66.09, 58.51, 62.12, 64.42, 66.41, 66.39),
            (C100_VGG,): (45.86, 36.86, 45.26, 47.35, 49.87, 48.26),
            (C100_WRN,): (53.96, 46.38, 58.68, 57.68, 57.05, 58.15),
            (C10_CNN,): (76.94, 71.32, 75.68, 75.73, 79.66, 79.76),
        },
        METHODS,
    ),
)
TABLE_2 = Item(
    "table 2, section 4: test accuracy with augmentation, %",
    _pairs(
        {
            TINY_WRN: ((54.70, 0.0), (60.00, 0.1)),
            C100_DENSENET: ((74.41, 0.5), (74.19, 0.5)),
            C100_VGG: ((59.82, 1.2), (65.08, 0.5)),
            C100_WRN: ((69.48, 0.3), (71.53, 1.2)),
            C10_CNN: ((87.16, 0.2), (87.52, 0.5)),
        },
        ("eta_star", "fp"),
    ),
)
TABLE_3 = Item(
    "table 3, section 4.1: test accuracy at the best validation epoch, %",
    _rows(
        {
            (C100_VGG, "0.25"): (41.74, 52.31, 45.94, 60.18, 58.46),
            (C100_WRN, "0.25"): (53.30, 61.61, 52.70, 58.31, 57.60),
            (C100_VGG, "0.5"): (30.05, 39.15, 34.26, 51.33, 50.33),
            (C100_WRN, "0.5"): (43.35, 51.71, 42.99, 47.99, 50.08),
        },
        NOISE_METHODS,
    ),
)
TABLE_4 = Item(
    "table 4, appendix: maximum Tr(F) after epoch 1",
    _rows(
        {
            (C100_DENSENET,): (24.68, 98.17, 83.64, 64.33, 66.24, 73.66),
            (C100_VGG,): (50.88, 148.19, 102.95, 58.53, 64.93, 62.96),
            (C100_WRN,): (26.21, 91.39, 41.43, 40.94, 56.53, 39.31),
            (C10_CNN,): (24.21, 52.05, 47.96, 25.03, 19.63, 25.35),
        },
        METHODS,
    ),
)
TABLE_5 = Item(
    "table 5, appendix: seconds per epoch",
    _rows(
        {
            (TINY_WRN,): (214.45, 142.69, 233.14, 143.78, 208.62, 371.74),
            (C100_DENSENET,): (78.88, 57.40, 77.89, 78.66, 97.25, 75.96),
            (C100_VGG,): (30.50, 35.27, 31.54, 32.52, 43.41, 42.40),
            (C100_WRN,): (49.64, 47.99, 71.33, 61.36, 76.93, 53.25),
            (C10_CNN,): (18.64, 19.51, 26.09, 19.91, 21.21, 20.55),
        },
        METHODS,
    ),
)
TABLE_6 = Item(
    "table 6, appendix: final training accuracy, %",
    _rows(
        {
            (TINY_WRN,): (99.84, 99.96, 99.97, 93.84, 81.05, 86.46),
            (C100_DENSENET,): (99.98, 99.97, 99.96, 99.91, 99.91, 99.39),
            (C100_VGG,): (99.98, 99.98, 99.85, 99.62, 97.73, 86.32),
            (C100_WRN,): (99.98, 99.98, 99.97, 99.96, 99.99, 99.94),
            (C10_CNN,): (100.0, 100.0, 97.79, 100.0, 93.80, 94.64),
        },
        METHODS,
    ),
)
TABLE_7 = Item(
    "table 7, appendix: final training accuracy with augmentation, %",
    _pairs(
        {
            C100_DENSENET: ((98.75, 0.27), (97.53, 1.75)),
            C10_CNN: ((97.52, 1.98), (98.94, 0.08)),
            C100_VGG: ((98.64, 0.06), (93.06, 0.01)),
            C100_WRN: ((99.97, 0.01), (99.97, 0.00)),
            TINY_WRN: ((99.86, 0.02), (93.65, 5.85)),
        },
        ("eta_star", "fp"),
    ),
)
TABLE_8 = Item(
    "table 8, appendix: training accuracy on clean examples, 25% noise, %",
    _rows(
        {
            (C100_VGG, "0.25"): (99.79, 73.14, 97.46, 79.52, 81.75),
            (C100_WRN, "0.25"): (95.87, 77.71, 95.88, 78.72, 74.21),
        },
        NOISE_METHODS,
    ),
)
TABLE_9 = Item(
    "table 9, appendix: training accuracy on noisy examples, 25% noise, %",
    _rows(
        {
            (C100_VGG, "0.25"): (99.56, 8.29, 89.23, 4.10, 4.96),
            (C100_WRN, "0.25"): (73.67, 4.22, 72.67, 4.14, 2.86),
        },
        NOISE_METHODS,
    ),
)


class Point(NamedTuple):
    """A point of a plot, read by eye: early Tr(F) and test accuracy in %."""

    trace: float
    accuracy: float


# Figure 2, section 3, by data set, from the largest learning rate to the smallest.
FIGURE_2: Mapping[str, tuple[Point, ...]] = {
    "imagenet2012": (Point(1000, 59.5), Point(5000, 48.0), Point(27000, 38.5)),
    "cifar10": (Point(370, 93.0), Point(1050, 90.9), Point(1350, 90.0)),
    "cifar100": (Point(950, 57.0), Point(1450, 57.0), Point(3750, 51.7)),
}


class TwoPhase(NamedTuple):
    """Figures 6 and 13, by eye: values or (lowest, highest) of a histogram."""

    early_trace: float
    final_hessian_trace: tuple[float, float]
    accuracy: float


# Figure 6 (section 3.2) is CIFAR-100, figure 13 (appendix) CIFAR-10; by whether the
# first phase was regularised much ("high") or little ("low").
FIGURES_6_AND_13: Mapping[str, Mapping[str, TwoPhase]] = {
    "cifar100": {
        "high": TwoPhase(1230, (1200, 1350), 55.0),
        "low": TwoPhase(2720, (3100, 4200), 49.0),
    },
    "cifar10": {
        "high": TwoPhase(390, (730, 900), 88.7),
        "low": TwoPhase(1500, (1200, 1800), 87.6),
    },
}

# Figure 14, appendix: best test accuracy in %, by batch size and by learning rate.
FIGURE_14: Mapping[str, Mapping[float, float]] = {
    "cifar10": {
        520: 90.72,
        500: 90.78,
        480: 90.76,
        120: 95.52,
        100: 94.38,
        80: 94.84,
    },
    "cifar100": {
        0.0008: 51.88,
        0.001: 54.12,
        0.0012: 52.88,
        0.008: 57.38,
        0.01: 55.62,
        0.012: 56.12,
    },
}


class PenaltyResult(NamedTuple):
    """Test accuracy in %, and maximum Tr(F) where the paper gives it."""

    accuracy: float
    peak_trace: float | None = None


# Figure 17, appendix: the single-example penalty (eq. 6) against FP; SimpleCNN/C10.
FIGURE_17: Mapping[str, PenaltyResult] = {
    "fp_single": PenaltyResult(79.7, 24.16),
    "fp": PenaltyResult(80.02, 21.38),
}
# Figure 20, appendix: batch size x10; half the learning rate; then with FP.
FIGURE_20: Mapping[str, PenaltyResult] = {
    "eta_star": PenaltyResult(76.94),
    "large_batch": PenaltyResult(73.7),
    "half_learning_rate": PenaltyResult(73.59),
    "fp": PenaltyResult(78.7),
}
