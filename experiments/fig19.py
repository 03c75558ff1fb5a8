"""Figure 19: Tr(F) at every step of the first epochs, three batch sizes.

    python -m launch.sweep --config=experiments/fig19.py --out=runs/fig19 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig19.py:small --out=runs/fig19_small

Paper (appendix): SimpleCNN on CIFAR-10, three batch sizes, Tr(F) on 128 examples and
the minibatch's training accuracy at EVERY step. The larger the batch, the higher Tr(F)
rises; no numbers are printed.

Expected time: 3 runs, 0.02 device-hours on A100s, 0.0071 on H100s, 0.019 on TPU v5es
(``--estimate``, at 30% of their peak); small: 3 runs of 10 s on two CPU cores.

Open: which batch sizes: 32, 128 and 512, at eta*; how many epochs are shown,
10 here (small: 20); one seed.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.fig18 import EVERY_STEP
from experiments.settings import DIGITS, SIMPLE_CNN
from experiments.sweeps import (
    SweepRun,
    Winners,
    changed,
    check_arg,
    overrides,
    taken,
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


BATCH_SIZES = (32, 128, 512)
SMALL_BATCH_SIZES = (8, 32, 128)


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns one run for each batch size, at table 1's eta* where it is given."""
    check_arg("fig19.py", arg)
    is_small = arg == "small"
    setting = DIGITS if is_small else SIMPLE_CNN
    eta_star = taken(winners, setting.eta_search, setting.eta_star)
    run = setting.run("eta_star", eta_star)
    changes = {**EVERY_STEP, "train.num_epochs": 20} if is_small else EVERY_STEP
    return [
        run._replace(
            config=changed(run.config, {**changes, "train.batch_size": size}),
            group={"batch_size": size},
        )
        for size in (SMALL_BATCH_SIZES if is_small else BATCH_SIZES)
    ]
