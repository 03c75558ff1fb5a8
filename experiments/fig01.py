"""Figure 1: the catastrophic Fisher explosion, Wide ResNet on TinyImageNet.

    python -m launch.sweep --config=experiments/fig01.py --out=runs/fig01 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig01.py:small --out=runs/fig01_small
    python -m launch.sweep --config=experiments/fig01.py:medium \
        --out=runs/fig01_medium --config.dataset.data_dir=DIR

Paper (figure 1): learning rates 0.0316 and 0.001, validation accuracy and Tr(F)
against epoch. With the small one Tr(F) explodes early and the network generalises
worse (accuracies: fisher_jax/report/items/table1.py).

Expected time: 6 runs, 28 device-hours on A100s, 12 on H100s, 41 on TPU v5es
(``--estimate``, at 30% of their peak); small: 40 runs of 8 s on two CPU cores.

Open: how many seeds; the figure has no bands. Here 3 (small: 20). What the figure calls
validation accuracy, as this setting has no validation split: the test split's here.
"""

from experiments import sweeps
from experiments.settings import CIFAR10_PART, DIGITS, TINY_IMAGENET
from experiments.sweeps import SweepRun


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns the runs of both learning rates."""
    sweeps.check_arg("fig01.py", arg)
    setting = {"small": DIGITS, "medium": CIFAR10_PART}.get(arg, TINY_IMAGENET)
    rates = (0.03, 0.003) if arg else (0.0316, 0.001)
    runs = [
        setting.run(method, rate)._replace(group={"learning_rate": rate})
        for method, rate in zip(("eta_star", "baseline"), rates, strict=True)
    ]
    return sweeps.over_seeds(*runs, seeds=setting.seeds)


get_config, get_sweep = sweeps.entry_points(get_runs)
