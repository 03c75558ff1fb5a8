"""With chunk_size=None memory is bounded, by XLA's own account of what is held."""

import jax
import jax.numpy as jnp
import pytest

from fisher_jax import loops
from fisher_jax.curvature import fisher_trace

BOUND = 2**30


def embedding(params, tokens):
    return jnp.mean(params["table"][tokens], axis=1) @ params["head"]


def shared(params, inputs):
    """A weight that is used twice has a gradient for each example."""
    hidden = jnp.tanh(jnp.tanh(inputs @ params["w"]) @ params["w"])
    return hidden @ params["head"]


def convolution(params, images):
    """The gradient of a wide kernel is made for each example, and reduced."""
    hidden = jax.lax.conv_general_dilated(
        images, params["kernel"], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jnp.mean(jnp.tanh(hidden), axis=(1, 2)) @ params["head"]


NETWORKS = {
    embedding: ({"table": (1000, 256), "head": (256, 5)}, (4096, 256), jnp.int32),
    shared: ({"w": (512, 512), "head": (512, 5)}, (4096, 512), jnp.float32),
    convolution: (
        {"kernel": (3, 3, 128, 256), "head": (256, 5)},
        (2048, 16, 16, 128),
        jnp.float32,
    ),
}


@pytest.mark.parametrize("form", ["of this device", "of an accelerator"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_a_trace_of_many_examples_stays_under_a_gibibyte(network, form, monkeypatch):
    """All at once each of them would hold more than 2 GiB."""
    if form == "of an accelerator":
        monkeypatch.setattr(
            loops, "on_one_cpu", lambda function, *args, cpu: function(*args)
        )
    shapes, batch, dtype = NETWORKS[network]
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))

    lowered = jax.jit(
        lambda params, inputs, key: fisher_trace(network, params, inputs, key).mean
    ).lower(params, jax.ShapeDtypeStruct(batch, dtype), key)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < BOUND


@pytest.mark.parametrize("estimator", ["per_example", "forward", "minibatch"])
def test_examples_that_chunks_do_not_divide_are_not_copied(estimator):
    images = jax.ShapeDtypeStruct((1001, 64, 64, 8), jnp.float32)

    def network(params, images):
        return jnp.mean(images, axis=(1, 2)) @ params

    def trace(params, images, key):
        return fisher_trace(
            network, params, images, key, estimator=estimator, chunk_size=100
        ).mean

    lowered = jax.jit(trace).lower(
        jax.ShapeDtypeStruct((8, 5), jnp.float32), images,
        jax.eval_shape(lambda: jax.random.key(0)),
    )  # fmt: skip
    held = lowered.compile().memory_analysis().temp_size_in_bytes
    assert held < images.size * 4 / 2
