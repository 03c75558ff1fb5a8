"""DenseNet on CIFAR-100 with the Fisher Penalty: row 2 of tables 1 and 2.

    python main.py --config=experiments/cifar100_densenet_fp.py \
        --workdir=runs/cifar100_densenet_fp --config.dataset.data_dir=DIR

Paper (tables 1 and 2, appendix I.2): plain DenseNet, L = 40, k = 12, with batch norm,
SGD with momentum 0.9, batch 128, 300 epochs, learning rate x0.1 at epochs 150 and 225,
weight decay 1e-4, no augmentation (table 2: pad 4, random crop, horizontal flip), 5000
random validation examples, the penalty recomputed every 10 steps, Tr(F) on one batch.
The penalty normalises by its batch; Tr(F), Tr(H) and accuracies use statistics that are
estimated anew on 100 training batches.

Variants (``:name``): fp (default), eta_star, baseline, gp_x, gp, gp_r, rfp (ours); of
table 2 eta_star_augmented, fp_augmented.

Published values: fisher_jax/report/items/table1.py and table2.py.

Expected time: 3 h on one NVIDIA A100, an estimate: 43 PFLOP by XLA's count, at 20% of
the float32 peak of 19.5 TFLOP/s (``python -m launch.sweep --estimate
--config=experiments/cifar100_densenet_fp.py`` also counts traffic of memory).

Open: the chosen eta* and alpha. 0.1 is our reading of "five log-spaced values in [1e-2,
1e0]" for a network with batch norm (it is also what DenseNet's authors take), alpha the
centre of the paper's grid; ``table1.py`` searches both. In which mode batch norm is
inside the penalty: ``penalty.batch_norm``, train. Whether statistics are estimated anew
for Tr(F) too, and not "in testing" alone; here they are. What is open in the penalties
themselves: ``experiments/methods.py``.
"""

from ml_collections import ConfigDict

from experiments import base, methods

ETA_STAR = 0.1
VARIANTS = {**methods.table_1(ETA_STAR, ETA_STAR / 10), **methods.table_2(ETA_STAR)}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the setting; ``arg`` names the method, a key of VARIANTS."""
    config = base.get_config()
    config.dataset.name = "cifar100"
    config.dataset.num_validation = 5000
    config.model.name = "densenet"
    config.model.depth = 40
    config.model.growth_rate = 12
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_epochs = (150, 225)
    config.train.num_epochs = 300
    config.penalty.batch_norm = "train"
    config.measure.fisher_examples = 128
    config.measure.fisher_draw = "labels"
    config.measure.early_loss = 3.5
    config.eval.reestimate_batch_norm = 100
    return methods.apply(config, VARIANTS, arg or "fp")
