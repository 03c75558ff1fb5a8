"""Figures 2 and 8: early Tr(F) against final accuracy, by learning rate.

    python -m launch.sweep --config=experiments/fig02.py --out=runs/fig02 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig02.py:small --out=runs/fig02_small
    python -m launch.sweep --config=experiments/fig02.py:medium \
        --out=runs/fig02_medium --config.dataset.data_dir=DIR

Paper (section 3, appendix I.1): ImageNet, ResNet-18 with Fixup, batch 256, eta 0.001
0.01 0.1, epsilon 3.5, 2 seeds, Tr(F) on 2500; CIFAR-10, ResNet-26, batch 256, flips,
eta 0.007 0.01 0.05, epsilon 1.2, 32 seeds, Tr(F) on 5000; CIFAR-100, ResNet-26, batch
100, eta 0.001 0.005 0.01, epsilon 3.5, 32 seeds, Tr(F) on 5000. One point per eta:
Tr(F_i) against best test (figure 2) and best training (figure 8) accuracy, error bars
over seeds.

Published values: fisher_jax/report/items/figure2.py.

Expected time: 198 runs, 79 device-hours on A100s, 42 on H100s, 159 on TPU v5es
(``--estimate``, at 30% of their peak); small: 30 runs of 30 s on two CPU cores.

Open: as in the settings' files, experiments/imagenet_resnet18_fixup.py and
experiments/cifar_resnet26.py.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict

from experiments import cifar_resnet26, imagenet_resnet18_fixup, sweeps
from experiments.settings import FRESH_SEEDS, MEDIUM_SEEDS
from experiments.sweeps import SweepRun


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns every run: settings, learning rates, seeds."""
    sweeps.check_arg("fig02.py", arg)
    if arg == "small":
        small = cifar_resnet26.get_config("small")
        return _runs(small, "digits_resnet8", (0.003, 0.01, 0.03), FRESH_SEEDS)
    if arg == "medium":
        medium = cifar_resnet26.get_config("medium")
        return _runs(medium, "cifar10_resnet8", (0.01, 0.03, 0.1), MEDIUM_SEEDS)
    cifar10 = cifar_resnet26.get_config("cifar10")
    cifar100 = cifar_resnet26.get_config("cifar100")
    imagenet = imagenet_resnet18_fixup.get_config()
    return [
        *_runs(cifar10, "cifar10_resnet26", (0.007, 0.01, 0.05), range(32)),
        *_runs(cifar100, "cifar100_resnet26", (0.001, 0.005, 0.01), range(32)),
        *_runs(imagenet, "imagenet_resnet18", (0.001, 0.01, 0.1), range(2)),
    ]


def _runs(
    config: ConfigDict, setting: str, rates: tuple[float, ...], seeds: Iterable[int]
) -> list[SweepRun]:
    runs = sweeps.varied(
        SweepRun(config, setting, "baseline", {}),
        "optimizer.learning_rate",
        rates,
    )
    return sweeps.over_seeds(*runs, seeds=seeds)


get_config, get_sweep = sweeps.entry_points(get_runs)
