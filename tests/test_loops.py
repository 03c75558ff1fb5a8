import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose, assert_array_equal

from fisher_jax import loops

# (lhs, kernel, out) dimension orders: XLA:CPU's own, its transposes, and others.
LAYOUTS = [
    ("NHWC", "HWIO", "NHWC"),
    ("NHWC", "HWOI", "NHWC"),
    ("CHWN", "IHWO", "HWNC"),
    ("NCHW", "OIHW", "NCHW"),
]


def convolve(x, kernel, layout):
    return lax.conv_general_dilated(
        x, kernel, (1, 2), "SAME", dimension_numbers=layout, rhs_dilation=(2, 1)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_convolutions_in_a_loop_keep_their_values(layout):
    random = np.random.default_rng(0)
    sizes = {"N": 2, "H": 6, "W": 7, "C": 3}
    x = jnp.asarray(random.normal(size=(3, *(sizes[d] for d in layout[0]))))
    kernel_sizes = {"H": 3, "W": 3, "I": 3, "O": 5}
    kernel = jnp.asarray(random.normal(size=[kernel_sizes[d] for d in layout[1]]))
    got = jax.jit(lambda x: loops.map_slices(lambda y: convolve(y, kernel, layout), x))
    expected = jnp.stack([convolve(y, kernel, layout) for y in x])
    assert_allclose(got(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA:CPU")
def test_every_convolution_of_a_backward_pass_in_a_loop_has_the_fast_order():
    def loss(kernels, x):
        for kernel in kernels:
            x = lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUTS[0]
            )
            x = jnp.tanh(x)
        return jnp.sum(x)

    x = jnp.ones((3, 2, 6, 6, 4))
    kernels = [jnp.ones((3, 3, 4, 4))] * 3

    def gradients(kernels, x):
        return loops.map_slices(lambda y: jax.grad(loss)(kernels, y), x)

    text = jax.jit(gradients).lower(kernels, x).compile().as_text()
    assert "while(" in text
    orders = set(re.findall(r"convolution\(.*dim_labels=(\S+?)(?:,|$)", text, re.M))
    assert orders == {"b01f_01io->b01f"}


def test_equal_expressions_in_a_loop_are_computed_once():
    def body(x):
        return jnp.tanh(x @ x) + jax.jit(lambda x: jnp.tanh(x @ x))(x)

    text = str(jax.make_jaxpr(loops.loop_body(body))(jnp.eye(3)))
    assert text.count("dot_general") == 1
    assert text.count("tanh") == 1


def test_effects_and_random_bits_survive_rewriting():
    seen = []

    def body(key):
        bits = jax.random.bits(key, (3,))
        jax.debug.callback(lambda b: seen.append(np.asarray(b)), bits, ordered=True)
        jax.debug.callback(lambda b: seen.append(np.asarray(b)), bits, ordered=True)
        return bits

    key = jax.random.key(0)
    got = loops.loop_body(body)(key)
    jax.effects_barrier()
    assert_allclose(got, jax.random.bits(key, (3,)))
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("batch", "chunk_size"),
    [(7, 3), (8, 4), (5, 4), (3, 1), (4, 9), (111, 10), (6, None)],
)
def test_chunks_are_level_and_every_row_counts_once(batch, chunk_size):
    rows = jnp.arange(batch)
    sizes = []

    def one_chunk(chunk, weights):
        sizes.append(len(weights))
        return jnp.zeros(batch).at[chunk].add(weights)

    assert_array_equal(loops.sum_chunks(one_chunk, rows, chunk_size), jnp.ones(batch))
    count, size = loops.levelled(batch, chunk_size)
    assert set(sizes) == {size}
    assert size <= (chunk_size or batch)
    assert 0 <= count * size - batch < min(count, size)
    doubled = loops.map_chunks(lambda r: 2 * r, rows, chunk_size)
    assert_array_equal(doubled, 2 * rows)
