"""Figure 1: the catastrophic Fisher explosion, Wide ResNet on TinyImageNet.

    python -m launch.sweep --config=experiments/fig01.py --out=runs/fig01 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig01.py:small --out=runs/fig01_small

Paper (figure 1): learning rates 0.0316 and 0.001, validation accuracy and Tr(F)
against epoch. With the small one Tr(F) explodes early and the network generalises
worse; by table 1, 54.67% against 52.57% test accuracy.

Expected time: 2 runs, 9.1 device-hours on A100s, 3.9 on H100s, 13 on TPU v5es
(``--estimate``, at 30% of their peak); small: 2 runs of 8 s on two CPU cores.

Open: no seed count is stated; one run each, as the figure's lines have no bands.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.settings import DIGITS, TINY_IMAGENET
from experiments.sweeps import SweepRun, check_arg, overrides


def get_config(arg: str = "") -> ConfigDict:
    """Returns the run with the large learning rate; the other is a change of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns both runs' overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns both runs."""
    check_arg("fig01.py", arg)
    setting = DIGITS if arg == "small" else TINY_IMAGENET
    rates = (0.03, 0.003) if arg == "small" else (0.0316, 0.001)
    return [
        setting.run(method, rate)._replace(group={"learning_rate": rate})
        for method, rate in zip(("eta_star", "baseline"), rates, strict=True)
    ]
