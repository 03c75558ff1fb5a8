import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import curvature
from fisher_jax.curvature import Categorical, likelihoods
from tests.curvature import networks
from tests.curvature.networks import jit
from tests.tiers import some

KEY_COUNT = 1000


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def estimate(problem, key=None, **options):
    return curvature.fisher_trace(*problem[:3], key, **options)


def trace(problem, key=None, **options):
    return jit(lambda k: estimate(problem, k, **options))(key)


def estimates(problem, **options):
    """Independent estimates: mean [KEY_COUNT] and sem [KEY_COUNT]."""
    keys = jax.random.split(jax.random.key(7), KEY_COUNT)
    return jit(jax.vmap(lambda k: estimate(problem, k, **options)))(keys)


def assert_unbiased(values, exact):
    sem = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - exact) <= 4 * sem
    # An estimate that does not vary would pass for any reason.
    assert sem > 0


SLOW = {"conv_weight_norm"}


@pytest.mark.parametrize("name", some(networks.NETWORKS, set(networks.NETWORKS) - SLOW))
def test_squared_gradient_norms_equal_materialised_gradients(name):
    problem = networks.build(name)
    dense = networks.materialise(name)
    rows = np.arange(len(problem.labels))
    gradients = dense.class_gradients[rows, np.asarray(problem.labels)]
    expected = np.sum(gradients**2, axis=1)
    got = jit(curvature.squared_gradient_norms, static_argnums=0)(*problem)
    assert got.dtype == jnp.float64
    assert_allclose(got, expected, rtol=1e-11)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_exact_trace_is_gauss_newton_and_enumerated_fisher(name):
    problem = networks.build(name)
    dense = networks.materialise(name)
    assert_allclose(dense.gauss_newton, dense.fisher, atol=1e-12)
    exact = trace(problem, estimator="exact")
    assert_allclose(exact.mean, np.trace(dense.fisher), rtol=1e-11)
    assert exact.sem == 0.0


@pytest.mark.parametrize("name", networks.PIECEWISE_LINEAR)
def test_hessian_and_fisher_have_one_diagonal_where_piecewise_linear(name):
    problem = networks.build(name)
    dense = networks.materialise(name)
    assert_allclose(np.diag(dense.hessian), np.diag(dense.fisher), atol=1e-12)
    exact = trace(problem, estimator="exact").mean
    assert_allclose(np.trace(dense.hessian), exact, rtol=1e-11)
    # Off the diagonal they differ, or the test would show less than it says.
    assert np.max(np.abs(dense.hessian - dense.fisher)) > 1e-3


@pytest.mark.parametrize("name", networks.CURVED)
def test_hessian_and_fisher_traces_differ_where_curved(name):
    dense = networks.materialise(name)
    hessian, fisher = np.trace(dense.hessian), np.trace(dense.fisher)
    assert abs(hessian - fisher) > 1e-3 * fisher


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
@pytest.mark.parametrize("estimator", ["per_example", "minibatch"])
@pytest.mark.parametrize(
    ("name", "batch"),
    some(
        [("mlp_tanh", 6), ("conv_pool", 2), ("shared_skip", 6)],
        [("mlp_tanh", 6), ("shared_skip", 6)],
    ),
)
def test_draws_in_class_space_are_unbiased(name, batch, estimator, draw):
    problem = networks.build(name, batch=batch)
    exact = trace(problem, estimator="exact").mean
    assert_unbiased(estimates(problem, estimator=estimator, draw=draw).mean, exact)


