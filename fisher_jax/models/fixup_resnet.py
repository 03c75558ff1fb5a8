"""ResNet-18 for ImageNet without normalisation, initialised by Fixup."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fisher_jax.models.convolution import convolution
from fisher_jax.models.fixup import ScalarBias, ScalarMultiplier, branch_initialiser
from fisher_jax.models.he import he_normal

STEM_FEATURES = 64


class FixupResNet(nn.Module):
    """7x7 convolution, max pooling, four stages of basic blocks, average pooling.

    The ResNet-18 of He, Zhang, Ren and Sun, CVPR 2016 (1x1 convolutions as shortcuts
    where the shape changes: option B) without batch norm, with the scalars and the
    initialisation of Zhang, Dauphin and Ma, ICLR 2019 (``fixup.py``): every branch and
    the logits are exactly 0 at initialisation. The authors' code leaves the 7x7
    convolution at PyTorch's default; here it follows He's scheme, as their paper says.

    Parameters, 224x224x3, 1000 classes: 11,679,954; published for ResNet-18 with batch
    norm: 11,689,512 (torchvision), of which 9,600 are batch norm's and 42 scalars
    replace them.

    Attributes:
        blocks: in each stage; (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) ResNet-34.
    """

    num_classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits in ``dtype``; ``train`` changes nothing in this network."""
        del train
        he = he_normal("fan_out")
        stem = convolution(
            STEM_FEATURES, 7, 2, kernel_init=he, dtype=self.dtype, name="stem"
        )
        hidden = stem(inputs.astype(self.dtype))
        hidden = nn.relu(ScalarBias(dtype=self.dtype, name="stem_bias")(hidden))
        hidden = nn.max_pool(hidden, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, num_blocks in enumerate(self.blocks):
            for block in range(num_blocks):
                hidden = FixupBlock(
                    STEM_FEATURES * 2**stage,
                    strides=2 if stage > 0 and block == 0 else 1,
                    num_branches=sum(self.blocks),
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(hidden)
        hidden = jnp.mean(hidden, axis=(1, 2))
        hidden = ScalarBias(dtype=self.dtype, name="classifier_bias")(hidden)
        return nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="classifier",
        )(hidden)


class FixupBlock(nn.Module):
    """relu(shortcut + branch), branch conv-ReLU-conv between scalars.

    Attributes:
        num_branches: of the whole network.
    """

    features: int
    strides: int
    num_branches: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"]
    ) -> Float[Array, "B h w features"]:
        """Returns the block's output."""
        conv = partial(convolution, self.features, dtype=self.dtype)
        in_branch = branch_initialiser(self.num_branches)
        shifted = ScalarBias(dtype=self.dtype, name="bias1a")(inputs)
        conv1 = conv(3, self.strides, kernel_init=in_branch, name="conv1")
        hidden = conv1(shifted)
        hidden = nn.relu(ScalarBias(dtype=self.dtype, name="bias1b")(hidden))
        hidden = ScalarBias(dtype=self.dtype, name="bias2a")(hidden)
        conv2 = conv(3, kernel_init=nn.initializers.zeros, name="conv2")
        hidden = conv2(hidden)
        hidden = ScalarMultiplier(dtype=self.dtype, name="multiplier")(hidden)
        hidden = ScalarBias(dtype=self.dtype, name="bias2b")(hidden)
        if inputs.shape == hidden.shape:
            return nn.relu(inputs + hidden)
        he = he_normal("fan_out")
        shortcut = conv(1, self.strides, kernel_init=he, name="shortcut")
        # As in the authors' code, the shortcut shares the branch's first bias.
        return nn.relu(shortcut(shifted) + hidden)
