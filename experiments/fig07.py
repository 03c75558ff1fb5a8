"""Figures 7 and 9: early Tr(F) against final accuracy, by batch size.

    python -m launch.sweep --config=experiments/fig07.py --out=runs/fig07 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig07.py:small --out=runs/fig07_small
    python -m launch.sweep --config=experiments/fig07.py:medium \
        --out=runs/fig07_medium --config.dataset.data_dir=DIR

Paper (section 3, appendices A.1 and I.1): as figures 2 and 8, ResNet-26 at learning
rate 0.02, CIFAR-10 with batches 100, 500, 700 (epsilon 1.2), CIFAR-100 with 100, 300,
700 (3.5), 32 seeds; Tr(F_i) against best test (7) and best training (9) accuracy. The
larger the batch, the larger Tr(F_i) and the lower the test accuracy; no numbers are
printed.

Expected time: 192 runs, 29 device-hours on A100s, 13 on H100s, 46 on TPU v5es
(``--estimate``, at 30% of their peak); small: 30 runs of 30 s on two CPU cores.

Open: as in experiments/cifar_resnet26.py.
"""

from collections.abc import Iterable

from experiments import cifar_resnet26, sweeps
from experiments.settings import FRESH_SEEDS, MEDIUM_SEEDS
from experiments.sweeps import SweepRun


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns every run: data sets, batch sizes, seeds."""
    sweeps.check_arg("fig07.py", arg)
    if arg == "small":
        return _runs("small", "digits_resnet8", (25, 80, 250), FRESH_SEEDS)
    if arg == "medium":
        return _runs("medium", "cifar10_resnet8", (50, 150, 450), MEDIUM_SEEDS, 0.05)
    return [
        *_runs("cifar10", "cifar10_resnet26", (100, 500, 700), range(32)),
        *_runs("cifar100", "cifar100_resnet26", (100, 300, 700), range(32)),
    ]


def _runs(
    variant: str,
    setting: str,
    sizes: tuple[int, ...],
    seeds: Iterable[int],
    learning_rate: float = 0.02,
) -> list[SweepRun]:
    config = cifar_resnet26.get_config(variant)
    config = sweeps.changed(config, {"optimizer.learning_rate": learning_rate})
    runs = sweeps.varied(
        SweepRun(config, setting, "baseline", {}), "train.batch_size", sizes
    )
    return sweeps.over_seeds(*runs, seeds=seeds)


get_config, get_sweep = sweeps.entry_points(get_runs)
