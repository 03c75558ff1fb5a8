"""Figure 16: the Fisher Penalty recomputed at every step, and at every tenth.

    python -m launch.sweep --config=experiments/fig16.py --out=runs/fig16 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig16.py:small --out=runs/fig16_small

Paper (appendix): SimpleCNN on CIFAR-10, FP with f = 10 and f = 1, alpha: 10 log-spaced
values in [1e-2, 1e0]; validation accuracy and Tr(F) against epoch for each alpha. The
two behave alike. Published (figure 17's text): FP reaches 80.02% test accuracy with a
peak Tr(F) of 21.38.

Expected time: 20 runs, 3.8 device-hours on A100s, 1.3 on H100s, 4.4 on TPU v5es
(``--estimate``, at 30% of their peak); small: 8 runs of 8 to 15 s on two CPU cores.

Open: the learning rate, taken as table 1's baseline (eta*/10); one seed.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.settings import DIGITS, SIMPLE_CNN
from experiments.sweeps import (
    SweepRun,
    Winners,
    changed,
    check_arg,
    log_spaced,
    overrides,
    taken,
)

COEFFICIENTS = log_spaced(1e-2, 1e0, 10)
SMALL_COEFFICIENTS = (0.01, 0.03, 0.1, 0.3)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns one run for each f and alpha, with table 1's eta* where it is given."""
    check_arg("fig16.py", arg)
    is_small = arg == "small"
    setting = DIGITS if is_small else SIMPLE_CNN
    eta_star = taken(winners, setting.eta_search, setting.eta_star)
    run = setting.run("fp", eta_star / setting.slower)
    return [
        run._replace(
            config=changed(
                run.config,
                {"penalty.update_every": every, "penalty.coefficient": alpha},
            ),
            group={"update_every": every, "coefficient": alpha},
        )
        for every in (10, 1)
        for alpha in (SMALL_COEFFICIENTS if is_small else COEFFICIENTS)
    ]
