"""Residual networks for small images: ResNet-26, ResNet-56 and their like.

With batch norm as He et al. 2016 build them, or weight-normalised and initialised as
Arpit et al. 2019 do.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fisher_jax.models.batch_norm import batch_norm
from fisher_jax.models.convolution import convolution
from fisher_jax.models.weight_norm import LINEAR_GAIN, RELU_GAIN, WeightNormConv

WIDTHS = (16, 32, 64)
NORMALISATIONS = ("batch_norm", "weight_norm")


class ResNet(nn.Module):
    """Three stages of (depth - 2) / 6 blocks of two 3x3 convolutions; 16, 32, 64 wide.

    ``batch_norm``: He, Zhang, Ren and Sun, "Deep Residual Learning for Image
    Recognition", CVPR 2016, section 4.2: shortcuts without parameters (option A), ReLU
    after the addition, convolutions without bias, He's initialisation.

    ``weight_norm``: the network of Arpit, Campos and Bengio, NeurIPS 2019
    (``weight_norm.py`` has the initialisation): no ReLU after the stem and after the
    addition, 1x1 convolutions as shortcuts where the shape changes, every convolution
    weight-normalised with a bias; the classifier is not. The paper does not say which
    form of their work it uses for its "ResNet-26 without batch norm".

    The classifier is LeCun normal, as Flax draws it.

    Parameters, 32x32x3:

    | depth | form        | CIFAR-10 | CIFAR-100 |
    |-------|-------------|----------|-----------|
    | 26    | batch_norm  | 366,938  | 372,788   |
    | 26    | weight_norm | 369,690  | 375,540   |
    | 56    | batch_norm  | 853,018  | 858,868   |
    | 56    | weight_norm | 855,770  | 861,620   |

    Published: 0.27M, 0.46M, 0.66M, 0.85M and 1.7M for depths 20, 32, 44, 56 and 110
    with batch norm on CIFAR-10 (their table 6).

    Raises:
        ValueError: no network of this depth, or unknown normalisation.
    """

    num_classes: int
    depth: int = 26
    normalisation: str = "batch_norm"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits in ``dtype``; ``train`` normalises by this batch."""
        check_normalisation(self.normalisation, NORMALISATIONS)
        num_blocks = blocks_per_stage(self.depth)
        hidden = self._stem(inputs.astype(self.dtype), train)
        for stage, features in enumerate(WIDTHS):
            for block in range(num_blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                if self.normalisation == "batch_norm":
                    hidden = BatchNormBlock(
                        features, strides, dtype=self.dtype, name=name
                    )(hidden, train)
                else:
                    hidden = WeightNormBlock(
                        features, strides, num_blocks, dtype=self.dtype, name=name
                    )(hidden)
        hidden = jnp.mean(hidden, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(hidden)

    def _stem(
        self, inputs: Float[Array, "B H W channels"], train: bool
    ) -> Float[Array, "B H W 16"]:
        if self.normalisation == "weight_norm":
            return WeightNormConv(
                WIDTHS[0], 3, LINEAR_GAIN, dtype=self.dtype, name="stem"
            )(inputs)
        hidden = convolution(WIDTHS[0], 3, dtype=self.dtype, name="stem")(inputs)
        return nn.relu(batch_norm(train, self.dtype)(hidden))


class BatchNormBlock(nn.Module):
    """relu(shortcut + branch), branch conv-BN-ReLU-conv-BN."""

    features: int
    strides: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool
    ) -> Float[Array, "B h w features"]:
        """Returns the block's output."""
        hidden = convolution(self.features, 3, self.strides, dtype=self.dtype)(inputs)
        hidden = nn.relu(batch_norm(train, self.dtype)(hidden))
        hidden = convolution(self.features, 3, dtype=self.dtype)(hidden)
        hidden = batch_norm(train, self.dtype)(hidden)
        return nn.relu(padded_shortcut(inputs, self.features, self.strides) + hidden)


class WeightNormBlock(nn.Module):
    """shortcut + branch, branch conv-ReLU-conv, all weight-normalised.

    Attributes:
        num_blocks: in the stage; the branch starts scaled by 1/√num_blocks.
    """

    features: int
    strides: int
    num_blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"]
    ) -> Float[Array, "B h w features"]:
        """Returns the block's output."""
        hidden = WeightNormConv(
            self.features, 3, RELU_GAIN, self.strides, dtype=self.dtype, name="conv1"
        )(inputs)
        hidden = WeightNormConv(
            self.features, 3, 1 / self.num_blocks, dtype=self.dtype, name="conv2"
        )(nn.relu(hidden))
        if inputs.shape == hidden.shape:
            return inputs + hidden
        shortcut = WeightNormConv(
            self.features,
            1,
            LINEAR_GAIN,
            self.strides,
            dtype=self.dtype,
            name="shortcut",
        )
        return shortcut(inputs) + hidden


def padded_shortcut(
    inputs: Float[Array, "B H W channels"], features: int, strides: int
) -> Float[Array, "B h w features"]:
    """He's option A: every ``strides``-th position, zeros as the new channels."""
    kept = inputs[:, ::strides, ::strides]
    missing = features - inputs.shape[-1]
    return jnp.pad(kept, ((0, 0), (0, 0), (0, 0), (0, missing)))


def blocks_per_stage(depth: int) -> int:
    """Returns n where depth = 6 n + 2: three stages of n blocks, stem and classifier.

    Raises:
        ValueError: there is none.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth must be 6 n + 2, such as 26, 44 or 56, got {depth}")
    return blocks


def check_normalisation(name: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless ``name`` is one of ``choices``."""
    if name not in choices:
        raise ValueError(
            f"normalisation {name!r} is not one of {', '.join(choices)} here"
        )
