import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fisher_jax.models.pooling import max_pool_2x2


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 7, 2), (2, 2, 3, 1)])
def test_values_and_gradients_are_those_of_flax(shape):
    inputs = jax.random.normal(jax.random.key(0), shape)

    def of_flax(x):
        return nn.max_pool(x, (2, 2), strides=(2, 2))

    pooled, pullback = jax.vjp(max_pool_2x2, inputs)
    expected, expected_pullback = jax.vjp(of_flax, inputs)
    np.testing.assert_array_equal(pooled, expected)
    cotangent = jax.random.normal(jax.random.key(1), pooled.shape)
    np.testing.assert_array_equal(
        pullback(cotangent)[0], expected_pullback(cotangent)[0]
    )


def test_a_gradient_is_shared_among_equal_maxima():
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, jnp.full((1, 2, 2, 1), 0.25))
