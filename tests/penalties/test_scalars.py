import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import curvature, penalties
from fisher_jax.curvature import Categorical, likelihoods
from tests.curvature import networks
from tests.curvature.networks import jit
from tests.tiers import some

KEY_COUNT = 2000


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def penalty(kind, problem, params, key, **options):
    """Any of the penalties by name."""
    network, labels = (problem.logits_fn, params, problem.inputs), problem.labels
    return {
        "fisher": lambda: penalties.fisher_penalty(*network, key, **options),
        "reparameterised": lambda: penalties.fisher_penalty(
            *network, key, draw="rademacher", **options
        ),
        "single": lambda: penalties.single_example_fisher_penalty(
            *network, key, **options
        ),
        "gradient": lambda: penalties.gradient_penalty(*network, labels, **options),
        "random_label": lambda: penalties.random_label_penalty(
            *network, key, **options
        ),
        "input_gradient": lambda: penalties.input_gradient_penalty(
            *network, labels, **options
        ),
    }[kind]()


def naive(kind, problem, params, key):
    """The same by definition, its derivative left to reverse-over-reverse."""
    logits_fn, inputs, labels = problem.logits_fn, problem.inputs, problem.labels
    if kind == "input_gradient":
        slopes = jax.grad(
            lambda x: networks.mean_cross_entropy(logits_fn, params, x, labels)
        )(inputs)
        return len(labels) * jnp.sum(slopes**2)
    if kind == "single":
        inputs = inputs[:1]
    logits = jax.lax.stop_gradient(logits_fn(params, inputs))
    if kind == "reparameterised":
        return naive_reparameterised(logits_fn, params, inputs, key)
    if kind in ("fisher", "single"):
        labels = curvature.sample_labels(key, logits)
    if kind == "random_label":
        labels = jax.random.randint(key, labels.shape, 0, networks.NUM_CLASSES)
    mean_gradient = jax.grad(
        lambda p: networks.mean_cross_entropy(logits_fn, p, inputs, labels)
    )(params)
    return sum(jnp.sum(g**2) for g in jax.tree.leaves(mean_gradient))


def naive_reparameterised(logits_fn, params, inputs, key):
    logits, pullback = jax.vjp(lambda p: logits_fn(p, inputs), params)
    z = jax.random.rademacher(key, logits.shape, logits.dtype)
    p = jax.nn.softmax(logits)
    root = jnp.sqrt(p)
    v = root * z - p * jnp.sum(root * z, axis=1, keepdims=True)
    (mean_gradient,) = pullback(v / len(logits))
    return sum(jnp.sum(g**2) for g in jax.tree.leaves(mean_gradient))


def assert_trees_close(got, expected, relative):
    got, expected = ravel_pytree(got)[0], ravel_pytree(expected)[0]
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error <= relative


KINDS = ("fisher", "reparameterised", "single", "gradient", "random_label")
EVERY_KIND = (*KINDS, "input_gradient")


@pytest.mark.parametrize("kind", [k for k in EVERY_KIND if k != "single"])
def test_parts_of_a_batch_in_turn_give_what_the_whole_gives(kind):
    """With five examples at a time the last chunk of eight is filled up."""
    problem = networks.build("mlp_tanh", batch=8)
    key = jax.random.key(2)

    def both(**options):
        return jit(
            jax.value_and_grad(lambda p: penalty(kind, problem, p, key, **options))
        )(problem.params)

    assert_trees_close(both(chunk_size=5), both(), 1e-10)


# Their derivative by reverse over reverse takes longest to compile.
BY_DEFAULT = ("mlp_tanh", "mlp_relu", "conv_pool", "batch_norm_eval", "shared_skip")


