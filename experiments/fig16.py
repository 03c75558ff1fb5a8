"""Figure 16: the Fisher Penalty recomputed at every step, and at every tenth.

    python -m launch.sweep --config=experiments/fig16.py --out=runs/fig16 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig16.py:small --out=runs/fig16_small
    python -m launch.sweep --config=experiments/fig16.py:medium \
        --out=runs/fig16_medium --config.dataset.data_dir=DIR

Paper (appendix C): SimpleCNN on CIFAR-10, FP with f = 10 and f = 1, alpha: 10
log-spaced values in [1e-2, 1e0]; validation accuracy and Tr(F) against epoch for each
alpha. The two behave alike. Published values: fisher_jax/report/items/figure17.py.

Expected time: 60 runs, 11 device-hours on A100s, 4 on H100s, 13 on TPU v5es
(``--estimate``, at 30% of their peak); small: 360 runs of 8 to 15 s on two CPU cores.

Open: the learning rate, taken as table 1's baseline (eta*/10); how many seeds, 3 here
(small: 20 at each alpha, 100 others at the best).
"""

from collections.abc import Collection, Mapping

from experiments import sweeps
from experiments.settings import LATER_SEEDS, simple_cnn
from experiments.sweeps import SweepRun, Winners

COEFFICIENTS = sweeps.log_spaced(1e-2, 1e0, 10)
FEW_COEFFICIENTS = (0.01, 0.03, 0.1, 0.3)
# By the mean validation accuracy of the small form's first twenty seeds.
BEST_ON_DIGITS = (
    {"update_every": 10, "coefficient": 0.03},
    {"update_every": 1, "coefficient": 0.1},
)


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs of each f and alpha, with table 1's eta* where it is given."""
    sweeps.check_arg("fig16.py", arg)
    setting = simple_cnn(arg)
    coefficients = FEW_COEFFICIENTS if arg else COEFFICIENTS
    eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
    run = setting.run("fp", eta_star / setting.slower)
    runs = [
        one
        for every in sweeps.varied(run, "penalty.update_every", (10, 1))
        for one in sweeps.varied(every, "penalty.coefficient", coefficients)
    ]
    later = later_runs(runs, BEST_ON_DIGITS) if arg == "small" else []
    return sweeps.over_seeds(*runs, seeds=setting.seeds) + later


def later_runs(
    runs: list[SweepRun], best: Collection[Mapping[str, float]]
) -> list[SweepRun]:
    """Returns those of the runs that are the best, with a hundred more seeds.

    A setting of their own: their strength was chosen on the others' seeds.
    """
    chosen = [
        run._replace(setting=f"{run.setting}_later")
        for run in runs
        if run.group in best
    ]
    return sweeps.over_seeds(*chosen, seeds=LATER_SEEDS)


get_config, get_sweep = sweeps.entry_points(get_runs)
