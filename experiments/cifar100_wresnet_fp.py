"""Wide ResNet with SkipInit on CIFAR-100 with the Fisher Penalty: row 4 of table 1.

    python main.py --config=experiments/cifar100_wresnet_fp.py \
        --workdir=runs/cifar100_wresnet_fp --config.dataset.data_dir=DIR

Paper (tables 1 and 2, appendix I.2): Wide ResNet of depth 44 and width 3 without batch
norm, SkipInit, SGD with momentum 0.9, batch 128, 300 epochs, learning rate x0.1 at
epochs 150 and 225, weight decay 1e-3, no augmentation (table 2: pad 4, random crop,
horizontal flip), 5000 random validation examples, the penalty recomputed every 10
steps, Tr(F) on one batch.

Variants (``:name``): fp (default), eta_star, baseline, gp_x, gp, gp_r, rfp (ours); of
table 2 eta_star_augmented, fp_augmented.

Published values: fisher_jax/report/items/table1.py and table2.py.

Expected time: 2.9 h on one NVIDIA A100, an estimate: 110 PFLOP, 30% of its peak
(``python -m launch.sweep --estimate --config=experiments/cifar100_wresnet_fp.py``).

Open: the chosen eta* and alpha. 0.0316 is our reading of "five log-spaced values in
[1e-2, 1e0]" for a network without batch norm, alpha the centre of the paper's grid;
``table1.py`` searches both. What is open in the penalties themselves:
``experiments/methods.py``.
"""

from ml_collections import ConfigDict

from experiments import base, methods

ETA_STAR = 0.0316
VARIANTS = {**methods.table_1(ETA_STAR, ETA_STAR / 10), **methods.table_2(ETA_STAR)}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the setting; ``arg`` names the method, a key of VARIANTS."""
    config = base.get_config()
    config.dataset.name = "cifar100"
    config.dataset.num_validation = 5000
    config.model.name = "wide_resnet"
    config.model.depth = 44
    config.model.width = 3
    config.model.normalisation = "skip_init"
    config.optimizer.weight_decay = 1e-3
    config.optimizer.decay_epochs = (150, 225)
    config.train.num_epochs = 300
    config.measure.fisher_examples = 128
    config.measure.fisher_draw = "labels"
    config.measure.early_loss = 3.5
    return methods.apply(config, VARIANTS, arg or "fp")
