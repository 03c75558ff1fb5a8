"""Figure 14: Tr(H) along training, for small changes of learning rate and batch size.

    python -m launch.sweep --config=experiments/fig14.py --out=runs/fig14 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig14.py:small --out=runs/fig14_small
    python -m launch.sweep --config=experiments/fig14.py:medium \
        --out=runs/fig14_medium --config.dataset.data_dir=DIR

Paper (appendices A.4 and I.4): ResNet-26, weight decay 1e-5, learning rate x0.5 at
epochs 80, 150 and 200, end at 250, 32 seeds. CIFAR-10: flips, learning rate 0.02,
batches 480 500 520 (set A) and 80 100 120 (set B); CIFAR-100: no augmentation, batch
100, learning rates 0.0008 0.001 0.0012 (A) and 0.008 0.01 0.012 (B). Tr(H) (30 Gaussian
probes, log axis) at epoch 0, then every 10 epochs. Three observations: the order of A
and B stays as it is after 10 epochs, values of two epochs agree in rank across the sets
and less within each, B is the more accurate; all minimum training losses are at or
below 1e-2.

Published values: fisher_jax/report/items/figure14.py.

Expected time: 384 runs, 82 device-hours on A100s, 36 on H100s, 122 on TPU v5es
(``--estimate``, at 30% of their peak); small: 60 runs of 30 s on two CPU cores.

Open: on how many examples Tr(H) is taken, 1000 here.
"""

from experiments import cifar_resnet26, sweeps
from experiments.settings import FRESH_SEEDS
from experiments.sweeps import SweepRun

BATCH_SIZES = (480, 500, 520, 80, 100, 120)
LEARNING_RATES = (0.0008, 0.001, 0.0012, 0.008, 0.01, 0.012)
SMALL_LEARNING_RATES = (0.0024, 0.003, 0.0036, 0.024, 0.03, 0.036)
MEDIUM_LEARNING_RATES = (0.008, 0.01, 0.012, 0.08, 0.1, 0.12)
PAPER = {**cifar_resnet26.UNTIL_250, "measure.hessian_examples": 1000}
SMALL = {"measure.every_epochs": 5}


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns every run: data sets, the changed value, seeds."""
    sweeps.check_arg("fig14.py", arg)
    if arg == "small":
        run = _run("small", "digits_resnet8", SMALL)
        runs = sweeps.varied(run, "optimizer.learning_rate", SMALL_LEARNING_RATES)
        return sweeps.over_seeds(*runs, seeds=FRESH_SEEDS)
    if arg == "medium":
        run = _run("medium", "cifar10_resnet8", {"measure.hessian_examples": 1000})
        runs = sweeps.varied(run, "optimizer.learning_rate", MEDIUM_LEARNING_RATES)
        return sweeps.over_seeds(*runs, seeds=range(3))
    cifar10 = _run(
        "cifar10", "cifar10_resnet26", {**PAPER, "optimizer.learning_rate": 0.02}
    )
    cifar100 = _run("cifar100", "cifar100_resnet26", {**PAPER, "train.batch_size": 100})
    return sweeps.over_seeds(
        *sweeps.varied(cifar10, "train.batch_size", BATCH_SIZES),
        *sweeps.varied(cifar100, "optimizer.learning_rate", LEARNING_RATES),
        seeds=range(32),
    )


def _run(variant: str, setting: str, changes: sweeps.Changes) -> SweepRun:
    config = sweeps.changed(
        cifar_resnet26.get_config(variant),
        {"measure.hessian_probes": 30, "measure.hessian_every_epochs": 10, **changes},
    )
    return SweepRun(config, setting, "baseline", {})


get_config, get_sweep = sweeps.entry_points(get_runs)
