"""ResNet-18 with Fixup on ImageNet: figures 2 and 8, the ImageNet points.

    python main.py --config=experiments/imagenet_resnet18_fixup.py:eta_0.1 \
        --workdir=runs/imagenet_eta_0.1 --config.dataset.data_dir=DIR

Paper (figures 2 and 8, section 3, appendix I.1): ResNet-18 without batch norm, Fixup,
SGD with momentum 0.9, batch 256, learning rates 0.001, 0.01 and 0.1, x0.1 after 29
epochs, weight decay 1e-4, around 50 epochs, no augmentation, 2 seeds; Tr(F) on 2500
examples, its early value at the first epoch whose training loss is below 3.5.

Variants (``:name``): eta_0.1 (default), eta_0.01, eta_0.001.

Published values: fisher_jax/report/items/figure2.py.

Expected time: 8.2 h on one NVIDIA A100, an estimate: 651 PFLOP, 30% of its peak
(``python -m launch.sweep --estimate --config=experiments/imagenet_resnet18_fixup.py``).
Decoding is the other bound: 1.28 million photographs an epoch, some 500 a second and
core.

Open: the images' size: resized to 256 pixels, of which the middle 224 are kept; which
training loss crosses epsilon, here that of 50,000 random training examples at an
epoch's end, to save reading all of them again; the test split, TFDS's ``validation``
here; whether examples are held out, none here.
"""

from ml_collections import ConfigDict

from experiments import base, methods

VARIANTS = {
    f"eta_{rate}": {"optimizer.learning_rate": rate} for rate in (0.1, 0.01, 0.001)
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the setting; ``arg`` names the learning rate, a key of VARIANTS."""
    config = base.get_config()
    config.dataset.name = "imagenet2012"
    config.dataset.resize_size = 256
    config.dataset.crop_size = 224
    config.model.name = "fixup_resnet"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_epochs = (29,)
    config.train.num_epochs = 50
    config.train.batch_size = 256
    config.measure.train_examples = 50_000
    config.measure.fisher_examples = 2500
    config.measure.fisher_draw = "labels"
    config.measure.early_loss = 3.5
    # At 224 x 224 pixels more would fill a device's memory.
    config.measure.batch_size = 256
    config.measure.chunk_size = 32
    return methods.apply(config, VARIANTS, arg or "eta_0.1")
