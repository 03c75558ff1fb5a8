"""Every function for every likelihood, with and without a mask, against dense matrices.

The oracle is written apart from the product: one example at a time, the law of targets
summed or integrated by hand, derivatives by reverse mode.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import curvature, penalties
from fisher_jax.curvature import Bernoulli, Categorical, Gaussian
from tests.curvature.networks import jit
from tests.tiers import some

BATCH, POSITIONS, WIDTH, VOCABULARY = 3, 4, 3, 5
LIKELIHOODS = (Categorical(), Bernoulli(), Gaussian(scale=0.7))
KEY_COUNT = 1000


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def mlp(p, x):
    return jnp.tanh(x @ p["in"]) @ p["out"]


def convolution(p, x):
    h = jax.lax.conv_general_dilated(
        x, p["in"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jnp.tanh(h) @ p["out"]


def attention(p, tokens):
    h = p["table"][tokens] + p["place"]
    queries, keys, values = (h @ p[name] for name in ("query", "key", "value"))
    scores = jax.nn.softmax(queries @ jnp.swapaxes(keys, 1, 2))
    h = h + scores @ values
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-2)
    return (p["scale"] * h) @ p["out"]


def tied(p, tokens):
    """Rows looked up twice, and the same table again for the outputs."""
    h = p["table"][tokens] + 0.5 * p["table"][jnp.roll(tokens, 1, axis=1)]
    return jnp.tanh(h @ p["in"]) @ p["table"][:WIDTH].T


SHAPES = {
    mlp: {"in": (2, 4), "out": (4, WIDTH)},
    convolution: {"in": (3, 2, 3), "out": (3, WIDTH)},
    attention: {
        "table": (VOCABULARY, 3),
        "place": (POSITIONS, 3),
        "query": (3, 3),
        "key": (3, 3),
        "value": (3, 3),
        "scale": (3,),
        "out": (3, WIDTH),
    },
    tied: {"table": (VOCABULARY, 3), "in": (3, 3)},
}


class Case(NamedTuple):
    network: Any
    params: Any
    inputs: Any
    targets: Any
    likelihood: Any
    mask: Any

    @property
    def options(self):
        return {"likelihood": self.likelihood, "mask": self.mask}

    @property
    def args(self):
        return self.network, self.params, self.inputs


def build(network, likelihood, masked, scale=0.8):
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda shape: jnp.asarray(scale * random.normal(size=shape)),
        SHAPES[network],
        is_leaf=lambda s: isinstance(s, tuple),
    )
    if network in (attention, tied):
        # Tokens that come twice in an example.
        inputs = jnp.asarray([[0, 1, 0, 2], [3, 3, 3, 3], [4, 2, 1, 2]])
    else:
        inputs = jnp.asarray(random.normal(size=(BATCH, POSITIONS, 2)))
    shape = (BATCH, POSITIONS)
    if likelihood == Categorical():
        targets = random.integers(WIDTH, size=shape)
    elif likelihood == Bernoulli():
        shape = (*shape, WIDTH)
        targets = random.integers(2, size=shape)
    else:
        shape = (*shape, WIDTH)
        targets = random.normal(size=shape)
    mask = jnp.asarray(random.random(shape) < 0.6) if masked else None
    return Case(network, params, inputs, jnp.asarray(targets), likelihood, mask)


def laws(likelihood, row):
    """Of outputs [C] at one position: (probability, ∂loss/∂outputs) of every target.

    A Gaussian's are the two points at ± scale for each output, whose covariance is the
    law's.
    """
    if likelihood == Categorical():
        p = np.exp(row - row.max())
        p /= p.sum()
        return [(p[c], p - np.eye(len(p))[c]) for c in range(len(p))]
    if likelihood == Bernoulli():
        p = 1 / (1 + np.exp(-row))
        answers = itertools.product([0, 1], repeat=len(row))
        return [
            (np.prod(np.where(np.array(y) == 1, p, 1 - p)), p - np.array(y))
            for y in answers
        ]
    signs = itertools.product([-1, 1], repeat=len(row))
    return [(0.5 ** len(row), np.array(s) / likelihood.scale) for s in signs]


def kept_rows(case, example):
    """What of the outputs [T, C] of an example is kept."""
    if case.mask is None:
        return np.ones((POSITIONS, WIDTH))
    mask = np.asarray(case.mask[example], float)
    return np.broadcast_to(mask.reshape(POSITIONS, -1), (POSITIONS, WIDTH))


@functools.cache
def dense(network, likelihood, masked):
    """The Fisher [P, P], and the squared gradient norms [B] for the targets."""
    case = build(network, likelihood, masked)
    flat, unravel = ravel_pytree(case.params)

    def outputs(v):
        return case.network(unravel(v), case.inputs)

    values = np.asarray(outputs(flat))
    jacobian = np.asarray(jit(jax.jacrev(outputs))(flat))
    fisher, norms = np.zeros((flat.size, flat.size)), []
    for i in range(BATCH):
        keep, gradient = kept_rows(case, i), np.zeros(flat.size)
        for t in range(POSITIONS):
            rows = jacobian[i, t] * keep[t][:, None]
            for probability, v in laws(likelihood, values[i, t]):
                pulled = rows.T @ v
                fisher += probability * np.outer(pulled, pulled) / BATCH
            gradient += rows.T @ slope(likelihood, values[i, t], case.targets[i, t])
        norms.append(gradient @ gradient)
    return fisher, np.array(norms)


def slope(likelihood, row, target):
    """∂loss/∂outputs by JAX, of losses written out here."""
    if likelihood == Categorical():
        return jax.grad(lambda o: -jax.nn.log_softmax(o)[target])(row)
    if likelihood == Bernoulli():
        return jax.grad(lambda o: jnp.sum(jnp.logaddexp(0, o) - target * o))(row)
    return jax.grad(lambda o: jnp.sum((o - target) ** 2) / 2 / likelihood.scale**2)(row)


ALL = list(itertools.product(SHAPES, LIKELIHOODS, [False, True]))
# Attention takes longest to compile.
BY_DEFAULT = [c for c in ALL if c[0] is mlp or (c[2] and c[1] == Categorical())]
EVERY = pytest.mark.parametrize(
    ("network", "likelihood", "masked"),
    some(ALL, BY_DEFAULT),
    ids=lambda v: getattr(v, "__name__", str(v)),
)


@EVERY
def test_everything_that_is_exact(network, likelihood, masked):
    case = build(network, likelihood, masked)
    fisher, norms = dense(network, likelihood, masked)
    flat, unravel = ravel_pytree(case.params)
    vector = np.random.default_rng(1).normal(size=flat.size)

    @jit
    def everything(params, key):
        args = (case.network, params, case.inputs)
        return {
            "trace": curvature.fisher_trace(*args, estimator="exact", **case.options),
            "cut": curvature.fisher_trace(
                *args, estimator="exact", chunk_size=2, **case.options
            ),
            "layers": curvature.layer_fisher_traces(
                *args, estimator="exact", **case.options
            ),
            "norms": curvature.squared_gradient_norms(
                *args, case.targets, **case.options
            ),
            "diagonal": curvature.fisher_diagonal(
                *args, estimator="exact", **case.options
            ),
            "product": curvature.fisher_vector_product(
                *args, unravel(vector), **case.options
            ),
            "pairs": curvature.eigenpairs(
                curvature.fisher_operator(*args, **case.options),
                params,
                key,
                num=2,
                num_iterations=flat.size,
            ),
            "eigenvalue": curvature.largest_fisher_eigenvalue(
                *args, key, num_iterations=flat.size, **case.options
            ),
        }

    got = everything(case.params, jax.random.key(0))
    assert_allclose(got["trace"].mean, np.trace(fisher), rtol=1e-10)
    assert got["trace"].sem == 0
    assert_allclose(got["cut"].mean, np.trace(fisher), rtol=1e-10)
    layers = jax.tree.map(jnp.sum, unravel(np.diag(fisher)))
    jax.tree.map(functools.partial(assert_allclose, rtol=1e-9), got["layers"], layers)
    assert_allclose(got["norms"], norms, rtol=1e-10)
    diagonal = ravel_pytree(got["diagonal"].mean)[0]
    assert_allclose(diagonal, np.diag(fisher), rtol=1e-9, atol=1e-13)
    assert not np.any(ravel_pytree(got["diagonal"].sem)[0])
    product = ravel_pytree(got["product"])[0]
    assert_allclose(product, fisher @ vector, rtol=1e-9, atol=1e-12)
    largest = np.linalg.eigvalsh(fisher)[::-1][:2]
    assert_allclose(got["eigenvalue"].value, largest[0], rtol=1e-6)
    assert_allclose(got["pairs"].values, largest, rtol=1e-6)
    vectors = np.asarray(jax.vmap(lambda v: ravel_pytree(v)[0])(got["pairs"].vectors))
    off = vectors @ fisher - np.asarray(got["pairs"].values)[:, None] * vectors
    assert_allclose(off, 0, atol=1e-6 * largest[0])


def draws_of(likelihood):
    return likelihood.draws


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("likelihood", "draw"),
    [(law, draw) for law in LIKELIHOODS for draw in draws_of(law)],
    ids=str,
)
def test_every_draw_is_unbiased_and_its_error_is_the_empirical_one(
    likelihood, draw, masked
):
    case = build(mlp, likelihood, masked)
    fisher, _ = dense(mlp, likelihood, masked)

    def one(key):
        trace = functools.partial(
            curvature.fisher_trace, *case.args, key, draw=draw, **case.options
        )
        penalty = penalties.fisher_penalty(*case.args, key, draw=draw, **case.options)
        grouped = penalties.fisher_penalty(
            *case.args, key, draw=draw, num_groups=BATCH, **case.options
        )
        return {
            "per_example": trace(num_draws=3),
            "minibatch": trace(estimator="minibatch", num_draws=3),
            "diagonal": jax.tree.map(
                lambda tree: ravel_pytree(tree)[0],
                curvature.fisher_diagonal(
                    *case.args, key, draw=draw, num_draws=3, **case.options
                ),
                is_leaf=lambda tree: isinstance(tree, dict),
            ),
            "penalty": BATCH * penalty,
            "grouped": BATCH * grouped,
            "paper": BATCH
            * curvature.minibatch_fisher_trace(
                *case.args, key, draw=draw, **case.options
            ),
        }

    got = jit(jax.vmap(one))(jax.random.split(jax.random.key(3), KEY_COUNT))
    assert_allclose(got["penalty"], got["paper"], rtol=1e-9)
    diagonal = got.pop("diagonal")
    spread = np.std(diagonal.mean, axis=0, ddof=1)
    off = np.abs(np.mean(diagonal.mean, axis=0) - np.diag(fisher))
    assert np.all(off <= 5 * spread / np.sqrt(KEY_COUNT) + 1e-12)
    reported = np.sqrt(np.mean(np.square(diagonal.sem), axis=0))
    assert_allclose(reported, spread, rtol=0.35, atol=1e-12)
    for name in ("per_example", "minibatch"):
        reported = np.sqrt(np.mean(np.square(got[name].sem)))
        assert_allclose(reported, np.std(got[name].mean), rtol=0.25)
        got[name] = got[name].mean
    for values in got.values():
        sem = np.std(values, ddof=1) / np.sqrt(KEY_COUNT)
        assert abs(np.mean(values) - np.trace(fisher)) <= 4 * sem + 1e-9
    assert np.std(got["grouped"]) < np.std(got["penalty"])


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_forward_probes_are_unbiased(likelihood):
    case = build(attention, likelihood, True)
    fisher, _ = dense(attention, likelihood, True)
    estimate = jit(
        lambda k: curvature.fisher_trace(
            *case.args, k, estimator="forward", num_draws=KEY_COUNT, **case.options
        )
    )(jax.random.key(1))
    assert 0 < estimate.sem < 0.2 * np.trace(fisher)
    assert abs(estimate.mean - np.trace(fisher)) <= 4 * estimate.sem


def naive_penalty(case, params, v_of, groups=1):
    """Σ over groups of ‖(1/B) Jᵀ v‖², for reverse over reverse."""
    outputs, pullback = jax.vjp(lambda p: case.network(p, case.inputs), params)
    v = v_of(outputs) / BATCH
    if case.mask is not None:
        v = v * case.mask.reshape(BATCH, POSITIONS, -1)
    total = 0.0
    for k in range(groups):
        mine = jnp.arange(BATCH) * groups // BATCH == k
        (gradient,) = pullback(v * mine[:, None, None])
        total += sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
    return total


def cotangent_of(case, kind, key):
    """v of outputs, written out, for the same noise."""
    likelihood, shape = case.likelihood, (BATCH, POSITIONS, WIDTH)

    def with_targets(outputs, targets):
        targets = jax.lax.stop_gradient(targets)
        if likelihood == Categorical():
            return jax.nn.softmax(outputs) - jax.nn.one_hot(targets, WIDTH)
        if likelihood == Bernoulli():
            return jax.nn.sigmoid(outputs) - targets
        return (outputs - targets) / likelihood.scale**2

    if kind == "gradient":
        return lambda outputs: with_targets(outputs, case.targets)
    if kind == "labels":
        return lambda outputs: with_targets(outputs, likelihood.sample(key, outputs))
    z = jax.random.rademacher(key, shape, jnp.float64)
    if likelihood == Categorical():

        def signs(outputs):
            p = jax.nn.softmax(outputs)
            total = jnp.sum(jnp.sqrt(p) * z, axis=-1, keepdims=True)
            return jnp.sqrt(p) * z - p * total

        return signs
    if likelihood == Bernoulli():
        return lambda o: z * jnp.sqrt(jax.nn.sigmoid(o) * (1 - jax.nn.sigmoid(o)))
    return lambda o: z / likelihood.scale


@EVERY
def test_penalties_equal_reverse_over_reverse(network, likelihood, masked):
    case = build(network, likelihood, masked)
    key = jax.random.key(5)

    def ours(kind, **options):
        def scalar(params):
            args = (case.network, params, case.inputs)
            if kind == "gradient":
                return penalties.gradient_penalty(
                    *args, case.targets, **case.options, **options
                )
            return penalties.fisher_penalty(
                *args, key, draw=kind, **case.options, **options
            )

        return jax.value_and_grad(scalar)

    def by_definition(kind, groups=1):
        v_of = cotangent_of(case, kind, key)
        return jax.value_and_grad(lambda p: naive_penalty(case, p, v_of, groups))

    @jit
    def both(params):
        kinds = ("labels", "rademacher", "gradient")
        pairs = {k: (ours(k)(params), by_definition(k)(params)) for k in kinds}
        pairs["groups"] = (
            ours("rademacher", num_groups=BATCH)(params),
            by_definition("rademacher", BATCH)(params),
        )
        pairs["chunks"] = (
            ours("rademacher", chunk_size=2)(params),
            pairs["rademacher"][1],
        )
        return pairs

    for name, (got, expected) in both(case.params).items():
        got, expected = ravel_pytree(got)[0], ravel_pytree(expected)[0]
        error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert error < 1e-9, name


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_input_gradients_and_the_hessian_of_the_same_loss(likelihood):
    case = build(mlp, likelihood, True)

    def losses(params, inputs):
        outputs = case.network(params, inputs)
        if likelihood == Categorical():
            log_p = jax.nn.log_softmax(outputs)
            each = -jnp.take_along_axis(log_p, case.targets[..., None], -1)[..., 0]
        elif likelihood == Bernoulli():
            each = jnp.logaddexp(0, outputs) - case.targets * outputs
        else:
            each = (outputs - case.targets) ** 2 / 2 / likelihood.scale**2
        return jnp.sum(jnp.where(case.mask, each, 0))

    def expected(params):
        slopes = jax.grad(losses, argnums=1)(params, case.inputs)
        return jnp.sum(slopes**2) / BATCH

    def ours(params):
        return penalties.input_gradient_penalty(
            case.network, params, case.inputs, case.targets, **case.options
        )

    got, want = jit(
        lambda p: (jax.value_and_grad(ours)(p), jax.value_and_grad(expected)(p))
    )(case.params)
    assert_allclose(ravel_pytree(got)[0], ravel_pytree(want)[0], rtol=1e-9, atol=1e-12)
    flat, unravel = ravel_pytree(case.params)
    hessian = jit(jax.hessian(lambda v: losses(unravel(v), case.inputs) / BATCH))(flat)
    traces = curvature.fisher_and_hessian_trace(
        *case.args, case.targets, jax.random.key(0), num_probes=2000, **case.options
    )
    assert 0 < traces.hessian.sem < 0.1 * abs(np.trace(hessian))
    assert abs(traces.hessian.mean - np.trace(hessian)) <= 4 * traces.hessian.sem


def test_a_single_sigmoid_is_not_without_information():
    params = {"w": jnp.asarray([[0.5], [-1.0]])}
    inputs = jnp.asarray([[1.0, 2.0], [0.5, -1.0], [3.0, 1.0]])

    def network(p, x):
        return x @ p["w"]

    p = 1 / (1 + np.exp(-np.asarray(inputs @ params["w"])[:, 0]))
    expected = np.mean(p * (1 - p) * np.sum(np.square(inputs), axis=1))
    for shaped in (network, lambda p, x: network(p, x)[:, 0]):
        got = curvature.fisher_trace(
            shaped, params, inputs, estimator="exact", likelihood=Bernoulli()
        )
        assert_allclose(got.mean, expected, rtol=1e-12)
    with pytest.warns(UserWarning, match="Bernoulli"):
        curvature.fisher_trace(network, params, inputs, estimator="exact")


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.5)], ids=str)
def test_identity_of_traces_where_piecewise_linear_and_not_where_curved(likelihood):
    random = np.random.default_rng(0)
    params = {"a": random.normal(size=(3, 4)), "b": random.normal(size=(4, 2))}
    params = jax.tree.map(jnp.asarray, params)
    inputs = jnp.asarray(random.normal(size=(5, 3)))
    targets = jnp.asarray(random.integers(2, size=(5, 2)))
    flat, unravel = ravel_pytree(params)

    def traces(activation):
        def network(p, x):
            return activation(x @ p["a"]) @ p["b"]

        def loss(v):
            losses = likelihood.loss(network(unravel(v), inputs), targets)
            return losses.sum() / len(inputs)

        fisher = curvature.fisher_trace(
            network, params, inputs, estimator="exact", likelihood=likelihood
        ).mean
        return fisher, jnp.trace(jax.hessian(loss)(flat))

    fisher, hessian = jit(lambda: traces(jax.nn.relu))()
    assert_allclose(fisher, hessian, rtol=1e-10)
    fisher, hessian = jit(lambda: traces(jnp.tanh))()
    assert abs(fisher - hessian) > 1e-3 * fisher


def test_wrong_likelihoods_masks_and_targets_are_named():
    case = build(mlp, Categorical(), True)
    trace = functools.partial(curvature.fisher_trace, *case.args, jax.random.key(0))
    norms = functools.partial(curvature.squared_gradient_norms, *case.args)
    with pytest.raises(TypeError, match=r"likelihood: expected Categorical.*str"):
        trace(likelihood="categorical")
    with pytest.raises(ValueError, match=r"draw.*'labels', 'rademacher' for Bernoulli"):
        trace(likelihood=Bernoulli(), draw="importance")
    with pytest.raises(ValueError, match=r"mask: expected bool.*\[3, 4\].*\(3, 4, 3\)"):
        trace(mask=jnp.ones((3, 4, 3), bool))
    with pytest.raises(TypeError, match=r"mask: expected bool.*float"):
        trace(mask=jnp.ones((3, 4)))
    with pytest.raises(ValueError, match=r"labels.*\[B, ...\] = \[3, 4\].*\(3,\)"):
        norms(jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"labels.*0 to 1.*from 0.0 to 2.0"):
        norms(2 * jnp.eye(3)[:, None] * jnp.ones((1, 4, 1)), likelihood=Bernoulli())
    with pytest.raises(ValueError, match=r"scale: expected a positive number"):
        Gaussian(0.0)
    with pytest.raises(ValueError, match="uniformly"):
        penalties.random_label_penalty(
            *case.args, jax.random.key(0), likelihood=Gaussian()
        )
    with pytest.raises(ValueError, match=r"num_groups: expected a divisor of the 3"):
        penalties.fisher_penalty(*case.args, jax.random.key(0), num_groups=2)
