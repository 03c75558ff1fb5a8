"""Figures 5, 11 and 12: clean and noisy examples, by strength, with several seeds.

    python -m launch.sweep --config=experiments/fig05.py --out=runs/fig05 \
        --config.dataset.data_dir=DIR --winners=runs/table1/selection.json
    python -m launch.sweep --config=experiments/fig05.py:small --out=runs/fig05_small
    python -m launch.sweep --config=experiments/fig05.py:medium \
        --out=runs/fig05_medium --config.dataset.data_dir=DIR

Paper (section 4.1, appendix A.3): the runs of table 3's searches at 25% noise, a curve
for each strength: gradient norms of the clean and the noisy examples, clean and noisy
training accuracy (5: VGG-11; 11: the second network), and the cosine of clean and noisy
minibatch gradients for FP and GP_r (12). A search has one seed; to tell what strength
does from what chance does, here every strength runs with several.

Published: figures alone, no numbers.

Expected time: --estimate tells; small: 330 runs of 15 to 35 s each on two CPU cores.

Open: as in experiments/table3.py, whose settings and grids these are; how many seeds, 3
here (small: 10, for GP_r 40 more). The second network of the small form is figure 2's
ResNet-8, FP alone, at a rate of 0.03, which table 3 has not.
"""

from experiments import cifar_resnet26, methods, sweeps, table3
from experiments.settings import LATER_SEEDS, MEDIUM_SEEDS
from experiments.sweeps import SweepRun, Winners

NOISE = 0.25
METHODS = ("fp", "gp_r")
SEEDS = (1, 2, 3)


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs of every strength, with table 1's eta* where it is given."""
    sweeps.check_arg("fig05.py", arg)
    grids = table3.grids(arg)
    runs = []
    for setting in table3.settings(arg):
        eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
        runs.append(table3.noisy(setting, "baseline", eta_star, NOISE))
        for method in METHODS:
            run = table3.noisy(setting, method, eta_star, NOISE)
            runs += sweeps.varied(run, "penalty.coefficient", grids[method])
    # Not averaged with those of table 3, which have one strength.
    runs = [
        run._replace(
            setting=f"{run.setting}_strengths",
            group={key: value for key, value in run.group.items() if key != "noise"},
        )
        for run in runs
    ]
    later = []
    if arg == "small":
        later = _later_runs(runs)
        runs += _second_network()
    seeds = {"small": LATER_SEEDS[:10], "medium": MEDIUM_SEEDS}.get(arg, SEEDS)
    return sweeps.over_seeds(*runs, seeds=seeds) + later


def _later_runs(runs: list[SweepRun]) -> list[SweepRun]:
    # GP_r's order of cosines (figure 12), which the ten seeds left open.
    chosen = [
        run._replace(setting=run.setting.replace("_strengths", "_later"))
        for run in runs
        if run.method != "fp"
    ]
    return sweeps.over_seeds(*chosen, seeds=LATER_SEEDS[10:50])


def _second_network() -> list[SweepRun]:
    config = sweeps.changed(
        cifar_resnet26.get_config("small"),
        {
            **methods.noisy(0.03, NOISE),
            "dataset.num_validation": 300,
            "measure.gradient_examples": 64,
        },
    )
    plain = SweepRun(config, "digits_resnet8", "baseline", {})
    penalised = plain._replace(
        method="fp", config=sweeps.changed(config, methods.PENALTY_CHANGES["fp"])
    )
    # At 0.3 the first pilot diverged.
    strengths = (0.01, 0.03, 0.1)
    return [plain, *sweeps.varied(penalised, "penalty.coefficient", strengths)]


get_config, get_sweep = sweeps.entry_points(get_runs)
