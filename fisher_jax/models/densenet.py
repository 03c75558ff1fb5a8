"""DenseNet for small images, the plain form without bottleneck and compression."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fisher_jax.models.batch_norm import batch_norm
from fisher_jax.models.convolution import convolution

NUM_BLOCKS = 3
STEM_FEATURES = 16


class PreactivatedConv(nn.Module):
    """Batch norm, ReLU, convolution without bias."""

    features: int
    kernel_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool
    ) -> Float[Array, "B H W features"]:
        """Returns the convolution of the normalised, rectified inputs."""
        hidden = nn.relu(batch_norm(train, self.dtype)(inputs))
        return convolution(self.features, self.kernel_size, dtype=self.dtype)(hidden)


class DenseNet(nn.Module):
    """Three blocks whose layers each see all earlier layers' outputs of the block.

    Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional
    Networks", CVPR 2017, sections 3 and 4.2: a 3x3 convolution to 16 channels, then
    (depth - 4) / 3 layers a block, each BN-ReLU-3x3 convolution to ``growth_rate``
    channels that are appended to its input; between blocks BN-ReLU-1x1 convolution
    that keeps the number of channels and 2x2 average pooling; BN-ReLU, global average
    pooling and a linear classifier at the end. Without the dropout of 0.2 that they
    add when there is no augmentation. Weights by He's scheme (the classifier's LeCun
    normal, as Flax draws it).

    Parameters, 32x32x3, depth 40 and growth rate 12: 1,019,722 for CIFAR-10 and
    1,060,132 for CIFAR-100; published: 1.0M (their table 2).

    Raises:
        ValueError: no network of this depth.
    """

    num_classes: int
    depth: int = 40
    growth_rate: int = 12
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits in ``dtype``; ``train`` normalises by this batch."""
        stem = convolution(STEM_FEATURES, 3, dtype=self.dtype, name="stem")
        hidden = stem(inputs.astype(self.dtype))
        for block in range(NUM_BLOCKS):
            if block > 0:
                name = f"transition{block}"
                hidden = PreactivatedConv(
                    hidden.shape[-1], 1, dtype=self.dtype, name=name
                )(hidden, train)
                hidden = nn.avg_pool(hidden, (2, 2), strides=(2, 2))
            for layer in range(layers_per_block(self.depth)):
                name = f"block{block + 1}_layer{layer + 1}"
                new = PreactivatedConv(
                    self.growth_rate, 3, dtype=self.dtype, name=name
                )(hidden, train)
                hidden = jnp.concatenate([hidden, new], axis=-1)
        hidden = nn.relu(batch_norm(train, self.dtype)(hidden))
        hidden = jnp.mean(hidden, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(hidden)


def layers_per_block(depth: int) -> int:
    """Returns n where depth = 3 n + 4: stem, two transitions and classifier are 4.

    Raises:
        ValueError: there is none.
    """
    layers, rest = divmod(depth - 4, NUM_BLOCKS)
    if layers < 1 or rest:
        raise ValueError(f"depth must be 3 n + 4, such as 40, got {depth}")
    return layers
