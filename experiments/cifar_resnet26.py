"""ResNet-26 without batch norm of sections 3 and 5: figures 2, 6 to 9, 13 and 14.

    python main.py --config=experiments/cifar_resnet26.py:cifar100 \
        --workdir=runs/resnet26 --config.dataset.data_dir=DIR

Paper (section 3, appendices I.1 and I.4): ResNet-26 without batch norm, initialised as
by Arpit et al. 2019, SGD with momentum 0.9, weight decay 1e-5, Tr(F) on 5000 examples,
32 seeds. CIFAR-10: flips, batch 256, epsilon 1.2; CIFAR-100: no augmentation, batch
100, epsilon 3.5. Figures 2 and 7 to 9 (I.1): learning rate x0.5 at epochs 60, 120 and
170, end at 200. Figures 6, 13 and 14 (I.4, ``UNTIL_250``): at 80, 150 and 200, end at
250.

Variants (``:name``): cifar10 (default), cifar100, small (ResNet-8 on digits), medium
(ResNet-8 on 5000 images of CIFAR-10 at 16x16 pixels).

Expected time: --estimate tells; small: 30 s on two CPU cores.

Open: which variant of Arpit et al.'s initialisation, see
fisher_jax/models/weight_norm.py; whether examples are held out, none here; which
training loss crosses epsilon, here that of the whole training set at an epoch's end,
without augmentation.
"""

from ml_collections import ConfigDict

from experiments import base

VARIANTS = ("cifar10", "cifar100", "small", "medium")
UNTIL_250 = {"optimizer.decay_epochs": (80, 150, 200), "train.num_epochs": 250}


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
    config.optimizer.decay_epochs = (60, 120, 170)
    config.train.num_epochs = 200
    config.measure.fisher_examples = 5000
    config.measure.fisher_draw = "labels"
    if variant == "small":
        config.model.depth = 8
        config.dataset.num_train = 500
        config.train.batch_size = 50
        # Long enough for a rate of 0.003 to end at a training loss below 1e-2.
        config.train.num_epochs = 100
        config.optimizer.learning_rate = 0.01
        config.optimizer.decay_epochs = (60, 80)
        config.measure.fisher_examples = 250
        config.measure.early_loss = 1.2
        config.checkpoint.every_epochs = 100
    elif variant == "medium":
        config.dataset.name = "cifar10"
        config.dataset.num_train = 5000
        config.dataset.image_size = 16
        config.model.depth = 8
        config.train.batch_size = 100
        config.train.num_epochs = 64
        config.optimizer.learning_rate = 0.01
        config.optimizer.decay_factor = 0.1
        # Late, so that a rate of 0.01 ends at a training loss below 1e-2.
        config.optimizer.decay_epochs = (56, 60)
        config.measure.every_epochs = 2
        config.measure.fisher_examples = 1000
        config.measure.early_loss = 1.2
        config.checkpoint.every_epochs = 16
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
