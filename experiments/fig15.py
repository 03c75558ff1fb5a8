"""Figure 15: Tr(F) and its minibatch form Tr(F_B) along training.

    python -m launch.sweep --config=experiments/fig15.py --out=runs/fig15 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig15.py:small --out=runs/fig15_small

Paper (appendix): SimpleCNN on CIFAR-10, 5 learning rates in [1e-3, 1e-1]; Tr(F) (mean
of per-example squared norms) and Tr(F_B) (squared norm of the batch's mean gradient)
along training and their correlation, which is high. With labels drawn from the model
E[Tr(F_B)] = Tr(F)/B exactly (docs/theory.md). No numbers are printed.

Expected time: 5 runs, 0.35 device-hours on A100s, 0.16 on H100s, 0.54 on TPU v5es
(``--estimate``, at 30% of their peak); small: 5 runs of 8 s on two CPU cores.

Open: log-spaced rates, as everywhere in the paper; one seed.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.settings import DIGITS, SIMPLE_CNN
from experiments.sweeps import SweepRun, check_arg, log_spaced, overrides

LEARNING_RATES = log_spaced(1e-3, 1e-1, 5)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns one run for each learning rate."""
    check_arg("fig15.py", arg)
    setting = DIGITS if arg == "small" else SIMPLE_CNN
    return [
        setting.run("baseline", rate)._replace(group={"learning_rate": rate})
        for rate in LEARNING_RATES
    ]
