"""Figure 15: Tr(F) and its minibatch form Tr(F_B) along training.

    python -m launch.sweep --config=experiments/fig15.py --out=runs/fig15 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig15.py:small --out=runs/fig15_small
    python -m launch.sweep --config=experiments/fig15.py:medium \
        --out=runs/fig15_medium --config.dataset.data_dir=DIR

Paper (appendix C): SimpleCNN on CIFAR-10, 5 learning rates in [1e-3, 1e-1]; Tr(F) (mean
of per-example squared norms) and Tr(F_B) (squared norm of the batch's mean gradient)
along training and their correlation, which is high. With labels drawn from the model
E[Tr(F_B)] = Tr(F)/B exactly (docs/theory.md). No numbers are printed.

Expected time: 15 runs, 1.1 device-hours on A100s, 0.49 on H100s, 1.7 on TPU v5es
(``--estimate``, at 30% of their peak); small: 15 runs of 8 s on two CPU cores.

Open: the rates' spacing, logarithmic here as everywhere in the paper; how many seeds,
3 here. The smaller forms' rates end at 0.03: from 0.1 on the
network on digits diverges.
"""

from experiments import sweeps
from experiments.settings import FEW_SEEDS, simple_cnn
from experiments.sweeps import SweepRun

LEARNING_RATES = sweeps.log_spaced(1e-3, 1e-1, 5)
FEWER_LEARNING_RATES = sweeps.log_spaced(1e-3, 3e-2, 5)


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns the runs of each learning rate."""
    sweeps.check_arg("fig15.py", arg)
    setting = simple_cnn(arg)
    rates = FEWER_LEARNING_RATES if arg else LEARNING_RATES
    run = setting.run("baseline", rates[0])
    return sweeps.over_seeds(
        *sweeps.varied(run, "optimizer.learning_rate", rates),
        seeds=FEW_SEEDS if arg == "small" else setting.seeds,
    )


get_config, get_sweep = sweeps.entry_points(get_runs)