@pytest.mark.parametrize("name", some(networks.NETWORKS, BY_DEFAULT))
def test_fisher_penalties_equal_reverse_over_reverse(name):
    problem = networks.build(name)
    key = jax.random.key(3)
    for kind in ("fisher", "reparameterised"):
        ours = functools.partial(penalty, kind, problem)
        definition = functools.partial(naive, kind, problem)
        value, gradient = jit(jax.value_and_grad(ours))(problem.params, key)
        exact, exact_gradient = jit(jax.value_and_grad(definition))(problem.params, key)
        assert_allclose(value, exact, rtol=1e-11)
        assert_trees_close(gradient, exact_gradient, 1e-10)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_penalty_in_every_mode(kind):
    problem = networks.build("conv_pool")
    key = jax.random.key(3)
    ours = functools.partial(penalty, kind, problem)
    definition = functools.partial(naive, kind, problem)
    random = np.random.default_rng(0)
    tangent = jax.tree.map(
        lambda p: jnp.asarray(random.normal(size=p.shape)), problem.params
    )

    @jit
    def modes(params, tangent):
        return {
            "value": ours(params, key),
            "value_and_grad": jax.value_and_grad(ours)(params, key),
            "jvp": jax.jvp(lambda p: ours(p, key), (params,), (tangent,)),
            "linearize": jax.linearize(lambda p: ours(p, key), params)[1](tangent),
        }

    got = modes(problem.params, tangent)
    value, gradient = jit(jax.value_and_grad(definition))(problem.params, key)
    slope = np.dot(ravel_pytree(gradient)[0], ravel_pytree(tangent)[0])
    assert got["value"].dtype == jnp.float64
    assert_allclose(got["value"], value, rtol=1e-11)
    assert_allclose(got["value_and_grad"][0], value, rtol=1e-11)
    assert_trees_close(got["value_and_grad"][1], gradient, 1e-10)
    assert_allclose(got["jvp"], (value, slope), rtol=1e-9)
    assert_allclose(got["linearize"], slope, rtol=1e-9)


@pytest.mark.parametrize("kind", some(EVERY_KIND, ["fisher", "reparameterised"]))
def test_second_derivatives(kind):
    problem = networks.build("mlp_tanh", batch=3)
    flat, unravel = ravel_pytree(problem.params)
    key = jax.random.key(3)
    direction = np.random.default_rng(0).normal(size=flat.size)

    def product(function):
        def scalar(v):
            return function(kind, problem, unravel(v), key)

        return jit(lambda v: jax.jvp(jax.grad(scalar), (v,), (direction,))[1])(flat)

    assert_trees_close(product(penalty), product(naive), 1e-9)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_single_precision_gradients(kind):
    problem = networks.build("conv_pool", scale=0.3)
    single = jax.tree.map(
        lambda a: a.astype(jnp.float32), (problem.params, problem.inputs)
    )
    exact = jit(jax.grad(functools.partial(naive, kind, problem)))
    # The same noise in both: draws in float64 and float32 differ.
    with jax.enable_x64(False):
        ours = functools.partial(penalty, kind, problem._replace(inputs=single[1]))
        got = jit(jax.grad(ours))(single[0], jax.random.key(3))
        reference = functools.partial(naive, kind, problem._replace(inputs=single[1]))
        if kind not in ("gradient", "input_gradient"):
            exact_gradient = jit(jax.grad(reference))(single[0], jax.random.key(3))
    if kind in ("gradient", "input_gradient"):
        exact_gradient = exact(problem.params, jax.random.key(3))
    assert jax.tree.leaves(got)[0].dtype == jnp.float32
    assert_trees_close(got, exact_gradient, 1e-5)


def gradients(problem, draw):
    """KEY_COUNT penalty values and gradients [KEY_COUNT, P]."""
    flat, unravel = ravel_pytree(problem.params)

    def one(key):
        def scalar(v):
            params = unravel(v)
            return penalties.fisher_penalty(
                problem.logits_fn, params, problem.inputs, key, draw=draw
            )

        return jax.value_and_grad(scalar)(flat)

    keys = jax.random.split(jax.random.key(5), KEY_COUNT)
    return jax.tree.map(np.asarray, jit(jax.vmap(one))(keys))