@pytest.mark.parametrize("name", ["mlp_tanh", "conv_pool"])
def test_forward_probes_are_unbiased(name):
    problem = networks.build(name)
    exact = trace(problem, estimator="exact").mean
    assert_unbiased(estimates(problem, estimator="forward").mean, exact)


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_minibatch_form_is_biased_where_examples_interact(draw):
    problem = networks.build("batch_norm_train", batch=4)
    dense = networks.materialise("batch_norm_train", batch=4)
    # F of single examples has no meaning here; the closest thing to it is
    # Σ_i ‖(∂ logits_i/∂θ)ᵀ v_i‖², to which the identity would equate the mean.
    means = estimates(problem, estimator="minibatch", draw=draw).mean
    exact_per_example = trace(problem, estimator="exact").mean
    sem = np.std(means, ddof=1) / np.sqrt(KEY_COUNT)
    assert abs(np.mean(means) - exact_per_example) > 10 * sem
    # What it does estimate is the trace of the whole batch's Gauss–Newton matrix.
    assert_unbiased(means, np.trace(dense.gauss_newton))


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "per_example", "draw": "labels"},
        {"estimator": "per_example", "draw": "rademacher"},
        {"estimator": "per_example", "draw": "importance"},
        {"estimator": "minibatch", "draw": "rademacher"},
        {"estimator": "minibatch", "draw": "labels"},
        {"estimator": "forward"},
    ],
    ids=lambda o: "-".join(o.values()),
)
def test_reported_standard_error_is_the_empirical_one(options):
    problem = networks.build("mlp_tanh", batch=8)
    result = estimates(problem, num_draws=30, **options)
    reported = np.sqrt(np.mean(np.square(result.sem)))
    assert_allclose(reported, np.std(result.mean, ddof=1), rtol=0.2)


def test_standard_error_of_one_draw():
    problem = networks.build("mlp_tanh")
    key = jax.random.key(0)
    one = trace(problem, key)

    @jit
    def norms_for_labels(key):
        logits = problem.logits_fn(problem.params, problem.inputs)
        labels = curvature.sample_labels(key, logits)
        return curvature.squared_gradient_norms(*problem[:3], labels)

    norms = np.asarray(norms_for_labels(key))
    with_labels = trace(problem, key, draw="labels")
    assert_allclose(with_labels.mean, np.mean(norms), rtol=1e-12)
    sem = np.std(norms, ddof=1) / np.sqrt(norms.size)
    assert_allclose(with_labels.sem, sem, rtol=1e-12)
    assert one.sem > 0
    assert jnp.isnan(trace(problem, key, estimator="minibatch").sem)
    assert jnp.isnan(trace(problem, key, estimator="forward").sem)


def test_signs_and_importance_beat_labels_when_the_model_is_confident():
    problem = networks.build("mlp_tanh", scale=4.0, batch=16)
    spread = {
        draw: np.std(estimates(problem, draw=draw).mean) for draw in likelihoods.DRAWS
    }
    assert spread["rademacher"] < 0.5 * spread["labels"]
    assert spread["importance"] < 0.5 * spread["rademacher"]


