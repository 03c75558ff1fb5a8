"""Figure 3: when the Fisher Penalty must be switched on.

    python -m launch.sweep --config=experiments/fig03.py --out=runs/fig03 \
        --config.dataset.data_dir=DIR --winners=runs/table1/selection.json
    python -m launch.sweep --config=experiments/fig03.py:small --out=runs/fig03_small
    python -m launch.sweep --config=experiments/fig03.py:medium \
        --out=runs/fig03_medium --config.dataset.data_dir=DIR

Paper (section 4, figure 3): FP as in table 1, but from epoch E in 1 2 4 8 16 32 64 128
on; Wide ResNet, VGG-11 and DenseNet on CIFAR-100, SimpleCNN on CIFAR-10. Final accuracy
against E, with lines for eta* and the baseline. The later, the less it helps: most is
lost within the first epochs; no numbers are printed.

Expected time: --estimate tells; small: 60 runs of 8 s on two CPU cores.

Open: eta* and alpha are table 1's (``--winners``; else the settings' readings); how
many seeds, here 3 (small: 10, medium: 5).
"""

from experiments import sweeps
from experiments.settings import (
    CIFAR10_PART,
    DENSENET,
    DIGITS,
    FRESH_SEEDS,
    SIMPLE_CNN,
    VGG11,
    WRESNET,
    TrainingSetting,
)
from experiments.sweeps import SweepRun, Winners

ONSETS = (1, 2, 4, 8, 16, 32, 64, 128)
SMALL_ONSETS = (1, 4, 16, 64)
MEDIUM_ONSETS = (1, 4, 12, 32)


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns every run, with table 1's winners where they are given."""
    sweeps.check_arg("fig03.py", arg)
    if arg == "small":
        digits = DIGITS._replace(seeds=FRESH_SEEDS)
        return _setting_runs(digits, SMALL_ONSETS, winners)
    if arg == "medium":
        return _setting_runs(CIFAR10_PART, MEDIUM_ONSETS, winners)
    settings = (WRESNET, VGG11, SIMPLE_CNN, DENSENET)
    return [r for setting in settings for r in _setting_runs(setting, ONSETS, winners)]


def _setting_runs(
    setting: TrainingSetting, onsets: tuple[int, ...], winners: Winners | None
) -> list[SweepRun]:
    eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
    slow = eta_star / setting.slower
    fp = setting.run("fp", slow)
    alpha = sweeps.taken(
        winners, setting.coefficient_search("fp"), fp.config.penalty.coefficient
    )
    runs = sweeps.over_seeds(setting.run("eta_star", eta_star), seeds=setting.seeds)
    runs += sweeps.over_seeds(setting.run("baseline", slow), seeds=setting.seeds)
    for onset in onsets:
        changes = {"penalty.coefficient": alpha, "penalty.start_epoch": onset}
        run = fp._replace(
            config=sweeps.changed(fp.config, changes), group={"start_epoch": onset}
        )
        runs += sweeps.over_seeds(run, seeds=setting.seeds)
    return runs


get_config, get_sweep = sweeps.entry_points(get_runs)
