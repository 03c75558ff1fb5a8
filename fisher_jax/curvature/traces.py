"""Tr(F) and Tr(H) of a classifier on one batch, for a training loop's dashboard."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fisher_jax import axes, trees
from fisher_jax.curvature import class_space
from fisher_jax.curvature.class_space import Draw, LogitsFn
from fisher_jax.curvature.fisher import Estimate, fisher_trace
from fisher_jax.curvature.hessian import hessian_trace


class Traces(NamedTuple):
    """Both traces, each with the standard error that its random draws leave.

    Attributes:
        fisher: Tr(F).
        hessian: Tr(H).
    """

    fisher: Estimate
    hessian: Estimate


def fisher_and_hessian_trace(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Int[Array, " B"],
    key: PRNGKeyArray,
    *,
    draw: Draw = "rademacher",
    num_draws: int = 1,
    num_probes: int = 30,
    axis_name: axes.AxisName = None,
) -> Traces:
    """Tr(F), and Tr(H) of the mean cross-entropy (1/B) Σ_i −log p(y_i|x_i).

    ``fisher_trace`` per example and ``hessian_trace`` with Gaussian probes, which say
    more; here they come compiled, from one call. A logits_fn is compiled once, so
    define it once and not anew at each call; arrays of its own that change, as batch
    norm's running statistics, are bound by ``jax.tree_util.Partial(function, arrays)``.

    For networks that are piecewise linear in each layer's weights (ReLU, max-pooling)
    both estimate the same number, Tr(F) with far less noise.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C]; hashable, as any
            function is, or a ``jax.tree_util.Partial``.
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        labels: integers [B], the true ones; Tr(F) does not depend on them. Their range
            is checked where they are concrete, not where they are traced by ``jit``.
        key: a PRNG key.
        draw: of Tr(F): "rademacher", "labels" (the paper's) or "importance".
        num_draws: of Tr(F), independent draws per example that are averaged.
        num_probes: M of Tr(H), 30 in the paper.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        ``fisher`` and ``hessian``, each with scalars ``mean`` and ``sem``, at least
        float32. The errors are of the draws given the examples; see ``fisher_trace``.

    Raises:
        TypeError: integer parameters, labels that are not integers, or logits that are
            not floating point.
        ValueError: labels out of range, shapes that do not fit, no key, an unknown
            draw, counts below one, or a split batch without axis_name.
    """
    trees.check_function("logits_fn", logits_fn)
    trees.check_params(params)
    network = logits_fn
    if not isinstance(network, jax.tree_util.Partial):
        network = jax.tree_util.Partial(network)
    # The trace's cache makes this free from the second call on.
    logits = _apply.eval_shape(network, params, inputs)
    class_space.check_labels(labels, *logits.shape)
    key = trees.checked_key(key)
    traces: Traces = _traces(
        network,
        params,
        inputs,
        jnp.asarray(labels),
        key,
        draw=draw,
        num_draws=num_draws,
        num_probes=num_probes,
        axis_name=axis_name,
    )
    return traces


@jax.jit
def _apply(logits_fn: LogitsFn, params: PyTree, inputs: PyTree) -> Float[Array, "B C"]:
    class_space.logits_shape(logits_fn, params, inputs)
    return logits_fn(params, inputs)


@functools.partial(
    jax.jit, static_argnames=("draw", "num_draws", "num_probes", "axis_name")
)
def _traces(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Int[Array, " B"],
    key: PRNGKeyArray,
    *,
    draw: Draw,
    num_draws: int,
    num_probes: int,
    axis_name: axes.AxisName,
) -> Traces:
    fisher_key, hessian_key = jax.random.split(key)
    fisher = fisher_trace(
        logits_fn,
        params,
        inputs,
        fisher_key,
        draw=draw,
        num_draws=num_draws,
        axis_name=axis_name,
    )
    batch = labels.shape[0] * axes.size(axis_name)

    def loss(p: PyTree) -> Float[Array, ""]:
        losses = class_space.cross_entropies(logits_fn(p, inputs), labels)
        return jnp.sum(losses) / batch

    hessian = hessian_trace(
        loss, params, hessian_key, num_probes=num_probes, axis_name=axis_name
    )
    return Traces(fisher, hessian)
