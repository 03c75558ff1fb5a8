import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import curvature, trees
from tests.curvature import networks
from tests.curvature.networks import jit
from tests.tiers import some

KEY_COUNT = 1000


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def trace(problem, key, **options):
    compute = functools.partial(curvature.hessian_trace, problem.loss, **options)
    return jit(compute)(problem.params, key)


def estimates(problem, count=KEY_COUNT, **options):
    compute = functools.partial(
        curvature.hessian_trace, problem.loss, problem.params, **options
    )
    keys = jax.random.split(jax.random.key(11), count)
    return jit(jax.vmap(compute))(keys)


@pytest.mark.parametrize("name", ["mlp_tanh", "conv_pool", "weight_norm", "sequence"])
def test_hvp_equals_materialised_hessian(name):
    problem = networks.build(name)
    flat, unravel = ravel_pytree(problem.params)
    vector = np.random.default_rng(1).normal(size=flat.size)
    product = jit(functools.partial(curvature.hvp, problem.loss))
    got = ravel_pytree(product(problem.params, unravel(vector)))[0]
    expected = networks.materialise(name).hessian @ vector
    assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("probes", ["gaussian", "rademacher"])
@pytest.mark.parametrize("method", ["reverse", "forward"])
def test_trace_is_unbiased_and_its_error_is_the_empirical_one(method, probes):
    problem = networks.build("mlp_tanh")
    exact = np.trace(networks.materialise("mlp_tanh").hessian)
    result = estimates(problem, num_probes=30, probes=probes, method=method)
    empirical = np.std(result.mean, ddof=1)
    assert abs(np.mean(result.mean) - exact) <= 4 * empirical / np.sqrt(KEY_COUNT)
    assert_allclose(np.sqrt(np.mean(result.sem**2)), empirical, rtol=0.2)


def test_rademacher_probes_vary_less():
    spread = {
        probes: np.std(
            estimates(networks.build("mlp_relu"), num_probes=4, probes=probes).mean
        )
        for probes in ("gaussian", "rademacher")
    }
    assert spread["rademacher"] < 0.95 * spread["gaussian"]


@pytest.mark.parametrize("name", ["sequence", "conv_pool", "shared_skip"])
def test_methods_agree_on_the_same_probes(name):
    problem = networks.build(name)
    key = jax.random.key(0)
    options = {"num_probes": 5}
    forward = trace(problem, key, method="forward", **options)
    reverse = trace(problem, key, method="reverse", **options)
    assert_allclose(forward, reverse, rtol=1e-10)


def test_first_probes_do_not_depend_on_their_number():
    problem = networks.build("mlp_tanh")
    key = jax.random.key(0)
    means = [trace(problem, key, num_probes=n).mean for n in (1, 2, 3)]
    hessian = networks.materialise("mlp_tanh").hessian
    forms = [means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1]]

    @jit
    def flat_probe(key):
        probe = trees.random_probe(key, problem.params, "gaussian")
        return ravel_pytree(probe)[0]

    for index, form in enumerate(forms):
        z = flat_probe(jax.random.fold_in(key, index))
        assert_allclose(form, z @ hessian @ z, rtol=1e-9)
    assert jnp.isnan(trace(problem, key, num_probes=1).sem)


@pytest.mark.parametrize("name", networks.PIECEWISE_LINEAR[:2])
def test_fisher_gives_the_exact_trace_where_piecewise_linear(name):
    problem = networks.build(name)
    exact = jit(lambda: curvature.fisher_trace(*problem[:3], estimator="exact").mean)()
    estimate = trace(problem, jax.random.key(0), num_probes=300)
    assert abs(estimate.mean - exact) <= 4 * estimate.sem


def test_xtrace_is_unbiased_and_beats_hutchinson():
    problem = networks.build("mlp_tanh", scale=1.0)
    exact = np.trace(networks.materialise("mlp_tanh", scale=1.0).hessian)
    compute = functools.partial(
        curvature.hessian_xtrace, problem.loss, problem.params, num_products=20
    )
    keys = jax.random.split(jax.random.key(1), 200)
    means = jit(lambda k: jax.lax.map(compute, k))(keys).mean
    spread = np.std(means, ddof=1)
    assert abs(np.mean(means) - exact) <= 4 * spread / np.sqrt(len(means))
    hutchinson = np.std(estimates(problem, num_probes=20, count=200).mean)
    assert spread < 0.7 * hutchinson


def test_xtrace_is_exact_with_as_many_products_as_parameters():
    problem = networks.build("mlp_tanh")
    hessian = networks.materialise("mlp_tanh").hessian
    got = jit(
        lambda k: curvature.hessian_xtrace(
            problem.loss, problem.params, k, num_products=4 * len(hessian)
        )
    )(jax.random.key(0))
    assert_allclose(got.mean, np.trace(hessian), rtol=1e-10)
    assert got.sem == 0.0