def exact_trace_over_batch(problem):
    """Tr(F)/B and its gradient, by enumeration of the classes."""
    flat, unravel = ravel_pytree(problem.params)

    def trace(v):
        jacobian = jax.jacrev(lambda v: problem.logits_fn(unravel(v), problem.inputs))
        p = jax.nn.softmax(problem.logits_fn(unravel(v), problem.inputs))
        centred = jacobian(v) - jnp.einsum("bc,bcp->bp", p, jacobian(v))[:, None]
        return jnp.einsum("bc,bcp->", p, centred**2) / len(p) ** 2

    return jax.tree.map(np.asarray, jit(jax.value_and_grad(trace))(flat))


def deviation_in_errors(samples, exact):
    """Along the exact gradient: (mean − exact) / standard error of the mean."""
    along = samples @ exact / np.linalg.norm(exact)
    sem = np.std(along, ddof=1) / np.sqrt(len(along))
    return (np.mean(along) - np.linalg.norm(exact)) / sem


@pytest.mark.parametrize("draw", ["rademacher", "importance"])
@pytest.mark.parametrize("name", ["mlp_tanh", "mlp_relu"])
def test_reparameterised_penalty_is_unbiased_in_value_and_gradient(name, draw):
    problem = networks.build(name, scale=1.2)
    exact, exact_gradient = exact_trace_over_batch(problem)
    values, samples = gradients(problem, draw)
    sem = np.std(values, ddof=1) / np.sqrt(KEY_COUNT)
    assert abs(np.mean(values) - exact) <= 4 * sem
    assert abs(deviation_in_errors(samples, exact_gradient)) <= 4
    # In every coordinate, with room for the largest of many, and for what comes so
    # rarely that 2000 keys do not see it.
    sems = np.std(samples, axis=0, ddof=1) / np.sqrt(KEY_COUNT)
    room = 1e-5 * np.abs(exact_gradient).max()
    assert np.all(np.abs(samples.mean(axis=0) - exact_gradient) <= 5 * sems + room)
    cosine = samples.mean(axis=0) @ exact_gradient
    cosine /= np.linalg.norm(samples.mean(axis=0)) * np.linalg.norm(exact_gradient)
    assert cosine > 0.98


@pytest.mark.parametrize("name", ["mlp_tanh", "mlp_relu"])
def test_paper_penalty_is_unbiased_in_value_but_not_in_gradient(name):
    problem = networks.build(name, scale=1.2)
    exact, exact_gradient = exact_trace_over_batch(problem)
    values, samples = gradients(problem, "labels")
    sem = np.std(values, ddof=1) / np.sqrt(KEY_COUNT)
    assert abs(np.mean(values) - exact) <= 4 * sem
    assert abs(deviation_in_errors(samples, exact_gradient)) > 8


def test_value_estimates_the_trace_and_labels_are_the_sampled_ones():
    problem = networks.build("conv_pool")
    key = jax.random.key(2)
    for draw in likelihoods.DRAWS:
        value, minibatch = jit(
            lambda k, draw=draw: (
                penalties.fisher_penalty(*problem[:3], k, draw=draw),
                curvature.minibatch_fisher_trace(*problem[:3], k, draw=draw),
            )
        )(key)
        assert_allclose(value, minibatch, rtol=1e-12)

    @jit
    def on_sampled_labels(key):
        logits = problem.logits_fn(problem.params, problem.inputs)
        labels = curvature.sample_labels(key, logits)
        return penalties.gradient_penalty(*problem[:3], labels)

    value = jit(lambda k: penalties.fisher_penalty(*problem[:3], k))(key)
    assert_allclose(value, on_sampled_labels(key), rtol=1e-12)


@pytest.mark.parametrize("kind", ["fisher", "reparameterised", "gradient"])
def test_examples_may_interact(kind):
    problem = networks.build("batch_norm_train")
    key = jax.random.key(0)
    ours = jit(jax.grad(functools.partial(penalty, kind, problem)))
    definition = jit(jax.grad(functools.partial(naive, kind, problem)))
    assert_trees_close(
        ours(problem.params, key), definition(problem.params, key), 1e-10
    )


