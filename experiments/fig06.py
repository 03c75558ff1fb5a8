"""Figures 6 and 13: what the first 20 epochs leave behind.

    python -m launch.sweep --config=experiments/fig06.py --out=runs/fig06 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig06.py:small --out=runs/fig06_small
    python -m launch.sweep --config=experiments/fig06.py:medium \
        --out=runs/fig06_medium --config.dataset.data_dir=DIR

Paper (section 5, appendices A.4 and I.4): a ResNet-26 is trained for 20 epochs under a
HIGH and one under a LOW regularisation configuration; from the parameters of each, 8
runs continue under LOW until they converge. CIFAR-100 (figure 6): the learning rate
differs; CIFAR-10 (figure 13): the batch size, at learning rate 0.02. Bars of Tr(F) at
the end of the 20 epochs, histograms of Tr(H) at the best-test-accuracy epoch (30
probes) and of best test accuracy.

Published values: fisher_jax/report/items/figure6.py and figure13.py.

Expected time: 36 runs, 12 device-hours on A100s, 4.5 on H100s, 13 on TPU v5es
(``--estimate``, at 30% of their peak); small: 60 runs of 10 to 30 s on two CPU cores.

Open: the configurations' values, taken from figure 14: learning rate 0.01 (HIGH) and
0.001 (LOW), batch 100 (HIGH) and 500 (LOW); whether the 20 epochs count: here they do,
the continuation's rate falls after its epochs 60, 130 and 180 and it ends at 230; Tr(H)
on 1000 examples; what differs between continuations, here the order of their batches.
``train.init_from`` takes parameters only, momentum starts at zero. The small form
starts each continuation from an early run of its own, so that its pairs are
independent. The medium form varies the rate alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments import cifar_resnet26, sweeps
from experiments.settings import FRESH_SEEDS, MEDIUM_SEEDS, SMALL_SEEDS
from experiments.sweeps import SweepRun


class Pair(NamedTuple):
    """A setting with its two early configurations.

    Attributes:
        setting: as the report calls it.
        variant: of experiments/cifar_resnet26.py.
        changes: what all its runs change in that.
        high, low: the two configurations.
        seeds: of the early runs, each with those of its continuations.
        early_epochs: of the first phase.
    """

    setting: str
    variant: str
    changes: sweeps.Changes
    high: sweeps.Changes
    low: sweeps.Changes
    seeds: Mapping[int, Sequence[int]]
    early_epochs: int = 20


PAPER = {**cifar_resnet26.UNTIL_250, "measure.hessian_examples": 1000}
CIFAR100 = Pair(
    "cifar100_resnet26",
    "cifar100",
    PAPER,
    {"optimizer.learning_rate": 0.01, "train.batch_size": 100},
    {"optimizer.learning_rate": 0.001, "train.batch_size": 100},
    {0: range(1, 9)},
)
CIFAR10 = Pair(
    "cifar10_resnet26",
    "cifar10",
    PAPER,
    {"optimizer.learning_rate": 0.02, "train.batch_size": 100},
    {"optimizer.learning_rate": 0.02, "train.batch_size": 500},
    {0: range(1, 9)},
)
SMALL = Pair(
    "digits_resnet8",
    "small",
    {"measure.every_epochs": 5},
    {"optimizer.learning_rate": 0.03},
    {"optimizer.learning_rate": 0.003},
    {seed: (seed,) for seed in SMALL_SEEDS},
    # By then the training loss has crossed epsilon under both, as in the paper.
    early_epochs=10,
)
SMALL_BATCHES = Pair(
    "digits_resnet8_batches",
    "small",
    {"measure.every_epochs": 5},
    {"optimizer.learning_rate": 0.02, "train.batch_size": 25},
    {"optimizer.learning_rate": 0.02, "train.batch_size": 125},
    {seed: (seed,) for seed in FRESH_SEEDS},
    early_epochs=10,
)
MEDIUM = Pair(
    "cifar10_resnet8",
    "medium",
    {"measure.hessian_examples": 1000, "measure.hessian_every_epochs": 8},
    {"optimizer.learning_rate": 0.1},
    {"optimizer.learning_rate": 0.01},
    {seed: (seed,) for seed in MEDIUM_SEEDS},
    early_epochs=8,
)


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns the early runs and their continuations."""
    sweeps.check_arg("fig06.py", arg)
    pairs = {"small": (SMALL, SMALL_BATCHES), "medium": (MEDIUM,)}.get(
        arg, (CIFAR100, CIFAR10)
    )
    return [run for pair in pairs for run in _pair_runs(pair)]


def _pair_runs(pair: Pair) -> list[SweepRun]:
    config = sweeps.changed(
        cifar_resnet26.get_config(pair.variant),
        {"measure.hessian_probes": 30, **pair.changes},
    )
    runs = []
    for name, early in (("high", pair.high), ("low", pair.low)):
        first = SweepRun(
            sweeps.changed(config, {**early, "train.num_epochs": pair.early_epochs}),
            pair.setting,
            "baseline",
            {"phase": "early", "early": name},
        )
        for seed, continued in pair.seeds.items():
            (own,) = sweeps.over_seeds(first, seeds=(seed,))
            later = first._replace(
                config=_continuation(config, pair, own.name),
                group={"phase": "continued", "early": name},
            )
            runs += [own, *sweeps.over_seeds(later, seeds=continued)]
    return runs


def _continuation(config: ConfigDict, pair: Pair, first: str) -> ConfigDict:
    """The rest of the schedule under LOW, from the parameters of ``first``."""
    decays = [epoch - pair.early_epochs for epoch in config.optimizer.decay_epochs]
    return sweeps.changed(
        config,
        {
            **pair.low,
            "train.init_from": f"OUT/{first}",
            "train.num_epochs": config.train.num_epochs - pair.early_epochs,
            "optimizer.decay_epochs": tuple(decays),
        },
    )


get_config, get_sweep = sweeps.entry_points(get_runs)
