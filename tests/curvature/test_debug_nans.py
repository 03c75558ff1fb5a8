"""With jax_debug_nans on, an error that is not known stops nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax import curvature, penalties

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def debug_nans():
    with jax.debug_nans(True):
        yield


def network():
    random = np.random.default_rng(0)
    params = {"w": random.normal(size=(4, 3)).astype(np.float32)}
    inputs = random.normal(size=(6, 4)).astype(np.float32)
    return lambda p, x: jnp.tanh(x @ p["w"]), params, inputs


def loss_fn(params):
    return jnp.sum(jnp.tanh(params["w"]) ** 2)


SINGLE_DRAWS = {
    "minibatch": lambda f, p, x: curvature.fisher_trace(
        f, p, x, KEY, estimator="minibatch"
    ),
    "forward": lambda f, p, x: curvature.fisher_trace(
        f, p, x, KEY, estimator="forward"
    ),
    "one example": lambda f, p, x: curvature.fisher_trace(f, p, x[:1], KEY),
    "hessian": lambda f, p, x: curvature.hessian_trace(loss_fn, p, KEY, num_probes=1),
}


def test_unknown_errors_of_a_diagonal_are_no_fault():
    function, params, inputs = network()
    for estimate in (
        curvature.fisher_diagonal(function, params, inputs[:1], KEY),
        curvature.hessian_diagonal(loss_fn, params, KEY, num_probes=1),
    ):
        assert np.all(np.isfinite(estimate.mean["w"]))
        assert np.all(np.isnan(estimate.sem["w"]))


@pytest.mark.parametrize("name", SINGLE_DRAWS)
def test_an_unknown_error_is_no_fault(name):
    estimate = SINGLE_DRAWS[name]
    function, params, inputs = network()
    eager = estimate(function, params, inputs)
    assert np.isfinite(eager.mean)
    assert np.isnan(eager.sem)
    compiled = jax.jit(lambda p: estimate(function, p, inputs))(params)
    assert np.isfinite(compiled.mean)
    assert np.isinf(compiled.sem)


def test_a_penalty_that_is_not_yet_known_is_no_fault():
    function, params, inputs = network()
    optimizer = penalties.add_penalty(0.1, first_step=1)
    state = optimizer.init(params)

    @jax.jit
    def update(params, state):
        def penalty_fn(p):
            return penalties.fisher_penalty(function, p, inputs, KEY)

        return optimizer.update(params, state, params, penalty_fn=penalty_fn)

    _, state = update(params, state)
    assert state.penalty_value == 0
    _, state = update(params, state)
    assert state.penalty_value > 0


@pytest.mark.parametrize("draw", ["labels", "rademacher", "importance"])
@pytest.mark.parametrize("classes", [1, 3])
def test_certain_predictions_and_single_classes_make_no_nan(draw, classes):
    function, params, inputs = network()
    for estimator in ("per_example", "minibatch", "exact"):
        estimate = curvature.fisher_trace(
            lambda p, x: 300 * function(p, x)[:, :classes],
            params,
            inputs,
            KEY,
            estimator=estimator,
            draw=draw,
        )
        assert np.isfinite(estimate.mean)
