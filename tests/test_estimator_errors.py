"""Errors of estimators beside their known standard deviations, on a small network."""

import jax
import jax.numpy as jnp
import numpy as np

from fisher_jax.curvature import fisher_trace
from fisher_jax.estimator_errors import ESTIMATORS, estimator_errors


def apply(statistics, params, inputs):
    hidden = jax.nn.relu(inputs @ params["first"])
    return hidden @ params["second"] + statistics


def test_errors_are_those_of_the_estimators_spread():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "first": jax.random.normal(keys[0], (5, 8)),
        "second": jax.random.normal(keys[1], (8, 3)),
    }
    inputs = jax.random.normal(keys[2], (16, 5))
    labels = jnp.zeros(16, jnp.int32)
    logits_fn = jax.tree_util.Partial(apply, jnp.zeros(3))
    errors = estimator_errors(logits_fn, params, inputs, labels, keys[3], 150)
    exact = fisher_trace(logits_fn, params, inputs, estimator="exact").mean
    np.testing.assert_allclose(errors.pop("estimator/exact"), exact, rtol=1e-5)
    assert set(errors) == {f"estimator/{name}" for name in ESTIMATORS}
    # An independent look at one: the spread of single draws, over four of them.
    one_draw = jax.jit(
        jax.vmap(
            lambda key: fisher_trace(logits_fn, params, inputs, key, draw="labels").mean
        )
    )
    draws = one_draw(jax.random.split(jax.random.key(1), 4000))
    expected = np.std(draws) / exact / 2
    np.testing.assert_allclose(errors["estimator/fisher_labels"], expected, rtol=0.25)
    # Tr(H) is Tr(F) here: its estimators are unbiased for it, only noisier.
    assert errors["estimator/hessian_gaussian"] > errors["estimator/fisher_rademacher"]
    forward, reverse = (
        errors[f"estimator/hessian_{m}"] for m in ("forward", "rademacher")
    )
    np.testing.assert_allclose(forward, reverse, rtol=1e-2)
