"""Functions of curvature compile themselves when they are called eagerly."""

import functools
import gc
import inspect
import types
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fisher_jax import compiled, curvature

KEY = jax.random.key(0)
PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 3))}
INPUTS = jax.random.normal(jax.random.key(2), (5, 4))
NETWORKS = "outputs_fn", "loss_fn"  # as the first argument


class Traced:
    """A network that counts how often it is traced or run."""

    __slots__ = ("__weakref__", "count")

    def __init__(self):
        self.count = 0

    def network(self, params, inputs):
        self.count += 1
        return inputs @ params["w"]


@pytest.fixture(autouse=True)
def _no_programs():
    compiled.forget()


def trace(network, params=PARAMS, **options):
    options = {"estimator": "exact"} | options
    return float(curvature.fisher_trace(network, params, INPUTS, KEY, **options).mean)


def test_the_second_call_traces_nothing():
    model = Traced()
    first = trace(model.network)  # a bound method is another object at each access
    count = model.count
    assert trace(model.network, {"w": 2 * PARAMS["w"]}) != first
    assert trace(model.network) == first
    assert model.count == count
    trace(model.network, num_draws=2)  # other options, another program
    assert model.count > count


def test_it_is_the_same_as_under_jit():
    def network(params, inputs):
        return jnp.tanh(inputs @ params["w"])

    eager = curvature.fisher_trace(network, PARAMS, INPUTS, KEY)
    jitted = jax.jit(lambda p, x, k: curvature.fisher_trace(network, p, x, k))(
        PARAMS, INPUTS, KEY
    )
    assert_array_equal(eager, jitted)


def test_arrays_around_a_function_are_read_anew():
    state = {"scale": jnp.ones(3)}

    def network(params, inputs):
        return state["scale"] * (inputs @ params["w"])

    before = trace(network)
    state["scale"] = jnp.full(3, 2.0)
    after = trace(network)
    assert_allclose(
        after, trace(lambda params, inputs: 2 * (inputs @ params["w"])), rtol=1e-6
    )
    assert after != before


SCALE = jnp.ones(3)


def test_a_global_is_read_anew(monkeypatch):
    def inner(params, inputs):
        return SCALE * (inputs @ params["w"])

    network = functools.partial(
        lambda params, inputs, apply: apply(params, inputs), apply=inner
    )
    before = trace(inner), trace(network)
    monkeypatch.setitem(globals(), "SCALE", jnp.full(3, 2.0))
    after = trace(inner), trace(network)
    assert after[0] == after[1]
    assert before[0] == before[1] != after[0]


def test_the_attributes_of_a_methods_object_are_read_anew():
    class Model:
        scale = 1.0

        def __init__(self):
            self.state = jnp.ones(3)

        def network(self, params, inputs):
            return self.state * (inputs @ params["w"])

    model = Model()
    before = trace(model.network)
    model.state = jnp.full(3, 2.0)
    assert trace(model.network) != before


def test_the_attributes_of_an_object_in_an_object_are_read_anew():
    class Holder:
        pass

    model = Holder()
    model.inner = Holder()
    for change in (jnp.full(3, 2.0), np.full(3, 3.0), 4.0):
        model.inner.scale = jnp.ones(3)

        def network(params, inputs):
            return model.inner.scale * (inputs @ params["w"])

        before = trace(network)
        assert trace(network) == before
        model.inner.scale = change
        assert trace(network) != before


def test_arrays_of_a_partial_are_arguments():
    model = Traced()

    def scaled(scale, params, inputs):
        return scale * model.network(params, inputs)

    one = trace(jax.tree_util.Partial(scaled, jnp.ones(3)))
    count = model.count
    two = trace(jax.tree_util.Partial(scaled, 2 * jnp.ones(3)))
    assert model.count == count
    assert one != two


def test_programs_and_arrays_go_with_their_function():
    batch = jnp.ones((7, 4))
    alive = weakref.ref(batch)

    def loss(params, batch=batch):
        return jnp.sum((batch @ params["w"]) ** 2)

    curvature.hessian_trace(loss, PARAMS, KEY, num_probes=2)
    assert compiled.num_programs() == 1
    del batch, loss
    gc.collect()
    assert alive() is None
    assert compiled.num_programs() == 0


def test_a_flag_of_an_object_within_an_object_is_read_again():
    norm = types.SimpleNamespace(training=True)
    net = types.SimpleNamespace(norm=norm)

    def loss(params):
        return jnp.sum(params["w"] ** 2) * (1 if net.norm.training else 4)

    before = curvature.hvp(loss, PARAMS, PARAMS)
    norm.training = False
    after = curvature.hvp(loss, PARAMS, PARAMS)
    assert_allclose(after["w"], 4 * before["w"])


