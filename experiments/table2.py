"""Tables 2 and 7: eta* with standard augmentation, without and with FP.

    python -m launch.sweep --config=experiments/table2.py --out=runs/table2 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/table2.py:small --out=runs/table2_small
    python -m launch.sweep --config=experiments/table2.py:medium \
        --out=runs/table2_medium --config.dataset.data_dir=DIR

Paper (section 4, appendix I.2): the five settings of table 1 with pad 4, random crop
and horizontal flip, at the best learning rate, with and without FP; table 7 is the
final training accuracy of the same runs. Searches as in table 1: eta*, then alpha at
eta*.

Published values: fisher_jax/report/items/table2.py.

Expected time: --estimate tells; small: 170 runs of about 10 s each on two CPU cores.

Open: how many seeds; here 3 (small: 80). Whether eta* was searched again with
augmentation; here it is (``--winners=runs/table1/selection.json`` takes table 1's
instead; alpha is searched in any case). The smaller forms' images are padded by an
eighth of their side, as CIFAR's are.
"""

from experiments import sweeps
from experiments.settings import DIGITS, LATER_SEEDS, TrainingSetting, settings
from experiments.sweeps import SweepRun, Winners

# Weaker than table 1's: with 0.001 the smallest of those won.
SMALL = DIGITS._replace(
    coefficients={"fp": (0.0001, 0.0003, 0.001, 0.003, 0.01)}, seeds=LATER_SEEDS[:80]
)


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs that can be defined with these winners."""
    sweeps.check_arg("table2.py", arg)
    chosen = (SMALL,) if arg == "small" else settings(arg)
    return [run for setting in chosen for run in _setting_runs(setting, winners)]


def _setting_runs(setting: TrainingSetting, winners: Winners | None) -> list[SweepRun]:
    plain = _augmented(setting, "eta_star", setting.eta_star)
    runs = sweeps.candidates(plain, setting.eta_search, setting.learning_rates)
    eta_star = sweeps.winner(winners, setting.eta_search, setting.eta_star)
    if eta_star is None:
        return runs
    runs += sweeps.over_seeds(
        _augmented(setting, "eta_star", eta_star), seeds=setting.seeds
    )
    fp = _augmented(setting, "fp", eta_star)
    # Another question than table 1's, whose alpha --winners may hold.
    search = sweeps.Search(
        f"{setting.name}/augmented/fp/coefficient", "penalty.coefficient"
    )
    grid = setting.coefficients["fp"]
    return runs + sweeps.searched(fp, search, grid, setting.seeds, winners)


def _augmented(setting: TrainingSetting, method: str, learning_rate: float) -> SweepRun:
    run = setting.run(method, learning_rate)
    return run._replace(
        config=sweeps.changed(run.config, {"dataset.augment": "standard"})
    )


get_config, get_sweep = sweeps.entry_points(get_runs)
