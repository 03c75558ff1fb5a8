"""Networks of other than float32 products: lookups, low precision, rules, dropout."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import curvature, penalties

KEY = jax.random.key(0)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


TABLE = normal(0, 7, 3)
TOKENS = jnp.asarray([[0, 1, 1, 6], [2, 2, 2, 2], [5, 3, 0, 5]])
LOOKUPS = {
    "indexed": lambda p, x: p["table"][x],
    "taken, filled": lambda p, x: jnp.take(p["table"], x, axis=0),
    "outside, filled": lambda p, x: jnp.take(p["table"], x + 2, axis=0, fill_value=0.5),
    "outside, clipped": lambda p, x: jnp.take(p["table"], x + 2, axis=0, mode="clip"),
    "outside": lambda p, x: p["table"][x + 2],
    "from the end": lambda p, x: p["table"][-x],
    "columns": lambda p, x: jnp.moveaxis(jnp.take(p["table"].T, x, axis=1), 0, -1),
    "two numbers": lambda p, x: p["table"].reshape(7, 3)[x, x % 3][..., None],
    "rounded": lambda p, x: p["table"].astype(jnp.bfloat16)[x].astype(jnp.float32),
    "a slice": lambda p, x: p["table"][1:6][x % 5],
    "shared": lambda p, x: p["table"][x] + p["table"][(x + 1) % 7],
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_norms_of_looked_up_rows_are_those_of_the_whole_gradient(name):
    lookup = LOOKUPS[name]
    params = {"table": TABLE, "out": normal(1, 3, 4)}

    def network(p, x):
        h = jnp.tanh(lookup(p, x)).sum(axis=1)
        return h @ p["out"][: h.shape[-1]]

    def norm_of_one(x, label):
        def loss(p):
            return -jax.nn.log_softmax(network(p, x[None])[0])[label]

        return sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(params)))

    labels = jnp.asarray([0, 3, 1])
    got = curvature.squared_gradient_norms(network, params, TOKENS, labels)
    expected = [norm_of_one(x, y) for x, y in zip(TOKENS, labels, strict=True)]
    tolerance = 2e-2 if name == "rounded" else 1e-5
    assert_allclose(got, expected, rtol=tolerance)


def temporary_bytes(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("tied", [False, True])
def test_a_large_table_is_not_held_for_every_example(tied):
    vocabulary, width, batch = 50_000, 128, 32
    shape = jax.ShapeDtypeStruct
    params = {
        "table": shape((vocabulary, width), jnp.float32),
        "out": shape((width, 10), jnp.float32),
    }

    def network(p, tokens):
        h = p["table"][tokens].mean(axis=1)
        return h @ (p["table"].T if tied else p["out"])

    def norms(p, tokens, labels):
        return curvature.squared_gradient_norms(network, p, tokens, labels)

    args = (params, shape((batch, 16), jnp.int32), shape((batch,), jnp.int32))
    taken = temporary_bytes(norms, *args)
    # One gradient per example would take 781 MiB.
    assert taken < (2**26 if tied else 2**23)


def low(dtype):
    params = {"a": normal(0, 5, 6), "b": 0.5 * normal(1, 6, 3)}
    return jax.tree.map(lambda p: p.astype(dtype), params)


def mlp(p, x):
    return jnp.tanh(x.astype(p["a"].dtype) @ p["a"]) @ p["b"]


X, Y = normal(2, 20, 5), jnp.arange(20) % 3


def loss(p):
    log_p = jax.nn.log_softmax(mlp(p, X).astype(jnp.float32))
    return -jnp.mean(log_p[jnp.arange(20), Y])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_eigenvalues_and_xtrace_of_low_precision_parameters(dtype):
    params = low(dtype)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    flat, unravel = ravel_pytree(wide)
    hessian = jax.jit(jax.hessian(lambda v: loss(unravel(v))))(flat)
    largest = np.linalg.eigvalsh(hessian)[-1]

    @jax.jit
    def quantities(params):
        return (
            curvature.largest_eigenvalue(loss, params, KEY),
            curvature.hessian_xtrace(loss, params, KEY, num_products=30),
            curvature.hessian_xtrace(loss, params, KEY, num_products=100),
            curvature.largest_fisher_eigenvalue(mlp, params, X, KEY),
        )

    eigenvalue, xtrace, exact, of_fisher = quantities(params)
    assert eigenvalue.value.dtype == xtrace.mean.dtype == jnp.float32
    assert_allclose(eigenvalue.value, largest, rtol=0.03)
    assert_allclose(exact.mean, np.trace(hessian), rtol=0.03)
    assert abs(xtrace.mean - np.trace(hessian)) < 0.1 * np.trace(hessian)
    in_full = curvature.largest_fisher_eigenvalue(mlp, wide, X, KEY)
    assert_allclose(of_fisher.value, in_full.value, rtol=0.03)


def test_a_difference_below_float32_is_refused():
    def rounding(p, x):
        return mlp(jax.tree.map(lambda a: a.astype(jnp.bfloat16), p), x)

    for network, params in ((mlp, low(jnp.bfloat16)), (rounding, low(jnp.float32))):
        with pytest.raises(ValueError, match=r"expected 'exact'.*below float32"):
            penalties.fisher_penalty(
                network, params, X, KEY, method="finite_difference"
            )
    penalties.fisher_penalty(mlp, low(jnp.float32), X, KEY, method="finite_difference")


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


def with_rule(p, x):
    return square(jnp.tanh(x @ p["a"])) @ p["b"]


FORWARD = {
    "penalty": lambda p: jax.grad(
        lambda p: penalties.fisher_penalty(with_rule, p, X, KEY)
    )(p),
    "product": lambda p: curvature.fisher_vector_product(with_rule, p, X, p),
    "forward": lambda p: curvature.fisher_trace(
        with_rule, p, X, KEY, estimator="forward"
    ),
    "second": lambda p: curvature.hessian_trace(
        lambda p: with_rule(p, X).sum(), p, KEY, method="forward"
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_a_rule_without_forward_derivative_is_named(name):
    words = "finite_difference" if name == "penalty" else "jax.custom_jvp"
    with pytest.raises(TypeError, match=f"custom_vjp inside the function.*{words}"):
        FORWARD[name](low(jnp.float32))


def test_what_needs_no_forward_derivative_takes_such_a_rule():
    params = low(jnp.float32)

    def plain(p, x):
        return jnp.tanh(x @ p["a"]) ** 2 @ p["b"]

    def both(network):
        return (
            curvature.fisher_trace(network, params, X, KEY),
            curvature.hvp(lambda p: network(p, X).sum(), params, params),
            jax.grad(lambda p: penalties.input_gradient_penalty(network, p, X, Y))(
                params
            ),
            jax.grad(
                lambda p: penalties.fisher_penalty(
                    network, p, X, KEY, method="finite_difference"
                )
            )(params),
        )

    for got, expected in zip(
        jax.tree.leaves(both(with_rule)), jax.tree.leaves(both(plain)), strict=True
    ):
        assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def dropout(key):
    def network(p, x):
        keep = jax.random.bernoulli(key, 0.5, (len(x), 6))
        return jnp.where(keep, jnp.tanh(x @ p["a"]), 0) @ p["b"]

    return network


def test_dropout_with_a_key_of_its_own_is_warned_of_where_the_batch_is_cut():
    params, network = low(jnp.float32), dropout(KEY)
    cut = (
        lambda: curvature.fisher_trace(network, params, X, KEY),
        lambda: curvature.layer_fisher_traces(network, params, X, KEY),
        lambda: curvature.squared_gradient_norms(network, params, X, Y),
        lambda: curvature.fisher_trace(
            network, params, X, KEY, estimator="minibatch", chunk_size=4
        ),
        lambda: penalties.fisher_penalty(network, params, X, KEY, chunk_size=4),
    )
    for call in cut:
        with pytest.warns(UserWarning, match="dropout.*key for each example"):
            call()
    jitted = jax.jit(lambda k: curvature.fisher_trace(dropout(k), params, X, KEY))
    with pytest.warns(UserWarning, match="dropout"):
        jitted(KEY)


def test_dropout_of_the_whole_batch_or_with_keys_among_the_inputs_is_right():
    params, keys = low(jnp.float32), jax.random.split(KEY, 20)

    def network(p, inputs):
        x, keys = inputs
        draw = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (6,)))
        return jnp.where(draw(keys), jnp.tanh(x @ p["a"]), 0) @ p["b"]

    def unused(p, x):
        jax.random.split(KEY)
        jax.random.normal(KEY, (3,))
        return mlp(p, x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = curvature.fisher_trace(network, params, (X, keys), estimator="exact")
        alone = [
            curvature.fisher_trace(
                network, params, (X[i : i + 1], keys[i : i + 1]), estimator="exact"
            ).mean
            for i in range(3)
        ]
        first = curvature.fisher_trace(
            network, params, (X[:3], keys[:3]), estimator="exact"
        )
        penalties.fisher_penalty(dropout(KEY), params, X, KEY)
        curvature.fisher_trace(unused, params, X, KEY)
    assert_allclose(first.mean, np.mean(alone), rtol=1e-5)
    assert got.mean > 0
