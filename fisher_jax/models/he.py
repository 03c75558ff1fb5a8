"""He initialisation: weights of a ReLU network drawn so that signals keep their size.

He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", ICCV 2015, section 2.2.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, Key


def he_normal(mode: str = "fan_in", variance: float = 2.0) -> Initializer:
    """Returns an initialiser that draws from N(0, variance / fan), not truncated.

    Args:
        mode: "fan_in" keeps the mean square of activations in the forward pass (their
            equation 10), "fan_out" that of gradients in the backward pass (14). With
            either, the other differs by a constant factor.
        variance: 2 makes up for the half of the square that a ReLU removes.
    """

    def initialise(
        key: Key[Array, ""],
        shape: Any,
        dtype: Any = jnp.float32,
        out_sharding: Any = None,
    ) -> Float[Array, "..."]:
        del out_sharding
        *window, features_in, features_out = shape
        features = {"fan_in": features_in, "fan_out": features_out}[mode]
        deviation = math.sqrt(variance / (math.prod(window) * features))
        # XLA:CPU takes a second to compile the generator for each new shape, and a
        # DenseNet has 39 of them. Few sizes are shared by all: the powers of two.
        size = math.prod(shape)
        draws = jax.random.normal(key, (1 << (size - 1).bit_length(),), dtype)
        return deviation * draws[:size].reshape(shape)

    return initialise
