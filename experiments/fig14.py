"""Figure 14: Tr(H) along training, for small changes of learning rate and batch size.

    python -m launch.sweep --config=experiments/fig14.py --out=runs/fig14 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig14.py:small --out=runs/fig14_small

Paper (section 5, appendix): ResNet-26, weight decay 1e-5, learning rate x0.5 at epochs
80, 150, 200 and 250, 32 seeds. CIFAR-10: learning rate 0.02, batches 480 500 520 and
80 100 120; CIFAR-100: batch 100, learning rates 0.0008 0.001 0.0012 and 0.008 0.01
0.012. Tr(H) (30 Gaussian probes, log axis) at epoch 0, then every 10 epochs.

Published, best test accuracy %: CIFAR-10, batch 520 90.72, 500 90.78, 480 90.76, 120
95.52, 100 94.38, 80 94.84; CIFAR-100, rate 0.0008 51.88, 0.001 54.12, 0.0012 52.88,
0.008 57.38, 0.01 55.62, 0.012 56.12.

Expected time: 384 runs, 95 device-hours on A100s, 42 on H100s, 139 on TPU v5es
(``--estimate``, at 30% of their peak); small: 8 runs of 15 s on two CPU cores.

Open: 300 epochs in all; Tr(H) on 1000 examples; augmentation as in figure 2.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import cifar_resnet26
from experiments.sweeps import SweepRun, changed, check_arg, over_seeds, overrides

BATCH_SIZES = (480, 500, 520, 80, 100, 120)
LEARNING_RATES = (0.0008, 0.001, 0.0012, 0.008, 0.01, 0.012)
_KEYS = {"learning_rate": "optimizer.learning_rate", "batch_size": "train.batch_size"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns every run: data sets, the changed value, seeds."""
    check_arg("fig14.py", arg)
    if arg == "small":
        config = changed(
            cifar_resnet26.get_config("small"),
            {
                "measure.hessian_probes": 30,
                "measure.hessian_every_epochs": 10,
                "measure.every_epochs": 2,
            },
        )
        rates = (0.001, 0.0012, 0.02, 0.024)
        return _runs(config, "digits_resnet8", "learning_rate", rates, 2)
    cifar10 = _paper("cifar10", {"optimizer.learning_rate": 0.02})
    cifar100 = _paper("cifar100", {"train.batch_size": 100})
    return [
        *_runs(cifar10, "cifar10_resnet26", "batch_size", BATCH_SIZES, 32),
        *_runs(cifar100, "cifar100_resnet26", "learning_rate", LEARNING_RATES, 32),
    ]


def _paper(variant: str, changes: dict[str, Any]) -> ConfigDict:
    return changed(
        cifar_resnet26.get_config(variant),
        {
            **changes,
            "optimizer.decay_epochs": (80, 150, 200, 250),
            "train.num_epochs": 300,
            "measure.hessian_probes": 30,
            "measure.hessian_examples": 1000,
            "measure.hessian_every_epochs": 10,
        },
    )


def _runs(
    config: ConfigDict, setting: str, axis: str, values: Any, num_seeds: int
) -> list[SweepRun]:
    return [
        run
        for value in values
        for run in over_seeds(
            SweepRun(
                changed(config, {_KEYS[axis]: value}),
                setting,
                "baseline",
                {axis: value},
            ),
            range(num_seeds),
        )
    ]
