"""VGG-11 for small images, without batch norm and dropout."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fisher_jax.models.convolution import convolution
from fisher_jax.models.he import he_normal
from fisher_jax.models.pooling import max_pool_2x2

# Output channels of the convolutions between two poolings: configuration A.
STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class VGG11(nn.Module):
    """Eight 3x3 convolutions, five 2x2 max poolings, dense 512, 512, C; all ReLU.

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015, configuration A. Their head of 4096 units is for 224x224
    images; the paper does not say which head it takes on CIFAR, and 512 -> 512 -> 512
    -> C is the usual one. Weights by He's scheme (the classifier's LeCun normal, as
    Flax draws it), biases 0.

    Parameters, 32x32x3: 9,750,922 for CIFAR-10, 9,797,092 for CIFAR-100, of them
    9,220,480 in the convolutions (as torchvision's ``vgg11().features``).

    Raises:
        ValueError: the images are too small for five poolings.
    """

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits in ``dtype``; ``train`` changes nothing in this network."""
        del train
        height, width = inputs.shape[1:3]
        if min(height, width) < 32:
            raise ValueError(
                f"images of {height}x{width} pixels are too small for VGG-11, "
                "which halves them five times"
            )
        hidden = inputs.astype(self.dtype)
        for stage in STAGES:
            for features in stage:
                conv = convolution(features, 3, use_bias=True, dtype=self.dtype)
                hidden = nn.relu(conv(hidden))
            hidden = max_pool_2x2(hidden)
        hidden = hidden.reshape(hidden.shape[0], -1)
        for _ in range(2):
            dense = nn.Dense(512, kernel_init=he_normal(), dtype=self.dtype)
            hidden = nn.relu(dense(hidden))
        return nn.Dense(self.num_classes, dtype=self.dtype)(hidden)