@pytest.mark.parametrize("chunk_size", [3, 100])
@pytest.mark.parametrize("estimator", ["per_example", "exact", "minibatch", "forward"])
def test_chunk_size_changes_nothing(estimator, chunk_size):
    problem = networks.build("mlp_relu", batch=7)
    options = {"estimator": estimator, "num_draws": 3, "draw": "labels"}
    key = jax.random.key(3)
    whole = trace(problem, key, **options)
    cut = trace(problem, key, chunk_size=chunk_size, **options)
    assert_allclose(cut, whole, rtol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_first_draws_do_not_depend_on_their_number(chunk_size):
    problem = networks.build("mlp_relu", batch=7)
    key = jax.random.key(5)
    logits = jax.eval_shape(problem.logits_fn, problem.params, problem.inputs)
    noise = functools.partial(
        likelihoods.batch_noise, key, "labels", Categorical(), logits
    )
    few, many = noise(num_draws=2), noise(num_draws=5)
    assert_allclose(many[:2], few)
    one = trace(problem, key, estimator="forward", chunk_size=chunk_size).mean
    two = trace(
        problem, key, estimator="forward", num_draws=2, chunk_size=chunk_size
    ).mean
    second = 2 * two - one
    assert second > 0
    assert abs(second - one) > 1e-6 * one


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_layer_traces_sum_to_the_trace(draw):
    problem = networks.build("conv_strided_grouped")
    key = jax.random.key(2)
    layers = jit(
        lambda k: curvature.layer_fisher_traces(*problem[:3], k, draw=draw, num_draws=2)
    )(key)
    assert jax.tree.structure(layers) == jax.tree.structure(problem.params)
    total = trace(problem, key, draw=draw, num_draws=2).mean
    assert_allclose(sum(jax.tree.leaves(layers)), total, rtol=1e-12)


def test_layer_traces_are_traces_of_diagonal_blocks():
    problem = networks.build("mlp_relu")
    _, unravel = ravel_pytree(problem.params)
    blocks = unravel(np.diag(networks.materialise("mlp_relu").fisher))
    exact = jax.tree.map(np.sum, blocks)
    keys = jax.random.split(jax.random.key(2), KEY_COUNT)
    one = functools.partial(curvature.layer_fisher_traces, *problem[:3])
    draws = jit(jax.vmap(one))(keys)
    jax.tree.map(assert_unbiased, draws, exact)


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_minibatch_trace_times_batch_is_the_estimator(draw):
    problem = networks.build("conv_pool")
    key = jax.random.key(2)
    one = functools.partial(curvature.minibatch_fisher_trace, *problem[:3], draw=draw)
    small = jit(one)(key)
    big = trace(problem, key, estimator="minibatch", draw=draw).mean
    assert_allclose(small * len(problem.labels), big, rtol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("name", ["conv_pool", "sequence"])
def test_fisher_vector_product(name, chunk_size):
    problem = networks.build(name)
    flat, unravel = ravel_pytree(problem.params)
    vector = np.random.default_rng(1).normal(size=flat.size)
    product = functools.partial(
        curvature.fisher_vector_product, *problem[:3], chunk_size=chunk_size
    )
    got = jit(product)(unravel(vector))
    expected = networks.materialise(name).fisher @ vector
    assert_allclose(ravel_pytree(got)[0], expected, rtol=1e-10, atol=1e-12)


def test_sampled_labels_follow_the_model():
    logits = jnp.asarray([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    keys = jax.random.split(jax.random.key(0), 4000)
    sample = jax.vmap(functools.partial(curvature.sample_labels, logits=logits))
    labels = jit(sample)(keys)
    assert labels.dtype == jnp.int32
    frequencies = jax.nn.one_hot(labels, 3).mean(axis=0)
    assert_allclose(frequencies, jax.nn.softmax(logits), atol=4 * 0.5 / 4000**0.5)


def test_legacy_and_typed_keys_agree():
    problem = networks.build("mlp_relu")
    legacy = trace(problem, jax.random.PRNGKey(4), num_draws=2)
    typed = trace(problem, jax.random.key(4), num_draws=2)
    assert_allclose(legacy, typed, rtol=0)
    forward = [
        trace(problem, k, estimator="forward", num_draws=2)
        for k in (jax.random.PRNGKey(4), jax.random.key(4))
    ]
    assert_allclose(forward[0], forward[1], rtol=0)


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_cotangents_have_the_softmax_covariance(draw):
    logits = 2 * jax.random.normal(jax.random.key(0), (5,), jnp.float64)
    p = jax.nn.softmax(logits)
    law = Categorical()
    if draw == "rademacher":
        # All 32 sign vectors: the covariance is exact.
        noise = jnp.stack(jnp.meshgrid(*[jnp.asarray([-1.0, 1.0])] * 5), -1)
        noise, tolerance = noise.reshape(-1, 5), 1e-12
    else:
        noise = law.noise(jax.random.key(1), draw, (40_000, 5), logits.dtype)
        tolerance = 0.02
    count = len(jax.tree.leaves(noise)[0])
    v = law.random_cotangent(draw, jnp.broadcast_to(logits, (count, 5)), noise)
    covariance = v.T @ v / count
    if draw == "importance":
        assert_allclose(jnp.sum(v**2, axis=1), jnp.sum(p * (1 - p)), rtol=1e-12)
    assert_allclose(covariance, jnp.diag(p) - jnp.outer(p, p), atol=tolerance)
    rows = jax.vmap(functools.partial(law.column, logits))(jnp.arange(5))
    assert_allclose(rows.T @ rows, jnp.diag(p) - jnp.outer(p, p), atol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 2.0, 40.0])
def test_lengths_of_the_importance_law_are_those_of_all_pairs(scale):
    p = np.asarray(jax.nn.softmax(scale * np.random.default_rng(0).normal(size=9)))
    others = np.where(np.eye(9, dtype=bool), 0, p)
    expected = np.sum(others, axis=1) ** 2 + np.sum(others**2, axis=1)
    for dtype, tolerance in ((jnp.float64, 1e-13), (jnp.float32, 1e-6)):
        got = likelihoods._squared_deviations(jnp.asarray(p, dtype))
        assert_allclose(got, expected, rtol=tolerance)


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 30])
def test_labels_of_importance_come_in_proportion_to_their_weights(classes):
    """Over a grid of both uniform numbers the frequencies are the law's."""
    random = np.random.default_rng(classes)
    log_weights = 3 * random.normal(size=classes) - 1000
    if classes > 2:
        log_weights[1] = -np.inf
    middles = (np.arange(400) + 0.5) / 400
    grid = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    drawn = jax.jit(likelihoods._drawn_index)(
        jnp.broadcast_to(log_weights, (len(grid), classes)), jnp.asarray(grid)
    )
    frequencies = np.bincount(np.asarray(drawn)[:, 0], minlength=classes) / len(grid)
    expected = np.exp(log_weights - log_weights.max())
    assert_allclose(frequencies, expected / expected.sum(), atol=2 / 400)
    assert np.all(frequencies[np.isinf(log_weights)] == 0)


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_a_draw_takes_memory_in_proportion_to_the_classes(draw):
    shape = jax.ShapeDtypeStruct((8, 50_000), jnp.float32)

    def draw_once(key, logits):
        noise = Categorical().noise(key, draw, shape.shape, shape.dtype)
        return Categorical().random_cotangent(draw, logits, noise)

    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(draw_once).lower(key, shape).compile()
    logits_bytes = 4 * 8 * 50_000
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * logits_bytes


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
def test_cotangents_stay_finite_and_precise_for_certain_predictions(draw):
    with jax.enable_x64(False):
        logits = jnp.asarray([[0.0, 200.0, -200.0], [12.0, 0.0, -jnp.inf]])
        noise = jnp.asarray([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
        if draw == "importance":
            uniforms = jnp.asarray([[0.5, 0.5], [0.99, 0.99]])
            noise = uniforms, jnp.asarray([[1.0], [-1.0]])

        def v(logits):
            return Categorical().random_cotangent(draw, logits, noise)

        value, derivative = jax.jvp(v, (logits,), (jnp.ones_like(logits),))
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(derivative))
    if draw == "labels":
        # 1 − p of the second example, 6e-6, is not lost in 1 − (1 − 6e-6).
        assert_allclose(value[1, 0], -1 / (1 + np.exp(12.0)), rtol=1e-5)


@pytest.mark.parametrize("estimator", ["per_example", "exact", "minibatch", "forward"])
def test_bfloat16_logits_are_accumulated_in_float32(estimator):
    problem = networks.build("mlp_relu")
    single = jax.tree.map(lambda a: a.astype(jnp.float32), problem.params)

    def in_bfloat16(params, inputs):
        low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, inputs))
        return problem.logits_fn(*low)

    key = jax.random.key(0)
    options = {"estimator": estimator, "num_draws": 4}
    low = trace(problem._replace(logits_fn=in_bfloat16, params=single), key, **options)
    inputs = problem.inputs.astype(jnp.float32)
    full = trace(problem._replace(params=single, inputs=inputs), key, **options)
    assert low.mean.dtype == low.sem.dtype == jnp.float32
    assert_allclose(low.mean, full.mean, rtol=0.05)


