"""What a typed training loop does with the public functions, and what it must not.

``make lint`` checks it. Where a call is wrong, mypy must say so: an ignore that is not
needed is an error (warn_unused_ignores).
"""

from typing import assert_type

import jax
import jax.numpy as jnp
import optax
from jax import Array

from fisher_jax.curvature import (
    Eigenvalue,
    Estimate,
    Traces,
    fisher_and_hessian_trace,
    fisher_trace,
    hessian_trace,
    largest_eigenvalue,
    minibatch_fisher_trace,
    sample_labels,
    squared_gradient_norms,
)
from fisher_jax.penalties import add_penalty, fisher_penalty, gradient_penalty

Params = dict[str, Array]


def logits_fn(params: Params, inputs: Array) -> Array:
    """A network of one layer."""
    return inputs @ params["w"]


def measured(params: Params, inputs: Array, labels: Array, key: Array) -> float:
    """Every kind of result has its type."""
    trace = fisher_trace(logits_fn, params, inputs, key, draw="labels", num_draws=2)
    assert_type(trace, Estimate)
    assert_type(trace.mean, Array)
    mean, sem = trace
    both = fisher_and_hessian_trace(logits_fn, params, inputs, labels, key)
    assert_type(both, Traces)
    assert_type(both.hessian, Estimate)
    assert_type(squared_gradient_norms(logits_fn, params, inputs, labels), Array)
    assert_type(minibatch_fisher_trace(logits_fn, params, inputs, key), Array)
    assert_type(sample_labels(key, logits_fn(params, inputs)), Array)

    def loss_fn(params: Params) -> Array:
        return jnp.mean(logits_fn(params, inputs))

    assert_type(hessian_trace(loss_fn, params, key), Estimate)
    assert_type(largest_eigenvalue(loss_fn, params, key), Eigenvalue)
    return float(mean) + float(sem)


def penalised(
    params: Params, state: optax.OptState, inputs: Array, key: Array
) -> tuple[Params, optax.OptState]:
    """A step with a stale penalty in an optax chain."""
    optimizer = optax.chain(add_penalty(0.1, update_every=10), optax.sgd(0.1))

    def penalty_fn(params: Params) -> Array:
        return fisher_penalty(logits_fn, params, inputs, key)

    assert_type(penalty_fn(params), Array)
    gradient = jax.grad(penalty_fn)(params)
    updates, state = optimizer.update(gradient, state, params, penalty_fn=penalty_fn)
    return {k: params[k] + updates[k] for k in params}, state


def wrong(params: Params, inputs: Array, labels: Array, key: Array) -> None:
    """Each of these is refused before anything runs."""
    fisher_trace(logits_fn, params, inputs, key, draw="uniform")  # type: ignore[arg-type]
    fisher_trace(logits_fn, params, inputs, key, estimator="best")  # type: ignore[arg-type]
    fisher_trace(logits_fn, params, inputs, key, num_draws=2.0)  # type: ignore[arg-type]
    fisher_trace(params, inputs, key)  # type: ignore[arg-type]
    fisher_penalty(logits_fn, params, inputs)  # type: ignore[call-arg]
    fisher_penalty(logits_fn, params, inputs, 0)  # type: ignore[arg-type]
    gradient_penalty(logits_fn, params, inputs, labels, key)  # type: ignore[arg-type, call-arg]
    add_penalty("0.1")  # type: ignore[arg-type]
    add_penalty(0.1, 10)  # type: ignore[call-arg]
    hessian_trace(0.0, params, key)  # type: ignore[arg-type]
    hessian_trace(jnp.sum, params, key, probes="uniform")  # type: ignore[arg-type]
    _ = fisher_trace(logits_fn, params, inputs, key).trace  # type: ignore[attr-defined]
