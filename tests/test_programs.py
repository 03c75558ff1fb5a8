"""Which equations of a traced program are taken for equal."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from fisher_jax import curvature, programs


@contextlib.contextmanager
def simplified_constants(is_on):
    """Constants of a program stand in its equations, as JAX announces for all."""
    name = "jax_use_simplified_jaxpr_constants"
    before = getattr(jax.config, name)
    jax.config.update(name, is_on)
    try:
        yield
    finally:
        jax.config.update(name, before)


def long_constants():
    """Two arrays that look the same when printed."""
    first = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    second = first.copy()
    second[1000:1010] += 5
    assert repr(first) == repr(second)
    return first, second


@pytest.mark.parametrize("is_on", [False, True])
def test_long_constants_that_print_alike_are_told_apart(is_on):
    first, second = long_constants()
    random = np.random.default_rng(1)
    weight = 0.02 * random.normal(size=(2000, 2)).astype(np.float32)
    inputs = random.normal(size=(3, 2000)).astype(np.float32)
    labels = np.array([0, 1, 2])

    def logits_fn(params, x):
        products = [(x * first) @ params["w"], (x * second) @ params["w"]]
        return jnp.concatenate(products, axis=-1)

    def by_hand(x, y):
        scaled = np.stack([x * first, x * second])
        logits = (scaled @ weight).ravel()
        p = np.exp(logits - logits.max())
        deviation = p / p.sum() - np.eye(4)[y]
        return np.sum(np.square(scaled.T @ deviation.reshape(2, 2)))

    with simplified_constants(is_on):
        got = curvature.squared_gradient_norms(logits_fn, {"w": weight}, inputs, labels)
    expected = [by_hand(x, y) for x, y in zip(inputs, labels, strict=True)]
    assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("is_on", [False, True])
def test_equal_numbers_are_merged_and_unequal_ones_are_not(is_on):
    def function(x):
        return (x + 0.0, x + 0.0, x + -0.0, x + np.nan, x * 1, x * 1.5)

    with simplified_constants(is_on):
        x = jnp.full(2, -0.0)
        program = programs.flatten(function, x)
        got = programs.evaluate(program, [x], lambda *_: None)
    for value, expected in zip(got, function(x), strict=True):
        assert np.asarray(value).tobytes() == np.asarray(expected).tobytes()
    assert len(program.jaxpr.eqns) == 5