def test_products_are_in_full_float32_and_chunks_of_pytrees_work():
    problem = networks.build("mlp_relu", batch=5)

    def logits_fn(params, inputs):
        left, right = inputs["left"], inputs["right"]
        return problem.logits_fn(params, jnp.concatenate([left, right], axis=1))

    inputs = {"left": problem.inputs[:, :2], "right": problem.inputs[:, 2:]}
    split = problem._replace(logits_fn=logits_fn, inputs=inputs)
    got = trace(split, estimator="exact", chunk_size=2)
    assert_allclose(got.mean, trace(problem, estimator="exact").mean, rtol=1e-12)
    program = str(jax.make_jaxpr(lambda k: estimate(problem, k))(jax.random.key(0)))
    assert "HIGHEST" in program
    assert "DEFAULT" not in program


def test_one_example_and_one_class():
    problem = networks.build("mlp_relu", batch=1)
    key = jax.random.key(0)
    exact = trace(problem, estimator="exact").mean
    assert_allclose(
        exact, np.trace(networks.materialise("mlp_relu", batch=1).fisher), rtol=1e-11
    )
    one = trace(problem, key)
    assert jnp.isfinite(one.mean)
    assert jnp.isnan(one.sem)
    assert trace(problem, key, num_draws=3).sem > 0

    def one_class(params, inputs):
        return problem.logits_fn(params, inputs)[:, :1]

    alone = problem._replace(logits_fn=one_class)
    for estimator in ("per_example", "exact", "minibatch", "forward"):
        assert trace(alone, key, estimator=estimator).mean == 0.0


