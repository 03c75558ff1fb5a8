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
