"""Weight-normalised convolutions with the initialisation of Arpit et al. 2019.

Weight normalisation (Salimans and Kingma, NeurIPS 2016) writes the weights of output
channel o as w_o = g_o v_o / ‖v_o‖: a length and a direction, both learnt.

Arpit, Campos and Bengio, "How to Initialize your Network? Robust Initialization for
WeightNorm & ResNets", NeurIPS 2019, read with the authors' code
(victorcampos7/weightnorm-init, "orthogonal_proposed"): directions orthogonal, biases 0
and all lengths of a layer g = √(κ · in / out), in and out its numbers of channels.
An isotropic direction then gives ‖output‖² = κ ‖input‖² on average over directions,
both summed over the channels of a position, so that norms are kept with

* κ = 2 where a ReLU follows, which removes half of the square,
* κ = 1 where none does,
* κ = 1/b in the last layer of a residual branch, b blocks in the stage: each block
  then multiplies the squared norm by 1 + 1/b, a stage by (1 + 1/b)^b < e.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

# κ where a ReLU follows and where nothing does.
RELU_GAIN, LINEAR_GAIN = 2.0, 1.0


class WeightNormConv(nn.Module):
    """A weight-normalised convolution with a square odd kernel, padded by its half.

    Its output depends on the direction of ``direction`` only, not on its length. It
    is not linear in that parameter, so that Tr(H) = Tr(F), exact for piecewise linear
    layers, does not hold for networks built of these.

    Attributes:
        features: output channels.
        kernel_size: width of the kernel.
        gain: κ, by which the squared norm of a position is multiplied at
            initialisation.
        strides: step between output positions.
        dtype: of the convolution; weights are normalised in the parameters' dtype.
    """

    features: int
    kernel_size: int
    gain: float
    strides: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B H W channels"]
    ) -> Float[Array, "B h w features"]:
        """Returns the convolution of the inputs."""
        channels = inputs.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        length = (self.gain * channels / self.features) ** 0.5
        direction = self.param("direction", nn.initializers.orthogonal(), shape)
        lengths = self.param(
            "length", nn.initializers.constant(length), (self.features,)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        squares = jnp.sum(direction**2, axis=(0, 1, 2))
        kernel = direction * (lengths * lax.rsqrt(squares))
        padding = self.kernel_size // 2
        outputs = lax.conv_general_dilated(
            inputs.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.strides, self.strides),
            padding=((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return outputs + bias.astype(self.dtype)
