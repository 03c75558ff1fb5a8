"""Figure 21: Tr(H) against Tr(F) on a minibatch, three networks.

    python -m launch.sweep --config=experiments/fig21.py --out=runs/fig21 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig21.py:small --out=runs/fig21_small

Paper (appendix): DenseNet, ResNet-56 and SimpleCNN; Tr(H) (30 Gaussian probes) and
Tr(F) on the same minibatch of 128 along training; they correlate strongly. For
networks that are piecewise linear in each layer's weights they are equal, whatever the
labels (docs/theory.md), and only the estimates' noise separates them. No numbers are
printed.

Expected time: --estimate tells; small: 3 runs of 20 s on two CPU cores.

Open: data sets (DenseNet on CIFAR-100, the others on CIFAR-10), ResNet-56 with batch
norm and DenseNet's schedule; learning rates are the settings' baselines; one seed.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.settings import DENSENET, DIGITS, SIMPLE_CNN
from experiments.sweeps import Changes, SweepRun, changed, check_arg, overrides

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
SMALL_NETWORKS: dict[str, Changes] = {
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


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "") -> list[SweepRun]:
    """Returns one run for each network."""
    check_arg("fig21.py", arg)
    if arg == "small":
        config = changed(
            DIGITS.run("baseline", 0.003).config,
            {
                **MEASURED,
                "train.num_epochs": 12,
                "optimizer.decay_epochs": (),
                "measure.every_epochs": 3,
            },
        )
        return [
            SweepRun(changed(config, changes), name, "baseline", {})
            for name, changes in SMALL_NETWORKS.items()
        ]
    runs = [
        setting.run("baseline", setting.eta_star / setting.slower)
        for setting in (DENSENET, SIMPLE_CNN)
    ]
    resnet = runs[1]._replace(
        setting="cifar10_resnet56", config=changed(runs[1].config, RESNET_56)
    )
    return [
        run._replace(config=changed(run.config, MEASURED)) for run in (*runs, resnet)
    ]
