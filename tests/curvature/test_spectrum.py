"""Diagonals, layers, eigenpairs, densities and loops over batches, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import curvature
from fisher_jax.curvature import Estimate, likelihoods
from tests.curvature import networks, test_likelihoods
from tests.curvature.networks import jit

LIKELIHOODS = test_likelihoods.LIKELIHOODS
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def flat(tree):
    return ravel_pytree(tree)[0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_exact_diagonal_of_the_fisher(likelihood, masked):
    case = test_likelihoods.build(test_likelihoods.mlp, likelihood, masked)
    fisher, _ = test_likelihoods.dense(test_likelihoods.mlp, likelihood, masked)
    exact = functools.partial(
        curvature.fisher_diagonal, estimator="exact", chunk_size=2, **case.options
    )
    diagonal = jit(lambda p: exact(case.network, p, case.inputs))(case.params)
    assert_allclose(flat(diagonal.mean), np.diag(fisher), rtol=1e-9, atol=1e-13)
    assert not np.any(flat(diagonal.sem))


@pytest.mark.parametrize("name", ["conv_pool", "shared_skip"])
def test_diagonals_sum_to_the_trace_and_are_exact_for_convolutions(name):
    problem, dense = networks.build(name), networks.materialise(name)

    @jit
    def both(key):
        drawn = curvature.fisher_diagonal(*problem[:3], key, num_draws=2)
        trace = curvature.fisher_trace(*problem[:3], key, num_draws=2)
        exact = curvature.fisher_diagonal(*problem[:3], estimator="exact")
        return drawn, trace, exact

    drawn, trace, exact = both(KEY)
    assert jax.tree.structure(drawn.sem) == jax.tree.structure(problem.params)
    assert_allclose(flat(drawn.mean).sum(), trace.mean, rtol=1e-10)
    assert_allclose(flat(exact.mean), np.diag(dense.fisher), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("draw", likelihoods.DRAWS)
@pytest.mark.parametrize("num_draws", [1, 3])
def test_drawn_diagonal_is_unbiased_and_its_error_is_the_empirical_one(draw, num_draws):
    problem, dense = networks.build("mlp_tanh"), networks.materialise("mlp_tanh")
    one = functools.partial(
        curvature.fisher_diagonal, *problem[:3], draw=draw, num_draws=num_draws
    )
    got = jit(jax.vmap(lambda k: jax.tree.map(flat, one(k), is_leaf=is_tree)))(
        jax.random.split(KEY, 1000)
    )
    spread = np.std(got.mean, axis=0, ddof=1)
    difference = np.abs(got.mean.mean(axis=0) - np.diag(dense.fisher))
    assert np.all(difference <= 5 * spread / np.sqrt(1000) + 1e-6 * difference.max())
    reported = np.sqrt(np.mean(got.sem**2, axis=0))
    if num_draws == 1:
        assert np.all(reported > 0.9 * spread)
    else:
        assert_allclose(reported, spread, rtol=0.35)


def is_tree(value):
    return isinstance(value, dict)


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_diagonal_and_layers_of_the_hessian(probes):
    problem, dense = networks.build("mlp_tanh"), networks.materialise("mlp_tanh")
    _, unravel = ravel_pytree(problem.params)

    def quantities(key):
        args = (problem.loss, problem.params, key)
        options = {"num_probes": 20, "probes": probes}
        return (
            curvature.hessian_diagonal(*args, **options),
            curvature.layer_hessian_traces(*args, **options),
            curvature.hessian_trace(*args, **options),
        )

    diagonal, layers, trace = jit(jax.vmap(quantities))(jax.random.split(KEY, 500))
    blocks = jax.tree.map(np.sum, unravel(np.diag(dense.hessian)))
    exact = flatten_layers(blocks)
    assert_allclose(
        sum(one.mean for one in flatten_layers(layers).values()), trace.mean, rtol=1e-9
    )
    for name, layer in flatten_layers(layers).items():
        spread = np.std(layer.mean, ddof=1)
        off = abs(np.mean(layer.mean) - exact[name])
        assert off <= 4.5 * spread / np.sqrt(500) + 1e-12
        assert_allclose(np.sqrt(np.mean(layer.sem**2)), spread, rtol=0.2, atol=1e-12)
    means, sems = (jax.vmap(flat)(tree) for tree in diagonal)
    spread = np.std(means, axis=0, ddof=1)
    off = np.abs(np.mean(means, axis=0) - np.diag(dense.hessian))
    assert np.all(off <= 5 * spread / np.sqrt(500) + 1e-12)
    assert_allclose(np.sqrt(np.mean(sems**2, axis=0)), spread, rtol=0.3, atol=1e-9)


def flatten_layers(tree):
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda v: isinstance(v, Estimate)
    )
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("of", ["hessian", "fisher"])
def test_eigenpairs_are_those_of_the_dense_matrix(of):
    problem, dense = networks.build("mlp_tanh"), networks.materialise("mlp_tanh")
    matrix = getattr(dense, of)

    @jit
    def pairs(params):
        if of == "hessian":
            operator = curvature.hessian_operator(problem.loss, params)
        else:
            operator = curvature.fisher_operator(
                problem.logits_fn, params, problem.inputs
            )
        return curvature.eigenpairs(operator, params, KEY, num=4, num_iterations=50)

    got = pairs(problem.params)
    expected, vectors = np.linalg.eigh(matrix)
    assert_allclose(got.values, expected[::-1][:4], rtol=1e-7)
    found = jax.vmap(flat)(got.vectors)
    assert_allclose(np.abs(found @ vectors[:, ::-1][:, :4]), np.eye(4), atol=1e-4)
    residuals = np.linalg.norm(found @ matrix - got.values[:, None] * found, axis=1)
    assert_allclose(got.residuals, residuals, atol=1e-9)


def test_multiple_eigenvalues_come_as_often_as_they_are():
    params = {"a": jnp.ones(4), "b": jnp.ones(3)}

    def loss(p):
        return 1.5 * jnp.sum(p["a"] ** 2) - jnp.sum(p["b"] ** 2)

    operator = curvature.hessian_operator(loss, params)
    for debug in (False, True):
        with jax.debug_nans(debug):
            got = curvature.eigenpairs(operator, params, KEY, num=7)
        assert_allclose(got.values, [3, 3, 3, 3, -2, -2, -2], atol=1e-9)
        found = jax.vmap(flat)(got.vectors)
        assert_allclose(found @ found.T, np.eye(7), atol=1e-9)


def test_spectral_density_gives_the_moments_and_the_shape():
    problem, dense = networks.build("mlp_tanh"), networks.materialise("mlp_tanh")
    operator = curvature.hessian_operator(problem.loss, problem.params)
    density = jit(
        lambda k: curvature.spectral_density(
            operator, problem.params, k, num_probes=40, num_steps=30
        )
    )(KEY)
    values = np.linalg.eigvalsh(dense.hessian)
    assert density.nodes.shape == density.weights.shape == (1200,)
    assert_allclose(density.weights.sum(), 1, rtol=1e-12)
    assert values[0] - 1e-9 <= density.nodes.min()
    assert density.nodes.max() <= values[-1] + 1e-9
    # Signs make the second moment's error 2 Σ_{j≠k} (H²)_jk² / (P² probes).
    square = dense.hessian @ dense.hessian
    error = np.sqrt(2 * (np.sum(square**2) - np.sum(np.diag(square) ** 2)) / 40)
    second = np.sum(density.weights * density.nodes**2)
    assert abs(second - np.mean(values**2)) <= 4 * error / len(values)
    grid = np.linspace(values[0] - 1, values[-1] + 1, 800)
    curve = density.curve(grid, 0.05)
    assert_allclose(np.trapezoid(curve, grid), 1, rtol=1e-3)
    smooth = np.exp(-0.5 * ((grid[:, None] - values) / 0.05) ** 2).mean(axis=1)
    smooth /= 0.05 * np.sqrt(2 * np.pi)
    assert np.trapezoid(np.abs(curve - smooth), grid) < 0.2


@pytest.mark.parametrize(("outliers", "bulk"), [([9.0, 7.0, 4.0], 97), ([2.0], 0)])
def test_a_density_without_reorthogonalisation_loses_nothing(outliers, bulk):
    """Signs weigh the eigenvalues of a diagonal matrix alike: its measure is known.

    Found eigenvalues come again; with two different ones the Krylov space ends early.
    """
    random = np.random.default_rng(0)
    values = np.concatenate([outliers, 0.1 * random.normal(size=bulk), [-1.0]])
    matrix = jnp.asarray(values)
    steps = min(60, len(values))
    density = jit(
        lambda k: curvature.spectral_density(
            lambda v: matrix * v, jnp.zeros(len(values)), k, num_steps=60, num_probes=2
        )
    )(KEY)
    assert density.nodes.shape == (2 * steps,)
    assert_allclose(density.weights.sum(), 1, rtol=1e-12)
    if bulk:
        assert np.sum(np.abs(density.nodes - outliers[0]) < 1e-9) > 2
    for smooth in (np.square, lambda v: v**7, np.exp, lambda v: np.cos(9 * v)):
        got = np.sum(density.weights * smooth(np.asarray(density.nodes)))
        assert_allclose(got, np.mean(smooth(values)), rtol=1e-9)


def test_operators_go_into_scipy_and_matfree():
    sparse = pytest.importorskip("scipy.sparse.linalg")
    from matfree import decomp, funm

    problem, dense = networks.build("mlp_tanh"), networks.materialise("mlp_tanh")
    operator = curvature.hessian_operator(problem.loss, problem.params)
    start, unravel = ravel_pytree(problem.params)

    def product(vector):
        return flat(operator(unravel(vector)))

    compiled = jit(product)

    linear = sparse.LinearOperator(
        (start.size, start.size), lambda v: np.asarray(compiled(v.ravel())), dtype=float
    )
    largest = sparse.eigsh(linear, k=2, which="LA", return_eigenvectors=False)
    expected = np.linalg.eigvalsh(dense.hessian)[-2:]
    assert_allclose(np.sort(largest), expected, rtol=1e-8)
    tridiagonal = decomp.tridiag_sym(10, reortho="full", custom_vjp=False)
    exponential = funm.funm_lanczos_sym(funm.dense_funm_sym_eigh(jnp.exp), tridiagonal)
    got = exponential(product, start)
    values, vectors = np.linalg.eigh(dense.hessian)
    assert_allclose(
        got, vectors @ (np.exp(values) * (vectors.T @ np.asarray(start))), rtol=1e-4
    )


def test_a_loader_with_a_ragged_end_gives_what_the_whole_gives():
    problem = networks.build("mlp_tanh", batch=7)
    trace = jit(
        lambda x: curvature.fisher_trace(
            problem.logits_fn, problem.params, x, estimator="exact"
        )
    )
    parts = [problem.inputs[:3], problem.inputs[3:6], problem.inputs[6:]]
    seen = []
    got = curvature.over_batches(
        trace, iter(parts), progress=lambda estimate, count: seen.append(count)
    )
    assert_allclose(got.mean, trace(problem.inputs).mean, rtol=1e-12)
    assert got.sem == 0
    assert seen == [3, 6, 7]


def test_errors_of_batches_are_pooled_and_enough_is_enough():
    problem = networks.build("mlp_tanh", batch=7)
    parts = [problem.inputs[:4], problem.inputs[4:]]
    trace = jit(
        lambda x, k: curvature.fisher_trace(
            problem.logits_fn, problem.params, x, k, num_draws=40
        )
    )

    def estimate(key):
        keys = iter(jax.random.split(key))
        return curvature.over_batches(lambda x: trace(x, next(keys)), parts)

    results = [estimate(k) for k in jax.random.split(KEY, 300)]
    spread = np.std([r.mean for r in results], ddof=1)
    assert_allclose(np.sqrt(np.mean([r.sem**2 for r in results])), spread, rtol=0.15)
    read = []

    def endless():
        while True:
            read.append(1)
            yield problem.inputs

    def constant(inputs):
        return Estimate(jnp.float64(2.0), jnp.float64(1.0))

    got = curvature.over_batches(constant, endless(), target_sem=0.25)
    assert got == Estimate(2.0, 0.25)
    assert len(read) == 16


def test_wrong_arguments_are_named():
    params = {"w": jnp.ones(3)}
    operator = curvature.hessian_operator(lambda p: jnp.sum(p["w"] ** 2), params)
    with pytest.raises(ValueError, match=r"num: expected at most.*3 parameters, got 4"):
        curvature.eigenpairs(operator, params, KEY, num=4)
    with pytest.raises(ValueError, match=r"vector\['w'\]"):
        operator({"w": jnp.ones(2)})
    with pytest.raises(TypeError, match="operator: expected a function"):
        curvature.spectral_density(1.0, params, KEY)
    with pytest.raises(ValueError, match="batches: expected at least one"):
        curvature.over_batches(lambda b: b, [])
    with pytest.raises(TypeError, match="function: expected an Estimate"):
        curvature.over_batches(lambda b: b, [jnp.ones(3)])
    with pytest.raises(ValueError, match="target_sem"):
        curvature.over_batches(lambda b: b, [], target_sem=0.0)


def low_rank_loss(size):
    """A quadratic whose Hessian has eight large eigenvalues, and that Hessian."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(size, size)))[0]
    values = np.where(np.arange(size) < 8, 10.0, 1e-3)
    matrix = (basis * values) @ basis.T
    return lambda p: 0.5 * flat(p) @ jnp.asarray(matrix) @ flat(p), matrix


