"""Wide residual networks for small images, with batch norm or with SkipInit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fisher_jax.models.batch_norm import batch_norm
from fisher_jax.models.convolution import convolution
from fisher_jax.models.resnet import WIDTHS, blocks_per_stage, check_normalisation
from fisher_jax.models.skip_init import SkipInit

NORMALISATIONS = ("batch_norm", "skip_init")


class WideResNet(nn.Module):
    """Three stages of (depth - 2) / 6 pre-activated blocks, 16, 32, 64 x width wide.

    Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, blocks B(3,3) without
    dropout: a 3x3 convolution to 16 channels; branches BN-ReLU-conv-BN-ReLU-conv;
    where the shape changes, the shortcut is a 1x1 convolution of the rectified input;
    BN-ReLU and global average pooling at the end. They count 6 n + 4 layers, the
    convolutions of the shortcuts included, where this paper's depth 44 means 6 n + 2
    with n = 7: their WRN-40-4 is depth 38, width 4 here.

    ``skip_init`` (De and Smith 2020, ``skip_init.py``) leaves batch norm out and
    multiplies each branch by a learnt scalar that starts at 0; convolutions then have
    biases, in place of batch norm's.

    Weights by He's scheme (the classifier's LeCun normal, as Flax draws it), biases 0.

    Parameters, 32x32x3, depth 44 and width 3:

    | form       | CIFAR-10  | CIFAR-100 | TinyImageNet |
    |------------|-----------|-----------|--------------|
    | batch_norm | 5,910,810 | 5,928,180 | 5,947,480    |
    | skip_init  | 5,906,447 | 5,923,817 | 5,943,117    |

    No count is published for 44-3. The authors' 0.6M, 2.2M, 8.9M, 11.0M and 36.5M for
    WRN-40-1, 40-2, 40-4, 16-8 and 28-10 on CIFAR-10 are this class's too.

    Raises:
        ValueError: no network of this depth, or unknown normalisation.
    """

    num_classes: int
    depth: int = 44
    width: int = 3
    normalisation: str = "batch_norm"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits in ``dtype``; ``train`` normalises by this batch."""
        check_normalisation(self.normalisation, NORMALISATIONS)
        has_bias = self.normalisation == "skip_init"
        stem = convolution(
            WIDTHS[0], 3, use_bias=has_bias, dtype=self.dtype, name="stem"
        )
        hidden = stem(inputs.astype(self.dtype))
        for stage, features in enumerate(WIDTHS):
            for block in range(blocks_per_stage(self.depth)):
                hidden = PreactivatedBlock(
                    features * self.width,
                    strides=2 if stage > 0 and block == 0 else 1,
                    normalisation=self.normalisation,
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(hidden, train)
        hidden = nn.relu(_normalise(self.normalisation, train, self.dtype)(hidden))
        hidden = jnp.mean(hidden, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(hidden)


class PreactivatedBlock(nn.Module):
    """shortcut + branch, branch (BN-)ReLU-conv-(BN-)ReLU-conv(-SkipInit)."""

    features: int
    strides: int
    normalisation: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool
    ) -> Float[Array, "B h w features"]:
        """Returns the block's output."""
        has_bias = self.normalisation == "skip_init"
        conv = partial(convolution, self.features, use_bias=has_bias, dtype=self.dtype)
        hidden = nn.relu(_normalise(self.normalisation, train, self.dtype)(inputs))
        shortcut = inputs
        if inputs.shape[-1] != self.features or self.strides > 1:
            shortcut = conv(1, self.strides, name="shortcut")(hidden)
        hidden = conv(3, self.strides, name="conv1")(hidden)
        hidden = nn.relu(_normalise(self.normalisation, train, self.dtype)(hidden))
        hidden = conv(3, name="conv2")(hidden)
        if self.normalisation == "skip_init":
            hidden = SkipInit(dtype=self.dtype, name="skip_init")(hidden)
        return shortcut + hidden


def _normalise(normalisation: str, train: bool, dtype: Any) -> Callable[[Array], Array]:
    if normalisation == "batch_norm":
        return batch_norm(train, dtype)
    return lambda hidden: hidden
