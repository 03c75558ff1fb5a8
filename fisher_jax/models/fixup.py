"""Fixup initialisation: residual networks without normalisation.

Zhang, Dauphin and Ma, "Fixup Initialization: Residual Learning Without Normalization",
ICLR 2019, section 3, read with the authors' code (hongyi-zhang/Fixup). Its rules:

1. The classifier and the last layer of each residual branch start at 0.
2. Other layers start by He's scheme; those inside a residual branch of m layers are
   scaled by L^(-1/(2m-2)), L the number of branches.
3. A scalar multiplier (at 1) ends each branch; a scalar bias (at 0) stands before each
   convolution, linear layer and activation.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from fisher_jax.models.he import he_normal


def branch_initialiser(num_branches: int, layers_per_branch: int = 2) -> Initializer:
    """Returns the initialiser of a branch's layers before its last (rule 2).

    Args:
        num_branches: L, of the whole network.
        layers_per_branch: m, at least 2.
    """
    # The scale L^(-1/(2m-2)) is one of weights, squared here for their variance.
    variance = 2.0 * num_branches ** (-1 / (layers_per_branch - 1))
    return he_normal("fan_out", variance)


class ScalarBias(nn.Module):
    """Adds one learnt scalar that starts at 0 (rule 3)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "B *shape"]) -> Float[Array, "B *shape"]:
        """Returns the inputs shifted by the scalar."""
        bias = self.param("bias", nn.initializers.zeros, ())
        return inputs + bias.astype(self.dtype)


class ScalarMultiplier(nn.Module):
    """Multiplies by one learnt scalar that starts at 1 (rule 3)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "B *shape"]) -> Float[Array, "B *shape"]:
        """Returns the inputs times the scalar."""
        scale = self.param("scale", nn.initializers.ones, ())
        return inputs * scale.astype(self.dtype)
