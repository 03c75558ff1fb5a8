"""SkipInit: residual branches start switched off.

De and Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function
in Deep Networks", NeurIPS 2020, section 4.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class SkipInit(nn.Module):
    """Multiplies a residual branch by a learnt scalar that starts at 0."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, branch: Float[Array, "B *shape"]) -> Float[Array, "B *shape"]:
        """Returns the scaled branch, exactly 0 at initialisation."""
        scale = self.param("scale", nn.initializers.zeros, ())
        return scale.astype(self.dtype) * branch
