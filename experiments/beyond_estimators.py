"""Beyond the paper: every estimator of Tr(F) and Tr(H) along training, at equal cost.

    python -m launch.sweep --config=experiments/beyond_estimators.py \
        --out=runs/beyond_estimators --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/beyond_estimators.py:small \
        --out=runs/beyond_estimators_small

Question: which estimator should be recorded? At each record all of them estimate the
same number on the same 128 examples, each in the time of four gradients, 16 times over;
``estimator/NAME`` is the relative error against the exact value, from all classes
(fisher_jax/estimator_errors.py). Sampled labels (the paper's Tr(F)) beside signs in
class space, per example and in minibatch form; z'Gz by forward mode; Hutchinson for
Tr(H) (the paper's 30 Gaussian probes are 15 times this cost), which is Tr(F) for these
networks: ReLU, no batch norm or its evaluation mode.

Networks: SimpleCNN on CIFAR-10, VGG-11 and Wide ResNet (SkipInit) on CIFAR-100, with
eta* and the baseline's rate, 3 seeds; records every 10 epochs.

Published: nothing; see docs/results.md for what came out.

Expected time: --estimate tells (not these repeats); small: 2 runs of 5 to 10 minutes on
two CPU cores, nearly all of it in the repeats.
"""

from experiments import sweeps
from experiments.settings import DIGITS, SIMPLE_CNN, VGG11, WRESNET
from experiments.sweeps import SweepRun, Winners

MEASURED = {
    "measure.fisher_examples": 128,
    "measure.estimator_repeats": 16,
    "measure.every_epochs": 10,
}


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns two learning rates of each network, with table 1's eta* where given."""
    sweeps.check_arg("beyond_estimators.py", arg, ("small",))
    is_small = arg == "small"
    runs = []
    for setting in (DIGITS,) if is_small else (SIMPLE_CNN, VGG11, WRESNET):
        eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
        rates = {"eta_star": eta_star, "baseline": eta_star / setting.slower}
        for method, rate in rates.items():
            run = setting.run(method, rate)
            run = run._replace(config=sweeps.changed(run.config, MEASURED))
            runs += sweeps.over_seeds(run, seeds=(1,) if is_small else (1, 2, 3))
    return runs


get_config, get_sweep = sweeps.entry_points(get_runs)
