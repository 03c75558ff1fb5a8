"""SimpleCNN: the Keras example CNN of the paper's CIFAR-10 experiments, no dropout."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fisher_jax.models.pooling import max_pool_2x2

# Per block, the padding of its two convolutions.
PADDINGS = {"same": ("SAME", "SAME"), "keras": ("SAME", "VALID")}
_SMALLEST_FOR_KERAS = 10  # pixels; two valid convolutions and two poolings leave one


class SimpleCNN(nn.Module):
    """conv32, conv32, maxpool2, conv64, conv64, maxpool2, dense128, dense C; all ReLU.

    Convolutions are 3x3. ``padding="keras"`` is the paper's: the first convolution of
    a block pads, the second does not. ``padding="same"`` pads all four, so that 8x8
    images fit. None takes the paper's wherever it fits. Initialised as Keras does:
    Glorot-uniform weights, zero biases.

    Parameters: 361,898 for 32x32x3, 10 classes, ``keras`` (of them 295,040 in
    dense128); 99,178 for 8x8x1, 10 classes, ``same``.

    Raises:
        ValueError: the images are too small for the padding.
    """

    num_classes: int
    padding: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits in ``dtype``; ``train`` changes nothing in this network."""
        del train
        height, width = inputs.shape[1:3]
        fits = min(height, width) >= _SMALLEST_FOR_KERAS
        padding = self.padding or ("keras" if fits else "same")
        glorot = nn.initializers.glorot_uniform()
        hidden = inputs.astype(self.dtype)
        for features in (32, 64):
            for edge in PADDINGS[padding]:
                hidden = nn.Conv(
                    features,
                    (3, 3),
                    padding=edge,
                    kernel_init=glorot,
                    dtype=self.dtype,
                )(hidden)
                hidden = nn.relu(hidden)
            if min(hidden.shape[1:3]) < 2:
                raise ValueError(
                    f"images of {height}x{width} pixels are too small for "
                    f"padding {padding!r}; use 'same'"
                )
            hidden = max_pool_2x2(hidden)
        hidden = hidden.reshape(hidden.shape[0], -1)
        hidden = nn.relu(nn.Dense(128, kernel_init=glorot, dtype=self.dtype)(hidden))
        return nn.Dense(self.num_classes, kernel_init=glorot, dtype=self.dtype)(hidden)
