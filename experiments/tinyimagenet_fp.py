"""Wide ResNet on TinyImageNet with the Fisher Penalty: row 1 of tables 1 and 2, fig. 1.

    python main.py --config=experiments/tinyimagenet_fp.py

Paper (tables 1 and 2, figure 1, appendix I.2): 100,000 training images of 200 classes,
downsized to 32x32; Wide ResNet of depth 44 and width 3 with batch norm, SGD with
momentum 0.9, batch 128, 300 epochs, learning rate x0.1 at epochs 150 and 225, weight
decay 1e-4, always augmented (pad 4, random crop, horizontal flip), no validation split,
the penalty recomputed every 10 steps, Tr(F) on one batch. eta* is 0.0316, the baseline
eta*/30 (0.001 in figure 1). The penalty normalises by its batch; Tr(F), Tr(H) and
accuracies use statistics that are estimated anew on 100 training batches.

Variants (``:name``): fp (default), eta_star, baseline (these two are figure 1), gp_x,
gp, gp_r, rfp (ours); fp_eta_star is table 2's FP.

Published values: fisher_jax/report/items/table1.py and table2.py.

Expected time: 7 h on one NVIDIA A100, an estimate: 251 PFLOP, 30% of its peak
(``python -m launch.sweep --estimate --config=experiments/tinyimagenet_fp.py``).

Open: how alpha was chosen "according to validation accuracy" without a validation
split; ``table1.py`` takes the best test accuracy and selection.json says so, and
``dataset.num_validation`` makes a split. The chosen alpha: the centre of the paper's
grid (of 5 values here). How images are downsized to 32x32, see
``fisher_jax/data/tiny_imagenet.py``. The inputs' normalisation, per channel
here. In which mode batch norm is inside the penalty: ``penalty.batch_norm``, train.
Whether its statistics are estimated anew for Tr(F) too, and not "in testing" alone;
here they are. What is open in the penalties themselves: ``experiments/methods.py``.
"""

from ml_collections import ConfigDict

from experiments import base, methods

ETA_STAR, BASELINE = 0.0316, 0.001
VARIANTS = {
    **methods.table_1(ETA_STAR, BASELINE),
    "fp_eta_star": {
        "optimizer.learning_rate": ETA_STAR,
        **methods.PENALTY_CHANGES["fp"],
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the setting; ``arg`` names the method, a key of VARIANTS."""
    config = base.get_config()
    config.dataset.name = "tiny_imagenet"
    config.dataset.augment = "standard"
    config.model.name = "wide_resnet"
    config.model.depth = 44
    config.model.width = 3
    config.model.normalisation = "batch_norm"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_epochs = (150, 225)
    config.train.num_epochs = 300
    config.penalty.batch_norm = "train"
    config.measure.fisher_examples = 128
    config.measure.fisher_draw = "labels"
    config.measure.early_loss = 3.5
    config.eval.reestimate_batch_norm = 100
    return methods.apply(config, VARIANTS, arg or "fp")