def test_xdiag_is_unbiased_and_beats_hutchinson_where_few_eigenvalues_matter():
    params = {"a": jnp.ones((4, 5)), "b": jnp.ones(12)}
    loss, matrix = low_rank_loss(32)

    def diagonals(method, num_probes):
        def one(key):
            return curvature.hessian_diagonal(
                loss, params, key, num_probes=num_probes, method=method
            )

        found = jit(lambda k: jax.lax.map(one, k))(jax.random.split(KEY, 300))
        assert jax.tree.structure(found.sem) == jax.tree.structure(params)
        return np.asarray(jax.vmap(flat)(found.mean))

    few, many = diagonals("xdiag", 8), diagonals("xdiag", 24)
    error = few.std(axis=0, ddof=1) / np.sqrt(len(few))
    assert np.all(abs(few.mean(axis=0) - np.diag(matrix)) < 5 * error)
    hutchinson = diagonals("hutchinson", 24)
    assert many.std(axis=0).max() < 0.01 * hutchinson.std(axis=0).min()


@pytest.mark.parametrize("rank", [0, 1, 2, 6])
def test_xdiag_of_a_hessian_of_smaller_rank_than_the_range_is_exact(rank):
    weights = jnp.asarray(np.arange(1.0, 33) * (np.arange(32) < rank))
    found = curvature.hessian_diagonal(
        lambda p: jnp.sum(weights * p**2), jnp.ones(32), KEY, num_probes=16,
        method="xdiag",
    )  # fmt: skip
    assert_allclose(found.mean, 2 * weights, atol=1e-9)
    assert_allclose(found.sem, np.zeros(32), atol=1e-9)


def test_the_error_of_a_diagonal_that_hardly_spreads_is_not_lost_in_rounding():
    random = np.random.default_rng(0)
    matrix = random.normal(size=(40, 40))
    matrix = 1e-3 * (matrix + matrix.T)
    expected = np.sqrt((matrix**2).sum(axis=1) - np.diag(matrix) ** 2)
    matrix += 100 * np.eye(40)
    rounded = jnp.asarray(matrix, jnp.float32)
    found = curvature.hessian_diagonal(
        lambda p: 0.5 * p @ rounded @ p, jnp.ones(40, jnp.float32), KEY, num_probes=1000
    )
    # Both are standard deviations, one of a thousand draws: they agree to 3 in 100.
    ratio = np.asarray(found.sem) * np.sqrt(1000) / expected
    assert np.all(abs(ratio - 1) < 0.2)


def test_xdiag_says_how_many_products_it_takes():
    loss, _ = low_rank_loss(32)
    for number in (2, 7, 34):
        with pytest.raises(ValueError, match="an even number from 4 on and at most"):
            curvature.hessian_diagonal(
                loss, jnp.ones(32), KEY, num_probes=number, method="xdiag"
            )
