"""Beyond the paper: how strong a penalty may be that is renewed every 10 steps.

    python -m launch.sweep --config=experiments/beyond_stale.py \
        --out=runs/beyond_stale --config.dataset.data_dir=DIR \
        --winners=runs/table1/selection.json
    python -m launch.sweep --config=experiments/beyond_stale.py:small \
        --out=runs/beyond_stale_small

Question: the gradient of a penalty is noisy, and its latest one is added f = 10 times
over. From some strength on that alone ruins the training. Do groups of the batch, whose
gradients are less noisy at the same cost (docs/theory.md), move that strength?

FP, RFP and importance draws at f = 10, with the batch whole and in 8 groups; FP at
every step (f = 1) for comparison. Half of the training labels are replaced, eta*, no
weight decay, as in table 3. Nothing is tuned: every strength runs with all seeds, and
it is the mean over the strengths that is compared.

Published: nothing; see docs/theory.md for what came out.

Expected time: --estimate tells; small: 145 runs of 15 s each on two CPU cores.
"""

from collections.abc import Mapping

from experiments import methods, sweeps
from experiments.settings import NOISY_DIGITS, SIMPLE_CNN, VGG11, WRESNET
from experiments.sweeps import SweepRun, Winners

NOISE = 0.5
SEEDS = (1, 2, 3, 4, 5)
STRENGTHS = sweeps.log_spaced(1e-2, 1e0, 5)
FEWER_STRENGTHS = (0.03, 0.1, 0.3, 1.0)
CHANGES: Mapping[str, sweeps.Changes] = {**methods.DRAWS, **methods.GROUPED}


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns every run, with table 1's eta* where it is given."""
    sweeps.check_arg("beyond_stale.py", arg, ("small",))
    strengths = FEWER_STRENGTHS if arg else STRENGTHS
    runs = []
    for setting in (NOISY_DIGITS,) if arg else (SIMPLE_CNN, VGG11, WRESNET):
        eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
        config = sweeps.changed(setting.get_config(), methods.noisy(eta_star, NOISE))
        plain = SweepRun(config, setting.name, "baseline", {})
        kinds = [(method, 10) for method in CHANGES] + [("fp", 1)]
        runs.append(plain)
        for method, update_every in kinds:
            changes = {**CHANGES[method], "penalty.update_every": update_every}
            run = plain._replace(
                method=method,
                config=sweeps.changed(plain.config, changes),
                group={"update_every": update_every},
            )
            runs += sweeps.varied(run, "penalty.coefficient", strengths)
    return sweeps.over_seeds(*runs, seeds=SEEDS)


get_config, get_sweep = sweeps.entry_points(get_runs)
