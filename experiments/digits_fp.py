"""Fisher Penalty on scikit-learn's digits with 25% label noise: section 4.1 in small.

    python main.py --config=experiments/digits_fp.py --workdir=runs/digits_fp
    python main.py --config=experiments/digits_fp.py:baseline --workdir=runs/baseline

The embedded default: real images that ship with scikit-learn, nothing to download.
Variants: fp (default), rfp, gp, gp_r, gp_x, mixup, baseline.
"""

from ml_collections import ConfigDict

from experiments import base, methods

# Those of fp, rfp and mixup have the best validation accuracy after the last epoch, in
# the mean over seeds 100, 101 and 102 (the demo's is 0), with 200 of the 1000 examples
# held out (dataset.num_validation=200). In %, 86.3 without help:
#   fp     0.03 90.8, 0.1 94.3, 0.2 83.0 (once 56.0), 0.3 85.2 (once 70.5)
#   rfp    0.3 96.8, 0.6 97.3, 1.0 96.7
#   mixup  1.6 94.7, 3.2 95.5, 6.4 95.7 (the end of the paper's grid)
# On seed 100 alone, and left out: fp 0.5 55.0; rfp 0.1 92.0, 2.0 91.0; mixup 0.2 86.0,
# 0.4 87.5, 0.8 92.0. gp, gp_r and gp_x are not tuned.
VARIANTS: dict[str, methods.Changes] = {
    "baseline": {},
    "fp": {"penalty.name": "fisher", "penalty.coefficient": 0.1},
    "rfp": {
        "penalty.name": "fisher",
        "penalty.draw": "rademacher",
        "penalty.coefficient": 0.6,
    },
    "gp": {"penalty.name": "gradient", "penalty.coefficient": 0.1},
    "gp_r": {"penalty.name": "random_label", "penalty.coefficient": 0.1},
    "gp_x": {"penalty.name": "input_gradient", "penalty.coefficient": 1.0},
    "mixup": {"mixup.beta": 6.4},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the setting; ``arg`` names the method, a key of VARIANTS."""
    config = base.get_config()
    config.dataset.label_noise = 0.25
    config.train.num_epochs = 150
    # Without it the last epoch of the penalised runs jitters by several points.
    config.optimizer.decay_epochs = (120,)
    config.measure.fisher_examples = 250
    return methods.apply(config, VARIANTS, arg or "fp")
