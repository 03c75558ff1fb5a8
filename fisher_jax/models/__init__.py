"""Flax models, one file per architecture, and the literal dict of their names.

No training, no data, no penalties here; a model maps images to logits. Every class
takes ``num_classes`` and ``dtype`` (of the computation; parameters are float32). Its
other fields, with the paper's values as their defaults, are the keys of
``config.model`` that it takes.

bfloat16 is for accelerators, and a run refuses it on the CPU: there jax 0.12 (jaxlib
0.12.0.1) compiles two bfloat16 convolutions of 128 channels and more that follow each
other into one YNNPACK call, which returns zeros or NaN, so that VGG-11 and Wide ResNet
evaluate wrongly. float32 is not concerned.
"""

from flax import linen as nn

from fisher_jax.models.densenet import DenseNet
from fisher_jax.models.fixup_resnet import FixupResNet
from fisher_jax.models.resnet import ResNet
from fisher_jax.models.simple_cnn import SimpleCNN
from fisher_jax.models.vgg import VGG11
from fisher_jax.models.wide_resnet import WideResNet

MODELS: dict[str, type[nn.Module]] = {
    "simple_cnn": SimpleCNN,
    "vgg11": VGG11,
    "densenet": DenseNet,
    "wide_resnet": WideResNet,
    "resnet": ResNet,
    "fixup_resnet": FixupResNet,
}