def test_xtrace_of_a_tiny_hessian():
    problem = networks.build("mlp_tanh")

    def estimate(factor):
        return jit(
            lambda k: curvature.hessian_xtrace(
                lambda p: factor * problem.loss(p), problem.params, k, num_products=8
            )
        )(jax.random.key(0))

    assert_allclose(estimate(1e-18).mean, 1e-18 * estimate(1.0).mean, rtol=1e-6)


@pytest.mark.parametrize("num_iterations", [25, 1000])
@pytest.mark.parametrize("name", some(["mlp_tanh", "conv_pool"], ["mlp_tanh"]))
def test_largest_eigenvalues(name, num_iterations):
    problem = networks.build(name)
    dense = networks.materialise(name)
    key = jax.random.key(0)
    of_hessian = jit(
        lambda k: curvature.largest_eigenvalue(
            problem.loss, problem.params, k, num_iterations=num_iterations
        )
    )(key)
    of_fisher = jit(
        lambda k: curvature.largest_fisher_eigenvalue(
            *problem[:3], k, num_iterations=num_iterations, chunk_size=4
        )
    )(key)
    for got, matrix in ((of_hessian, dense.hessian), (of_fisher, dense.fisher)):
        assert_allclose(got.value, np.linalg.eigvalsh(matrix)[-1], rtol=1e-6)
        assert got.residual < 1e-3 * got.value


def test_residual_bounds_the_error_of_few_iterations():
    problem = networks.build("mlp_tanh")
    spectrum = np.linalg.eigvalsh(networks.materialise("mlp_tanh").hessian)
    for iterations in (1, 3):
        got = jit(
            lambda k, n=iterations: curvature.largest_eigenvalue(
                problem.loss, problem.params, k, num_iterations=n
            )
        )(jax.random.key(0))
        assert got.value <= spectrum[-1] + 1e-12
        assert np.min(np.abs(spectrum - got.value)) <= got.residual


@pytest.mark.parametrize(
    ("loss", "largest"),
    [
        (lambda p: p["a"].sum() + p["b"], 0.0),
        (lambda p: 1.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2), 3.0),
        (lambda p: -1.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2), -3.0),
        (lambda p: -jnp.sum(p["a"] ** 2), 0.0),
    ],
    ids=["zero", "identity", "negative", "semidefinite"],
)
def test_largest_eigenvalue_when_the_krylov_space_is_exhausted(loss, largest):
    params = {"a": jnp.arange(4.0), "b": jnp.asarray(0.5)}
    got = jit(lambda p, k: curvature.largest_eigenvalue(loss, p, k))(
        params, jax.random.key(0)
    )
    assert_allclose(got.value, largest, atol=1e-12)
    assert_allclose(got.residual, 0.0, atol=1e-12)


def test_sums_are_float32_for_bfloat16_parameters():
    params = {"w": jnp.ones(5000, jnp.bfloat16)}
    for method in ("reverse", "forward"):
        got = curvature.hessian_trace(
            lambda p: 0.5 * jnp.sum(p["w"].astype(jnp.float32) ** 2),
            params,
            jax.random.key(0),
            num_probes=2,
            probes="rademacher",
            method=method,
        )
        assert got.mean.dtype == jnp.float32
        assert_allclose(got.mean, 5000.0, rtol=1e-3)


def sum_of_squares(params):
    return jnp.sum(params["w"] ** 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"probes": "sphere"}, ValueError, "'gaussian', 'rademacher'.*'sphere'"),
        ({"method": "central"}, ValueError, "'reverse', 'forward'.*'central'"),
        ({"num_probes": 0}, ValueError, "num_probes.*0"),
        ({"key": None}, ValueError, "key"),
        ({"loss_fn": lambda p: p["w"]}, TypeError, r"loss_fn.*float64\[3\]|loss_fn.*3"),
        ({"loss_fn": lambda p: (p["w"].sum(), 0)}, TypeError, "loss_fn"),
        ({"params": {"w": np.arange(3)}}, TypeError, r"params\['w'\].*int64"),
    ],
)
def test_wrong_arguments_of_the_trace_are_named(changes, error, message):
    arguments = {
        "loss_fn": sum_of_squares,
        "params": {"w": jnp.ones(3)},
        "key": jax.random.key(0),
    } | changes
    with pytest.raises(error, match=message):
        curvature.hessian_trace(**arguments)


def test_wrong_arguments_of_products_and_eigenvalues_are_named():
    params, key = {"w": jnp.ones(3)}, jax.random.key(0)
    with pytest.raises(ValueError, match=r"vector\['w'\].*\(3,\).*\(2,\)"):
        curvature.hvp(sum_of_squares, params, {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="vector"):
        curvature.hvp(sum_of_squares, params, {"v": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"num_iterations.*0"):
        curvature.largest_eigenvalue(sum_of_squares, params, key, num_iterations=0)
    with pytest.raises(ValueError, match=r"num_products.*5"):
        curvature.hessian_xtrace(sum_of_squares, params, key, num_products=5)
