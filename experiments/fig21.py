"""Figure 21: Tr(H) against Tr(F) on a minibatch, three networks.

    python -m launch.sweep --config=experiments/fig21.py --out=runs/fig21 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig21.py:small --out=runs/fig21_small

Paper (appendix F): DenseNet, ResNet-56 and SimpleCNN; Tr(H) (30 Gaussian probes)
against Tr(F) "using a mini-batch", hence of "smaller magnitude": the minibatch form
Tr(F_B), ``trace/fisher_minibatch`` here. They correlate strongly; no numbers are
printed. Both are in every record, with the per-example Tr(F), which for networks that
are piecewise linear in each layer's weights equals Tr(H) on the same examples, whatever
the labels (docs/theory.md), so that only the estimates' noise separates these two.

Expected time: --estimate tells; small: 9 runs of 25 s on two CPU cores.

Open: the data sets, here DenseNet on CIFAR-100, the others on CIFAR-10; ResNet-56,
which no appendix describes, here with batch norm and weight decay 1e-4, otherwise as
SimpleCNN; the learning rates, here the settings' baselines; on how many examples Tr(H)
is taken, here on the minibatch; how many seeds, here 3.
"""

from experiments import sweeps
from experiments.settings import DENSENET, DIGITS, FEW_SEEDS, SIMPLE_CNN
from experiments.sweeps import SweepRun

MEASURED = {
    "measure.fisher_examples": 128,
    "measure.hessian_examples": 128,
    "measure.hessian_probes": 30,
}
RESNET_56 = {
    "model.name": "resnet",
    "model.depth": 56,
    "model.normalisation": "batch_norm",
    "optimizer.weight_decay": 1e-4,
    "eval.reestimate_batch_norm": 100,
}
SMALL = {"train.num_epochs": 40, "optimizer.decay_epochs": (30,)}
SMALL_NETWORKS: dict[str, sweeps.Changes] = {
    "digits_densenet": {
        "model.name": "densenet",
        "model.depth": 10,
        "model.growth_rate": 6,
        "model.padding": None,
    },
    "digits_resnet8": {
        "model.name": "resnet",
        "model.depth": 8,
        "model.normalisation": "batch_norm",
        "model.padding": None,
    },
    "digits_simplecnn": {},
}


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns the runs of each network."""
    sweeps.check_arg("fig21.py", arg, ("small",))
    if arg == "small":
        config = sweeps.changed(
            DIGITS.run("baseline", 0.01).config, {**MEASURED, **SMALL}
        )
        runs = [
            SweepRun(sweeps.changed(config, changes), name, "baseline", {})
            for name, changes in SMALL_NETWORKS.items()
        ]
        return sweeps.over_seeds(*runs, seeds=FEW_SEEDS)
    runs = [
        setting.run("baseline", setting.eta_star / setting.slower)
        for setting in (DENSENET, SIMPLE_CNN)
    ]
    resnet = runs[1]._replace(
        setting="cifar10_resnet56", config=sweeps.changed(runs[1].config, RESNET_56)
    )
    runs = [
        run._replace(config=sweeps.changed(run.config, MEASURED))
        for run in (*runs, resnet)
    ]
    return sweeps.over_seeds(*runs, seeds=SIMPLE_CNN.seeds)


get_config, get_sweep = sweeps.entry_points(get_runs)
