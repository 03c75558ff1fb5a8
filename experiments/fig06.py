"""Figures 6 and 13: what the first 20 epochs leave behind.

    python -m launch.sweep --config=experiments/fig06.py --out=runs/fig06 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig06.py:small --out=runs/fig06_small

Paper (section 5): ResNet-26 is trained for 20 epochs under a HIGH and a LOW
regularisation configuration; from the parameters of each, 8 runs continue under LOW.
CIFAR-100 (figure 6): learning rate 0.01 (HIGH) and 0.001 (LOW); CIFAR-10 (figure 13):
batch 100 (HIGH) and 500 (LOW) at learning rate 0.02. Bars of Tr(F_i), histograms of
Tr(H) at the best-test-accuracy epoch (30 probes) and of best test accuracy.

Published, by eye, after HIGH against after LOW: figure 6: Tr(F_i) 1230 / 2720, Tr(H)
1.2-1.35k / 3.1-4.2k, accuracy 55 / 49%; figure 13: 390 / 1500, 730-900 / 1.2-1.8k,
88.7 / 87.6%.

Expected time: 36 runs, 12 device-hours on A100s, 4.4 on H100s, 12 on TPU v5es
(``--estimate``, at 30% of their peak); small: 8 runs of 20 s on two CPU cores.

Open: the configurations' values, taken from figure 14; the continuation makes up the
rest of the setting's 250 epochs, with its decays 20 epochs earlier; Tr(H) on 1000
examples; a continuation's seed draws its batches. ``train.init_from`` takes parameters
only, momentum starts at zero.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import cifar_resnet26
from experiments.sweeps import Changes, SweepRun, changed, check_arg, overrides


class Pair(NamedTuple):
    """A setting with its two early configurations."""

    setting: str
    variant: str
    high: Changes
    low: Changes
    early_epochs: int = 20
    num_continued: int = 8


CIFAR100 = Pair(
    "cifar100_resnet26",
    "cifar100",
    {"optimizer.learning_rate": 0.01, "train.batch_size": 100},
    {"optimizer.learning_rate": 0.001, "train.batch_size": 100},
)
CIFAR10 = Pair(
    "cifar10_resnet26",
    "cifar10",
    {"optimizer.learning_rate": 0.02, "train.batch_size": 100},
    {"optimizer.learning_rate": 0.02, "train.batch_size": 500},
)
SMALL = Pair(
    "digits_resnet8",
    "small",
    {"optimizer.learning_rate": 0.03},
    {"optimizer.learning_rate": 0.001},
    early_epochs=5,
    num_continued=3,
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides; ``OUT/NAME`` is the run NAME of this sweep."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns the early runs and their continuations."""
    check_arg("fig06.py", arg)
    pairs = (SMALL,) if arg == "small" else (CIFAR100, CIFAR10)
    return [run for pair in pairs for run in _pair_runs(pair)]


def _pair_runs(pair: Pair) -> list[SweepRun]:
    config = cifar_resnet26.get_config(pair.variant)
    is_small = pair.variant == "small"
    config = changed(
        config,
        {
            "measure.hessian_probes": 30,
            "measure.hessian_examples": 128 if is_small else 1000,
        },
    )
    runs = []
    for name, early in (("high", pair.high), ("low", pair.low)):
        first = SweepRun(
            changed(config, {**early, "train.num_epochs": pair.early_epochs}),
            pair.setting,
            "baseline",
            {"phase": "early", "early": name},
        )
        later = _continuation(config, pair, first.name)
        runs += [first] + [
            SweepRun(
                changed(later, {"seed": seed}),
                pair.setting,
                "baseline",
                {"phase": "continued", "early": name},
            )
            for seed in range(1, pair.num_continued + 1)
        ]
    return runs


def _continuation(config: ConfigDict, pair: Pair, first: str) -> ConfigDict:
    """The rest of the schedule under LOW, from the parameters of ``first``."""
    decays = [epoch - pair.early_epochs for epoch in config.optimizer.decay_epochs]
    return changed(
        config,
        {
            **pair.low,
            "train.init_from": f"OUT/{first}",
            "train.num_epochs": config.train.num_epochs - pair.early_epochs,
            "optimizer.decay_epochs": tuple(decays),
        },
    )
