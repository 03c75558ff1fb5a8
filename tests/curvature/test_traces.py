import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from fisher_jax.curvature import fisher_and_hessian_trace
from tests.curvature import networks


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_a_piecewise_linear_network_gets_tr_f_twice_and_no_probes():
    problem, dense = networks.build("mlp_relu"), networks.materialise("mlp_relu")
    assert_allclose(np.trace(dense.hessian), np.trace(dense.fisher), rtol=1e-10)
    options = {"num_draws": 200, "key": jax.random.key(1)}
    plain = fisher_and_hessian_trace(*problem, **options)
    fisher, hessian = fisher_and_hessian_trace(
        *problem, piecewise_linear=True, **options
    )
    assert fisher.mean == hessian.mean == plain.fisher.mean
    assert 0 < hessian.sem == fisher.sem
    assert abs(hessian.mean - np.trace(dense.hessian)) < 4 * hessian.sem

    def program(piecewise_linear):
        def compute(params):
            return fisher_and_hessian_trace(
                problem.logits_fn,
                params,
                *problem[2:],
                jax.random.key(0),
                piecewise_linear=piecewise_linear,
            )

        return str(jax.make_jaxpr(compute)(problem.params))

    # Probes of H are Gaussian, and drawn by erf_inv.
    assert "erf_inv" in program(False)
    assert "erf_inv" not in program(True)


@pytest.mark.parametrize("name", ["mlp_tanh", "mlp_relu"])
def test_both_traces_are_those_of_the_materialised_matrices(name):
    problem, dense = networks.build(name), networks.materialise(name)
    compute = functools.partial(fisher_and_hessian_trace, *problem)
    for draw in ("labels", "rademacher", "importance"):
        traces = compute(
            key=jax.random.key(1), draw=draw, num_draws=4000, num_probes=4000
        )
        for got, matrix in zip(traces, (dense.fisher, dense.hessian), strict=True):
            assert 0 < got.sem < 0.05 * np.trace(matrix)
            assert abs(got.mean - np.trace(matrix)) < 4 * got.sem


def test_a_network_is_compiled_once():
    problem, key = networks.build("mlp_relu"), jax.random.key(0)
    traced = itertools.count()

    def logits_fn(scale, params, inputs):
        next(traced)
        return scale * problem.logits_fn(params, inputs)

    def traces(scale):
        network = jax.tree_util.Partial(logits_fn, jnp.asarray(scale))
        return fisher_and_hessian_trace(network, *problem[1:], key)

    first = traces(1.0)
    count = next(traced)
    second = traces(2.0)
    # Once more, for the check of the labels.
    assert next(traced) == count + 2
    plain = fisher_and_hessian_trace(*problem, key)
    assert_allclose(first, plain, rtol=1e-12)
    assert not np.allclose(second.fisher.mean, first.fisher.mean)


def test_it_can_be_called_under_jit():
    problem, key = networks.build("mlp_relu"), jax.random.key(0)
    inside = jax.jit(
        lambda p: fisher_and_hessian_trace(problem.logits_fn, p, *problem[2:], key)
    )(problem.params)
    assert_allclose(inside, fisher_and_hessian_trace(*problem, key), rtol=1e-12)
