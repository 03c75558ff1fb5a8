"""ResNet-26 without batch norm of section 3: figures 2, 6, 7, 8, 9, 13 and 14.

    python main.py --config=experiments/cifar_resnet26.py:cifar100 \
        --workdir=runs/resnet26 --config.dataset.data_dir=DIR

Paper (section 3, figure 2): weight-normalised ResNet-26 initialised as Arpit et al.
2019, SGD, weight decay 1e-5, learning rate x0.5 at epochs 60, 120, 170 and 200, Tr(F)
on 5000 examples. CIFAR-10: flips, batch 256, epsilon 1.2; CIFAR-100: no augmentation,
batch 100, epsilon 3.5.

Variants (``:name``): cifar10 (default), cifar100, small (ResNet-8 on digits).

Expected time: --estimate tells; small: 20 s on two CPU cores.

Open: momentum is stated for section 4 only, 0.9 is taken here too; the total number of
epochs, 250 here; which variant of Arpit et al.'s initialisation, see
fisher_jax/models/weight_norm.py.
"""

from ml_collections import ConfigDict

from experiments import base

VARIANTS = ("cifar10", "cifar100", "small")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the setting; ``arg`` names the data set, one of VARIANTS."""
    variant = arg or VARIANTS[0]
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}, one of {', '.join(VARIANTS)}")
    config = base.get_config()
    config.model.name = "resnet"
    config.model.depth = 26
    config.model.normalisation = "weight_norm"
    config.optimizer.weight_decay = 1e-5
    config.optimizer.decay_factor = 0.5
    config.optimizer.decay_epochs = (60, 120, 170, 200)
    config.train.num_epochs = 250
    config.measure.fisher_examples = 5000
    config.measure.fisher_draw = "labels"
    if variant == "small":
        config.model.depth = 8
        config.dataset.num_train = 500
        config.train.batch_size = 50
        config.train.num_epochs = 40
        config.optimizer.learning_rate = 0.01
        config.optimizer.decay_epochs = (20, 30)
        config.measure.fisher_examples = 250
        config.measure.early_loss = 1.2
        config.checkpoint.every_epochs = 40
    elif variant == "cifar10":
        config.dataset.name = "cifar10"
        config.dataset.augment = "flip"
        config.train.batch_size = 256
        config.optimizer.learning_rate = 0.05
        config.measure.early_loss = 1.2
    else:
        config.dataset.name = "cifar100"
        config.train.batch_size = 100
        config.optimizer.learning_rate = 0.01
        config.measure.early_loss = 3.5
    return config
