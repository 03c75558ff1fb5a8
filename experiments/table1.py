"""Tables 1, 4, 5 and 6, figures 4 and 10: six methods on five settings.

    python -m launch.sweep --config=experiments/table1.py --out=runs/table1 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/table1.py:small --out=runs/table1_small
    python -m launch.sweep --config=experiments/table1.py:medium \
        --out=runs/table1_medium --config.dataset.data_dir=DIR

Paper (section 4, appendix I.2): eta*, and at the baseline's learning rate (eta*/10,
TinyImageNet eta*/30) no penalty, GP_x, GP, FP and GP_r; no augmentation but on
TinyImageNet. First eta* is searched on 5 learning rates, then alpha of each penalty on
10 values (TinyImageNet 5), by validation accuracy; the winners run over seeds.
From the same runs: table 4 (peak Tr(F) after epoch 1), table 5 (seconds per epoch),
table 6 (final training accuracy), figures 4 and 10 (validation accuracy and Tr(F)
against epoch for eta*, baseline, FP and GP_x).

Published values: fisher_jax/report/items/table1.py.

Expected time: --estimate tells; small: 145 runs of 10 to 20 s each on two CPU cores.

Open: how many seeds; here 3 (small: 20), other than the search's.
"""

from experiments import sweeps
from experiments.settings import TrainingSetting, settings
from experiments.sweeps import SweepRun, Winners

PENALTIES = ("gp_x", "gp", "fp", "gp_r")


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs that can be defined with these winners."""
    sweeps.check_arg("table1.py", arg)
    return [run for setting in settings(arg) for run in setting_runs(setting, winners)]


def setting_runs(setting: TrainingSetting, winners: Winners | None) -> list[SweepRun]:
    """Returns one setting's runs: the search of eta*, those of alpha, final runs."""
    plain = setting.run("eta_star", setting.eta_star)
    runs = sweeps.candidates(plain, setting.eta_search, setting.learning_rates)
    eta_star = sweeps.winner(winners, setting.eta_search, setting.eta_star)
    if eta_star is None:
        return runs
    slow = eta_star / setting.slower
    runs += sweeps.over_seeds(setting.run("eta_star", eta_star), seeds=setting.seeds)
    runs += sweeps.over_seeds(setting.run("baseline", slow), seeds=setting.seeds)
    for method in PENALTIES:
        run, search = setting.run(method, slow), setting.coefficient_search(method)
        grid = setting.coefficients[method]
        runs += sweeps.searched(run, search, grid, setting.seeds, winners)
    return runs


get_config, get_sweep = sweeps.entry_points(get_runs)
