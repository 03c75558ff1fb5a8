"""Norms of matrices that are used several times, against gradients per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from numpy.testing import assert_allclose

from fisher_jax import curvature, programs
from fisher_jax.curvature import _shared
from tests.curvature.networks import jit

VOCABULARY, WIDTH, BATCH = 5, 3, 4


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


PARAMS = {
    "table": normal(0, VOCABULARY, WIDTH),
    "square": 0.5 * normal(1, WIDTH, WIDTH),
    "in": normal(2, WIDTH, WIDTH),
}
# Tokens that come twice in an example, and out of bounds.
TOKENS = jnp.asarray([[0, 1, 0, 2], [3, 3, 3, 3], [4, 2, 1, 2], [0, 9, -1, 1]])
LABELS = jnp.asarray([[0, 1, 2, 3], [4, 3, 2, 1], [1, 1, 0, 4], [2, 2, 3, 0]])


def transposed(p, x):
    return jnp.tanh(p["table"][x] @ p["in"]) @ p["table"].T


def by_einsum(p, x):
    h = jnp.take(p["table"], x, axis=0, mode="fill", fill_value=0.0)
    return jnp.einsum("vd,btd->btv", p["table"], jnp.tanh(h @ p["in"]))


def columns(p, x):
    table = p["table"].T
    return jnp.tanh(jnp.moveaxis(table[:, x], 0, -1) @ p["in"]) @ table


def often(p, x):
    h = p["table"][x] + 0.5 * jnp.tanh(p["table"].T[:, (x + 1) % 5]).transpose(1, 2, 0)
    back = jax.nn.softmax(h @ p["table"].T) @ p["table"]
    return jax.checkpoint(jnp.tanh)(back @ p["in"]) @ p["table"].T


def lookups(p, x):
    h = p["table"][x] * p["table"][(x + 1) % 5]
    return h @ p["in"] @ normal(3, WIDTH, VOCABULARY)


def autoencoder(p, x):
    h = jnp.tanh(p["table"][x] @ p["square"])
    h = jnp.tanh(h @ p["square"].T) @ p["square"]
    return h @ normal(3, WIDTH, VOCABULARY)


def squared(p, x):
    return p["table"][x] @ (p["square"] @ p["square"]) @ normal(3, WIDTH, VOCABULARY)


def beside_another(p, x):
    """The product with ``in`` is its only place, and one of the table's."""
    return p["table"][x] @ (p["table"] @ p["in"]).T


NETWORKS = {
    transposed: {"table"},
    by_einsum: {"table"},
    columns: {"table"},
    often: {"table"},
    lookups: {"table"},
    autoencoder: {"square"},
    squared: {"square"},
    beside_another: {"table"},
}


def of_every_example(network, params, tokens=TOKENS, labels=LABELS):
    """‖gradient‖² by vmap of grad."""

    def loss(p, x, y):
        log_p = jax.nn.log_softmax(network(p, x[None])[0])
        return -jnp.sum(jnp.take_along_axis(log_p, y[:, None], axis=1))

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(params, tokens, labels)
    return sum(jnp.sum(g**2, axis=(1, 2)) for g in gradients.values())


def names_of_shared(network):
    program = programs.flatten(network, PARAMS, TOKENS[:1])
    names = sorted(PARAMS)
    return {names[s.leaf] for s in _shared.find_shared(program, len(names))}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_norms_are_those_of_gradients_per_example(network):
    assert names_of_shared(network) == NETWORKS[network]
    got = jit(lambda p: curvature.squared_gradient_norms(network, p, TOKENS, LABELS))
    expected = jit(lambda p: of_every_example(network, p))
    assert_allclose(got(PARAMS), expected(PARAMS), rtol=1e-11)


def along_both_axes(p, x):
    return p["table"][x][..., :WIDTH] + p["table"][:, x % 3].transpose(1, 2, 0)[..., :3]


def elementwise(p, x):
    return p["table"][x] @ (2 * p["table"]).T


def sliced(p, x):
    return p["table"][x] @ p["table"][:4].T


def in_every_step(p, x):
    def step(h, _):
        return jnp.tanh(h @ p["square"]), None

    return jax.lax.scan(step, p["table"][x] @ p["square"], None, length=2)[0]


@pytest.mark.parametrize(
    "network", [along_both_axes, elementwise, sliced, in_every_step]
)
def test_other_uses_leave_a_gradient_for_each_example(network):
    assert names_of_shared(network) == set()
    got = jit(
        lambda p: curvature.squared_gradient_norms(network, p, TOKENS, LABELS % 3)
    )
    expected = jit(lambda p: of_every_example(network, p, labels=LABELS % 3))
    assert_allclose(got(PARAMS), expected(PARAMS), rtol=1e-11)


def test_the_exact_trace_and_its_derivative_pass_through():
    tokens = TOKENS[:3]

    def exact(p):
        return curvature.fisher_trace(often, p, tokens, estimator="exact").mean

    def by_definition(p):
        probabilities = jax.nn.softmax(often(p, tokens))
        rows = jnp.arange(tokens.shape[1])

        def of_position(position, label):
            def log_p(p, x):
                return jax.nn.log_softmax(often(p, x[None])[0, position])[label]

            gradients = jax.vmap(jax.grad(log_p), (None, 0))(p, tokens)
            return sum(jnp.sum(g**2, axis=(1, 2)) for g in gradients.values())

        classes = jnp.arange(VOCABULARY)
        each = jax.vmap(lambda t: jax.vmap(lambda c: of_position(t, c))(classes))(rows)
        return jnp.mean(jnp.einsum("btc,tcb->b", probabilities, each))

    (got, slopes), (expected, their_slopes) = jit(
        lambda p: (jax.value_and_grad(exact)(p), jax.value_and_grad(by_definition)(p))
    )(PARAMS)
    assert_allclose(got, expected, rtol=1e-11)
    for name in PARAMS:
        assert_allclose(slopes[name], their_slopes[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("split", ["inputs", "targets"])
def test_what_is_added_varies_over_devices_as_inputs_or_targets_do(split):
    """One device is enough: a type that does not fit is an error."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    along = {True: PartitionSpec("d"), False: PartitionSpec()}
    mapped = jax.shard_map(
        lambda *args: curvature.squared_gradient_norms(transposed, *args),
        mesh=mesh,
        in_specs=(along[False], along[split == "inputs"], along[split == "targets"]),
        out_specs=along[True],
    )
    expected = jit(lambda p: of_every_example(transposed, p))
    got = jit(mapped)(PARAMS, TOKENS, LABELS)
    assert_allclose(got, expected(PARAMS), rtol=1e-11)


def test_norms_of_a_rounded_table_are_summed_in_float32():
    def rounded(p, x):
        table = p["table"].astype(jnp.bfloat16)
        logits = jnp.tanh(table[x]) @ table.T
        return logits.astype(jnp.float32)

    params = {"table": jnp.asarray(PARAMS["table"], jnp.float32)}
    got = curvature.squared_gradient_norms(rounded, params, TOKENS, LABELS)
    full = of_every_example(lambda p, x: jnp.tanh(p["table"][x]) @ p["table"].T, params)
    assert got.dtype == jnp.float32
    assert_allclose(got, full, rtol=0.05)
