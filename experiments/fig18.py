"""Figure 18: Tr(F) at every step of the first epochs, two learning rates.

    python -m launch.sweep --config=experiments/fig18.py --out=runs/fig18 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig18.py:small --out=runs/fig18_small

Paper (appendix): SimpleCNN on CIFAR-10, two learning rates, Tr(F) on 128 examples and
the minibatch's training accuracy at EVERY step. With the small rate Tr(F) shoots up
within the first hundreds of steps; no numbers are printed.

Expected time: 2 runs, 0.0099 device-hours on A100s, 0.0036 on H100s, 0.01 on TPU v5es
(``--estimate``, at 30% of their peak); small: 2 runs of 10 s on two CPU cores.

Open: which rates: table 1's eta* and baseline; how many epochs are shown,
10 here (small: 20); one seed.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.settings import DIGITS, SIMPLE_CNN
from experiments.sweeps import (
    SweepRun,
    Winners,
    changed,
    check_arg,
    overrides,
    taken,
)

EVERY_STEP = {
    "train.num_epochs": 10,
    "optimizer.decay_epochs": (),
    "measure.every_epochs": 1,
    "measure.every_steps": 1,
    "measure.fisher_examples": 128,
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns one run for each rate, table 1's eta* where it is given."""
    check_arg("fig18.py", arg)
    is_small = arg == "small"
    setting = DIGITS if is_small else SIMPLE_CNN
    eta_star = taken(winners, setting.eta_search, setting.eta_star)
    changes = {**EVERY_STEP, "train.num_epochs": 20} if is_small else EVERY_STEP
    rates = {"eta_star": eta_star, "baseline": eta_star / setting.slower}
    runs = [setting.run(method, rate) for method, rate in rates.items()]
    return [
        run._replace(
            config=changed(run.config, changes), group={"learning_rate": run.method}
        )
        for run in runs
    ]
