"""Beyond the paper: RFP beside FP, GP_r, SAM and the gradient-norm penalty.

    python -m launch.sweep --config=experiments/beyond_rfp.py --out=runs/beyond_rfp \
        --config.dataset.data_dir=DIR --winners=runs/table1/selection.json
    python -m launch.sweep --config=experiments/beyond_rfp.py:small \
        --out=runs/beyond_rfp_small
    python -m launch.sweep --config=experiments/beyond_rfp.py:medium \
        --out=runs/beyond_rfp_medium --config.dataset.data_dir=DIR

Question: FP's gradient drops the part that comes from the labels' distribution; RFP
keeps it at the same cost (docs/theory.md). Does it train better, or only more stably?
On every setting of table 1, with 0, 25 and 50% of the training labels replaced, each
method is searched on a grid wide enough to see where it collapses, then run with its
own best coefficient over 5 seeds, the same for all methods, so that they can be
compared in pairs.

Methods: baseline (none), fp, rfp, gp_r at f = 10; sam (Foret et al. 2021, radius);
gradient_norm (Zhao et al. 2022, to first order, lambda at r = 0.05), these two at every
step. Without noise at the baseline's learning rate as in table 1; with noise at eta*
and without weight decay as in table 3. The medium form has no noise, and adds RFP and
importance draws with the batch in 8 groups, whose gradients are less noisy
(docs/theory.md).

Published: nothing; see docs/results.md for what came out.

Expected time: --estimate tells; small: 180 runs of 15 s each on two CPU cores.
"""

from collections.abc import Mapping, Sequence

from experiments import methods, sweeps
from experiments.settings import (
    CIFAR10_PART,
    DIGITS,
    NOISY_DIGITS,
    PAPER,
    TrainingSetting,
)
from experiments.sweeps import SweepRun, Winners

NOISE = (0.0, 0.25, 0.5)
SEEDS = (1, 2, 3, 4, 5)
CHANGES: Mapping[str, sweeps.Changes] = {
    "fp": methods.PENALTY_CHANGES["fp"],
    "rfp": methods.PENALTY_CHANGES["rfp"],
    "gp_r": methods.PENALTY_CHANGES["gp_r"],
    "sam": {"sam.radius": 0.05},
    "gradient_norm": {"penalty.name": "gradient_norm", "penalty.coefficient": 0.01},
    **methods.GROUPED,
}
_WIDE = sweeps.log_spaced(1e-3, 1e1, 9)
GRIDS: Mapping[str, tuple[float, ...]] = {
    "fp": _WIDE,
    "rfp": _WIDE,
    "gp_r": _WIDE,
    "sam": sweeps.log_spaced(1e-2, 1e0, 9),
    "gradient_norm": sweeps.log_spaced(1e-3, 1e0, 9),
}
FEWER: Mapping[str, tuple[float, ...]] = {
    "fp": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "rfp": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "gp_r": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "sam": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    "gradient_norm": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
}
_RFP = CIFAR10_PART.coefficients["rfp"]
MEDIUM_GRIDS: Mapping[str, tuple[float, ...]] = {
    "fp": CIFAR10_PART.coefficients["fp"],
    "rfp": _RFP,
    "gp_r": CIFAR10_PART.coefficients["gp_r"],
    "sam": FEWER["sam"],
    "gradient_norm": FEWER["gradient_norm"],
    "rfp_groups": _RFP,
    "importance_groups": _RFP,
}


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs that can be defined with these winners."""
    sweeps.check_arg("beyond_rfp.py", arg)
    if arg == "medium":
        seeds = CIFAR10_PART.seeds
        return _setting_runs(CIFAR10_PART, 0.0, MEDIUM_GRIDS, seeds, winners)
    grids = FEWER if arg else GRIDS
    return [
        run
        for noise in NOISE
        for setting in ((NOISY_DIGITS if noise else DIGITS,) if arg else PAPER)
        for run in _setting_runs(setting, noise, grids, SEEDS, winners)
    ]


def _setting_runs(
    setting: TrainingSetting,
    noise: float,
    grids: Mapping[str, tuple[float, ...]],
    seeds: Sequence[int],
    winners: Winners | None,
) -> list[SweepRun]:
    """One setting's runs at one noise: the plain ones, then search and final runs."""
    plain = _plain(setting, noise, winners)
    runs = sweeps.over_seeds(plain, seeds=seeds)
    for method, grid in grids.items():
        config = sweeps.changed(plain.config, CHANGES[method])
        run = plain._replace(method=method, config=config)
        key = "sam.radius" if method == "sam" else "penalty.coefficient"
        search = sweeps.Search(f"{setting.name}/noise_{noise:g}/{method}", key)
        runs += sweeps.searched(run, search, grid, seeds, winners)
    return runs


def _plain(setting: TrainingSetting, noise: float, winners: Winners | None) -> SweepRun:
    eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
    run = setting.run("baseline", eta_star / setting.slower)
    if noise:
        changes = methods.noisy(eta_star, noise)
        run = run._replace(config=sweeps.changed(run.config, changes))
    return run._replace(group={"noise": noise})


get_config, get_sweep = sweeps.entry_points(get_runs)