def test_every_function_of_a_network_keeps_its_program():
    # What makes an operator, and what calls functions that do, one of them private.
    others = {"hessian_operator", "fisher_operator"}
    others |= {"fisher_and_hessian_trace", "squared_gradient_norms"}
    files = {
        name: function.__code__.co_filename
        for name in curvature.__all__
        if inspect.isfunction(function := getattr(curvature, name))
        and next(iter(inspect.signature(function).parameters)) in NETWORKS
        and name not in others
    }
    assert len(files) > 10
    assert {n: f for n, f in files.items() if f != compiled.__file__} == {}


def test_no_more_programs_are_kept_than_said(monkeypatch):
    monkeypatch.setattr(compiled, "MAX_PROGRAMS", 2)
    losses = [lambda p, c=c: c * jnp.sum(p["w"] ** 2) for c in range(3)]
    for loss in losses:
        curvature.hvp(loss, PARAMS, PARAMS)
    assert compiled.num_programs() == 2


def test_new_closures_at_every_call_are_warned_of_once():
    def measure(scale):
        return curvature.hvp(lambda p: scale * jnp.sum(p["w"] ** 2), PARAMS, PARAMS)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for scale in range(2 * compiled.MANY):
            measure(scale)
    (warning,) = told
    assert "hvp has compiled 5 programs" in str(warning.message)
    assert "jax.tree_util.Partial" in str(warning.message)
    assert warning.filename == __file__


def test_the_next_hessian_operator_compiles_nothing():
    batches = [INPUTS, 2 * INPUTS]

    def loss_fn(batch, params):
        return jnp.sum(jnp.tanh(batch @ params["w"]) ** 2)

    def largest(batch, params):
        loss = jax.tree_util.Partial(loss_fn, batch)
        operator = curvature.hessian_operator(loss, params)
        found = curvature.eigenpairs(operator, params, KEY, num_iterations=12)
        dense = jax.hessian(lambda w: loss({"w": w}))(params["w"]).reshape(12, 12)
        expected = np.linalg.eigvalsh(dense)[-1]
        assert_allclose(found.values[0], expected, rtol=1e-4)

    largest(batches[0], PARAMS)
    assert compiled.num_programs() == 2
    largest(batches[1], {"w": 0.5 * PARAMS["w"]})
    assert compiled.num_programs() == 2


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_next_fisher_operator_compiles_nothing(chunk_size):
    model = Traced()

    def largest(params, inputs):
        operator = curvature.fisher_operator(
            model.network, params, inputs, chunk_size=chunk_size
        )
        found = curvature.eigenpairs(operator, params, KEY, num=2, num_iterations=12)
        logits = inputs @ params["w"]
        p = jax.nn.softmax(logits)
        covariance = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None]
        fisher = jnp.einsum("bi,bj,bkl->ikjl", inputs, inputs, covariance) / len(inputs)
        dense = fisher.reshape(12, 12)
        expected = np.linalg.eigvalsh(dense)[::-1]
        assert_allclose(found.values, expected[:2], rtol=1e-4)
        product = operator(params)["w"].ravel()
        assert_allclose(product, dense @ params["w"].ravel(), rtol=1e-4, atol=1e-6)

    largest(PARAMS, INPUTS)
    count = model.count
    largest({"w": 0.5 * PARAMS["w"]}, 2 * INPUTS)
    assert compiled.num_programs() == 2
    assert model.count == count


def test_a_fisher_operator_outlives_its_function_and_does_not_keep_it():
    def network(params, inputs):
        return inputs @ params["w"]

    alive = weakref.ref(network)
    operator = curvature.fisher_operator(network, PARAMS, INPUTS)
    expected = curvature.fisher_vector_product(network, PARAMS, INPUTS, PARAMS)
    del network
    gc.collect()
    assert alive() is None
    assert_allclose(operator(PARAMS)["w"], expected["w"], rtol=1e-5)


def test_functions_that_are_used_often_are_not_warned_of():
    losses = [lambda p, c=c: c * jnp.sum(p["w"] ** 2) for c in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loss in losses:
            for _ in range(3):
                curvature.hvp(loss, PARAMS, PARAMS)


def test_inside_transformations_nothing_is_kept():
    def network(params, inputs):
        return inputs @ params["w"]

    def value(params):
        return curvature.fisher_trace(network, params, INPUTS, estimator="exact").mean

    stacked = {"w": jnp.stack([PARAMS["w"], 2 * PARAMS["w"]])}
    each = jax.vmap(value)(stacked)
    jax.grad(value)(PARAMS)
    jax.jit(value)(PARAMS)
    # The batch of a closure may be traced as well.
    jax.jit(
        lambda x: curvature.hessian_trace(
            lambda p: jnp.sum((x @ p["w"]) ** 2), PARAMS, KEY, num_probes=2
        )
    )(INPUTS)
    assert compiled.num_programs() == 0
    assert_allclose(each[0], trace(network), rtol=1e-6)


def test_wrong_labels_are_still_found():
    def network(params, inputs):
        return inputs @ params["w"]

    labels = np.array([0, 1, 2, 3, 0])
    for _ in range(2):
        with pytest.raises(ValueError, match="labels"):
            curvature.squared_gradient_norms(network, PARAMS, INPUTS, labels)