@pytest.mark.parametrize("kind", some(KINDS, ["fisher", "gradient"]))
def test_finite_difference_of_a_smooth_network(kind):
    problem = networks.build("mlp_tanh", scale=1.0)
    key = jax.random.key(1)

    def both(problem):
        def gradient(method):
            ours = functools.partial(penalty, kind, problem, method=method)
            return jax.value_and_grad(ours)(problem.params, key)

        return jit(lambda: (gradient("exact"), gradient("finite_difference")))()

    (value, exact), (same_value, difference) = both(problem)
    assert_allclose(same_value, value, rtol=1e-12)
    assert_trees_close(difference, exact, 3e-5)
    single = jax.tree.map(
        lambda a: a.astype(jnp.float32), (problem.params, problem.inputs)
    )
    (_, exact), (_, difference) = both(
        problem._replace(params=single[0], inputs=single[1])
    )
    assert_trees_close(difference, exact, 3e-2)


@pytest.mark.parametrize("kind", some(EVERY_KIND, ["fisher", "input_gradient"]))
def test_no_gradient_is_no_penalty_and_no_nan(kind):
    problem = networks.build("mlp_relu")
    params = {**problem.params, "unused": jnp.ones(3)}

    def constant(p, x):
        return (
            jnp.zeros((len(x), networks.NUM_CLASSES)) + 0.0 * p["out"]["kernel"][0, 0]
        )

    for function in (problem.logits_fn, constant):
        case = problem._replace(logits_fn=function)
        methods = ("exact",) if kind == "input_gradient" else get_args(penalties.Method)
        for method in methods:
            options = {} if kind == "input_gradient" else {"method": method}
            value, gradient = jit(
                jax.value_and_grad(functools.partial(penalty, kind, case, **options))
            )(params, jax.random.key(0))
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))
            assert_allclose(gradient["unused"], 0.0)
            if function is constant:
                assert value == 0.0


def test_one_example_and_one_class():
    problem = networks.build("mlp_relu", batch=1)
    key = jax.random.key(4)
    whole, single = jit(
        lambda k: (
            penalties.fisher_penalty(*problem[:3], k),
            penalties.single_example_fisher_penalty(*problem[:3], k),
        )
    )(key)
    assert_allclose(whole, single, rtol=1e-12)

    def one_class(params, inputs):
        return problem.logits_fn(params, inputs)[:, :1]

    for draw in likelihoods.DRAWS:
        value, gradient = jax.value_and_grad(
            lambda p, draw=draw: penalties.fisher_penalty(
                one_class, p, problem.inputs, key, draw=draw
            )
        )(problem.params)
        assert value == 0.0
        assert all(not np.any(g) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_certain_predictions_give_no_nan(draw):
    problem = networks.build("mlp_relu", scale=30.0)
    value, gradient = jit(
        jax.value_and_grad(
            lambda p: penalties.fisher_penalty(
                problem.logits_fn, p, problem.inputs, jax.random.key(0), draw=draw
            )
        )
    )(problem.params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


def test_bfloat16_network():
    problem = networks.build("mlp_relu")
    single = jax.tree.map(lambda a: a.astype(jnp.float32), problem.params)

    def in_bfloat16(params, inputs):
        low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, inputs))
        return problem.logits_fn(*low)

    def both(logits_fn):
        return jit(
            jax.value_and_grad(
                lambda p: penalties.gradient_penalty(
                    logits_fn, p, problem.inputs.astype(jnp.float32), problem.labels
                )
            )
        )(single)

    (low, low_gradient), (full, full_gradient) = map(
        both, (in_bfloat16, problem.logits_fn)
    )
    assert low.dtype == jnp.float32
    assert_allclose(low, full, rtol=0.05)
    assert_trees_close(low_gradient, full_gradient, 0.05)