def test_parameter_that_reaches_nothing():
    problem = networks.build("mlp_relu")
    params = {**problem.params, "unused": jnp.ones((3, 2))}
    wider = problem._replace(params=params)
    key = jax.random.key(0)
    for estimator in ("per_example", "exact", "minibatch"):
        options = {"estimator": estimator, "num_draws": 2}
        got, expected = trace(wider, key, **options), trace(problem, key, **options)
        assert_allclose(got, expected, rtol=1e-12)
    assert jnp.isfinite(trace(wider, key, estimator="forward").mean)
    one = functools.partial(curvature.layer_fisher_traces, *wider[:3])
    assert jit(one)(key)["unused"] == 0.0


def arguments(**changes):
    problem = networks.build("mlp_relu", batch=3)
    base = {
        "outputs_fn": problem.logits_fn,
        "params": problem.params,
        "inputs": problem.inputs,
        "key": jax.random.key(0),
    }
    return {**base, **changes}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"key": None}, ValueError, "key"),
        ({"estimator": "empirical"}, ValueError, "'minibatch'.*'empirical'"),
        ({"draw": "gaussian"}, ValueError, "'labels', 'rademacher'.*'gaussian'"),
        ({"num_draws": 0}, ValueError, "num_draws.*0"),
        ({"num_draws": 2.0}, TypeError, "num_draws.*2.0"),
        ({"chunk_size": 0}, ValueError, "chunk_size.*0"),
        ({"params": {"w": np.arange(3)}}, TypeError, r"params\['w'\].*int64"),
        ({"params": {"w": np.zeros((0, 2))}}, ValueError, r"params\['w'\].*\(0, 2\)"),
        ({"params": {}}, ValueError, "params"),
        ({"params": {"w": 1.0}}, TypeError, "params.*float"),
        ({"inputs": np.zeros((0, 5))}, ValueError, r"inputs.*\(0, 5\)"),
        ({"outputs_fn": lambda p, x: x}, None, ""),
        ({"outputs_fn": lambda p, x: x[0]}, ValueError, r"\[3, C\].*\(5,\)"),
        ({"outputs_fn": lambda p, x: x[:2]}, ValueError, r"\[3, C\].*\(2, 5\)"),
        ({"outputs_fn": lambda p, x: x > 0}, TypeError, "logits"),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    if error is None:
        curvature.fisher_trace(**arguments(**changes))
        return
    with pytest.raises(error, match=message):
        curvature.fisher_trace(**arguments(**changes))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(3), TypeError, "labels.*float64"),
        (np.zeros((3, 4), np.int32), ValueError, r"labels.*\[3\].*\(3, 4\)"),
        (np.zeros(2, np.int32), ValueError, r"labels.*\[3\].*\(2,\)"),
    ],
)
def test_wrong_labels_are_named(labels, error, message):
    problem = networks.build("mlp_relu", batch=3)
    with pytest.raises(error, match=message):
        curvature.squared_gradient_norms(*problem[:3], labels)


@pytest.mark.parametrize("gap", [10.0, 36.0, 40.0])
@pytest.mark.parametrize("draw", ["rademacher", "importance"])
def test_draws_are_unbiased_where_one_class_has_all_of_float32(draw, gap):
    """From a gap of 16 on 1 − p of that class is below the rounding of 1."""

    def network(params, inputs):
        return inputs @ params["w"] + params["b"]

    weights = jnp.array([[gap, 0.0, 0.0]], jnp.float32)
    params = {"w": weights, "b": jnp.zeros(3, jnp.float32)}
    inputs, key = jnp.ones((4, 1), jnp.float32), jax.random.key(0)
    exact = curvature.fisher_trace(network, params, inputs, estimator="exact").mean
    found = curvature.fisher_trace(
        network, params, inputs, key, draw=draw, num_draws=1000
    )
    assert abs(found.mean - exact) < 5 * found.sem + 1e-5 * exact
    assert found.sem < 0.02 * exact
