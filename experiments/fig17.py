"""Figure 17: the Fisher Penalty of eq. 6, on a single example.

    python -m launch.sweep --config=experiments/fig17.py --out=runs/fig17 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig17.py:small --out=runs/fig17_small
    python -m launch.sweep --config=experiments/fig17.py:medium \
        --out=runs/fig17_medium --config.dataset.data_dir=DIR

Paper (appendix C): SimpleCNN on CIFAR-10, "FP exact": the squared gradient norm of the
batch's first example alone, at every step (f = 1), alpha: 10 log-spaced values in
[1e-4, 1e-2]; drawn as figure 16. Published values: fisher_jax/report/items/figure17.py.

Expected time: 30 runs, 2.1 device-hours on A100s, 0.98 on H100s, 3.4 on TPU v5es
(``--estimate``, at 30% of their peak); small: 180 runs of 10 s on two CPU cores.

Open: the learning rate, taken as table 1's baseline (eta*/10); how many seeds, 3 here
(small: 20 at each alpha, 100 others at the best).
"""

from experiments import sweeps
from experiments.fig16 import later_runs
from experiments.settings import simple_cnn
from experiments.sweeps import SweepRun, Winners

COEFFICIENTS = sweeps.log_spaced(1e-4, 1e-2, 10)
FEW_COEFFICIENTS = (0.0003, 0.001, 0.003, 0.01)
BEST_ON_DIGITS = ({"coefficient": 0.001},)  # as figure 16's


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs of each alpha, with table 1's eta* where it is given."""
    sweeps.check_arg("fig17.py", arg)
    setting = simple_cnn(arg)
    eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
    run = setting.run("fp_single", eta_star / setting.slower)
    fixed = {"penalty.name": "fisher_single", "penalty.update_every": 1}
    run = run._replace(config=sweeps.changed(run.config, fixed))
    coefficients = FEW_COEFFICIENTS if arg else COEFFICIENTS
    runs = sweeps.varied(run, "penalty.coefficient", coefficients)
    later = later_runs(runs, BEST_ON_DIGITS) if arg == "small" else []
    return sweeps.over_seeds(*runs, seeds=setting.seeds) + later


get_config, get_sweep = sweeps.entry_points(get_runs)