def test_arrays_of_other_transformations_may_be_closed_over():
    problem = networks.build("mlp_relu")
    keys = jax.random.split(jax.random.key(0), 3)
    shifts = jnp.arange(3.0)

    def gradient(key, shift):
        def shifted(params, inputs):
            return problem.logits_fn(params, inputs + shift)

        return jax.grad(
            lambda p: penalties.fisher_penalty(shifted, p, problem.inputs, key)
        )(problem.params)

    together = jit(jax.vmap(gradient))(keys, shifts)
    for index in range(3):
        expected = jit(gradient)(keys[index], shifts[index])
        assert_trees_close(
            jax.tree.map(lambda a, i=index: a[i], together), expected, 1e-12
        )


def test_derivatives_in_anything_but_params_are_refused():
    problem = networks.build("mlp_relu")
    key = jax.random.key(0)
    with pytest.raises(NotImplementedError, match="stop_gradient"):
        jax.grad(
            lambda x: penalties.fisher_penalty(
                problem.logits_fn, problem.params, x, key
            )
        )(problem.inputs)

    def through_closure(scale):
        return penalties.fisher_penalty(
            lambda p, x: scale * problem.logits_fn(p, x),
            problem.params,
            problem.inputs,
            key,
        )

    with pytest.raises(NotImplementedError, match="closes over"):
        jax.grad(through_closure)(2.0)


def flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("kind", "method", "gradients"),
    [
        ("fisher", "exact", 3.0),
        ("reparameterised", "exact", 3.0),
        ("gradient", "exact", 3.0),
        # Of small matrices: what is no product weighs less in real networks.
        ("fisher", "finite_difference", 2.05),
        ("reparameterised", "finite_difference", 2.05),
        ("input_gradient", None, 2.2),
    ],
)
def test_cost_in_gradients(kind, method, gradients):
    def logits_fn(params, x):
        for kernel in params:
            x = jnp.tanh(x @ kernel)
        return x

    shape = jax.ShapeDtypeStruct
    params = [shape((128, 128), jnp.float32)] * 3 + [shape((128, 10), jnp.float32)]
    x, y = shape((64, 128), jnp.float32), shape((64,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    options = {"method": method} if method else {}

    def ours(params, x, y, key):
        problem = networks.Problem(logits_fn, params, x, y)
        return penalty(kind, problem, params, key, **options)

    def loss(params, x, y):
        return Categorical().loss(logits_fn(params, x), y).mean()

    one = flops(jax.grad(loss), params, x, y)
    assert flops(jax.value_and_grad(ours), params, x, y, key) <= gradients * one


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (
            "fisher",
            {"draw": "uniform"},
            ValueError,
            "'labels', 'rademacher'.*'uniform'",
        ),
        (
            "gradient",
            {"method": "central"},
            ValueError,
            "'finite_difference'.*'central'",
        ),
    ],
)
def test_unknown_choices_are_named(kind, options, error, message):
    problem = networks.build("mlp_relu")
    with pytest.raises(error, match=message):
        penalty(kind, problem, problem.params, jax.random.key(0), **options)


def test_wrong_arguments_are_named():
    problem = networks.build("mlp_relu")
    logits_fn, params, inputs, labels = problem
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="key"):
        penalties.fisher_penalty(logits_fn, params, inputs, None)
    with pytest.raises(ValueError, match="key"):
        penalties.random_label_penalty(logits_fn, params, inputs, None)
    with pytest.raises(TypeError, match=r"labels.*float64"):
        penalties.gradient_penalty(logits_fn, params, inputs, labels * 1.0)
    with pytest.raises(ValueError, match=r"labels.*\[6\].*\(5,\)"):
        penalties.input_gradient_penalty(logits_fn, params, inputs, labels[:5])
    with pytest.raises(ValueError, match=r"\[6, C\].*\(4,\)"):
        penalties.fisher_penalty(lambda p, x: logits_fn(p, x)[0], params, inputs, key)
    with pytest.raises(TypeError, match=r"params\['w'\].*int64"):
        penalties.fisher_penalty(logits_fn, {"w": np.arange(2)}, inputs, key)
    with pytest.raises(TypeError, match=r"inputs.*int"):
        penalties.input_gradient_penalty(
            lambda p, x: logits_fn(p, x * 1.0), params, inputs.astype(int), labels
        )
