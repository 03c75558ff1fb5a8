"""Figure 17: the Fisher Penalty of eq. 6, on a single example.

    python -m launch.sweep --config=experiments/fig17.py --out=runs/fig17 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig17.py:small --out=runs/fig17_small

Paper (appendix): SimpleCNN on CIFAR-10, "FP exact": the squared gradient norm of the
batch's first example alone, at every step (f = 1), alpha: 10 log-spaced values in
[1e-4, 1e-2]; drawn as figure 16. Published: 79.7% test accuracy with a peak Tr(F) of
24.16, against 80.02% and 21.38 for FP.

Expected time: 10 runs, 0.71 device-hours on A100s, 0.32 on H100s, 1.1 on TPU v5es
(``--estimate``, at 30% of their peak); small: 4 runs of 10 s on two CPU cores.

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

COEFFICIENTS = log_spaced(1e-4, 1e-2, 10)
SMALL_COEFFICIENTS = (0.0003, 0.001, 0.003, 0.01)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns one run for each alpha, with table 1's eta* where it is given."""
    check_arg("fig17.py", arg)
    is_small = arg == "small"
    setting = DIGITS if is_small else SIMPLE_CNN
    eta_star = taken(winners, setting.eta_search, setting.eta_star)
    run = setting.run("fp_single", eta_star / setting.slower)
    fixed = {"penalty.name": "fisher_single", "penalty.update_every": 1}
    return [
        run._replace(
            config=changed(run.config, {**fixed, "penalty.coefficient": alpha}),
            group={"coefficient": alpha},
        )
        for alpha in (SMALL_COEFFICIENTS if is_small else COEFFICIENTS)
    ]
