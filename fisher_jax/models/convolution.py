"""The convolution that the networks for images are made of."""

from typing import Any

from flax import linen as nn
from jax.nn.initializers import Initializer

from fisher_jax.models.he import he_normal


def convolution(
    features: int,
    kernel_size: int,
    strides: int = 1,
    *,
    dtype: Any,
    name: str | None = None,
    use_bias: bool = False,
    kernel_init: Initializer | None = None,
) -> nn.Conv:
    """Returns a square one that pads as much as keeps the size, by He's scheme.

    Args:
        kernel_size: odd.
        kernel_init: None: He's, by the number of inputs.
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding=kernel_size // 2,
        use_bias=use_bias,
        kernel_init=kernel_init or he_normal(),
        dtype=dtype,
        name=name,
    )
