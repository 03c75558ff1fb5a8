"""Tr(F) and Tr(H) of a network on one batch, for a training loop's dashboard."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, compiled, trees
from fisher_jax.curvature import likelihoods
from fisher_jax.curvature.estimates import Estimate
from fisher_jax.curvature.fisher import fisher_trace
from fisher_jax.curvature.hessian import hessian_trace
from fisher_jax.curvature.likelihoods import (
    Categorical,
    Draw,
    Likelihood,
    Mask,
    OutputsFn,
)


class Traces(NamedTuple):
    """Both traces, each with the standard error that its random draws leave.

    Attributes:
        fisher: Tr(F).
        hessian: Tr(H).
    """

    fisher: Estimate
    hessian: Estimate


def fisher_and_hessian_trace(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Array,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    draw: Draw = "rademacher",
    num_draws: int = 1,
    num_probes: int = 30,
    piecewise_linear: bool = False,
    axis_name: axes.AxisName = None,
    check: bool = False,
) -> Traces:
    """Tr(F), and Tr(H) of the mean loss, for softmax (1/B) Σ_i −log p(y_i|x_i).

    ``fisher_trace`` per example and ``hessian_trace`` with Gaussian probes, which say
    more; here they come from one call, in one program.

    For networks that are piecewise linear in each layer's weights (ReLU, max-pooling)
    Tr(H) is Tr(F), which is estimated with far less noise and at a fraction of the
    cost. ``piecewise_linear=True`` says so, and no probe of H is made.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> labels, key = jnp.array([0, 1]), jax.random.key(0)
    >>> traces = fisher_and_hessian_trace(network, params, x, labels, key)
    >>> traces.fisher.mean.round(3)
    Array(0.5, dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        labels: the true ones, for Categorical integers [B, ...]; Tr(F) does not depend
            on them. Their range is checked where they are concrete, not where they are
            traced by ``jit``.
        key: a PRNG key.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        draw: of Tr(F): "rademacher", "labels" (the paper's) or "importance".
        num_draws: of Tr(F), independent draws per example that are averaged.
        num_probes: M of Tr(H), 30 in the paper.
        piecewise_linear: True: the estimate of Tr(F) is returned for both. Whether the
            network is piecewise linear is not checked.
        axis_name: mesh axes along which the batch is split inside shard_map.
        check: whether to compare outputs of half the batch with those of the whole
            first, as ``fisher_trace`` does.

    Returns:
        ``fisher`` and ``hessian``, each with scalars ``mean`` and ``sem``, at least
        float32. The errors are of the draws given the examples; see ``fisher_trace``.

    Raises:
        TypeError: integer parameters, labels of a wrong type, or outputs that are not
            floating point.
        ValueError: labels out of range, shapes that do not fit, no key, an unknown
            draw, counts below one, or a split batch without axis_name; with ``check``,
            outputs that depend on the rest of the batch.
    """
    if check:
        likelihoods.check_examples_apart(outputs_fn, params, inputs)
    trees.check_params(params)
    key = trees.checked_key(key)
    likelihoods.check_likelihood(likelihood)
    likelihoods.check_draw(draw, likelihood)
    outputs = likelihoods.checked_outputs(
        outputs_fn, params, inputs, likelihood, mask, in_parts=True
    )
    # Before they are traced: the values of tracers cannot be checked.
    likelihood.check_targets(labels, outputs)
    return _traces(
        outputs_fn,
        params,
        inputs,
        jnp.asarray(labels),
        key,
        likelihood=likelihood,
        mask=mask,
        draw=draw,
        num_draws=num_draws,
        num_probes=num_probes,
        piecewise_linear=piecewise_linear,
        axis_name=axis_name,
    )


@compiled.compiles_itself
def _traces(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Array,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood,
    mask: Mask | None,
    draw: Draw,
    num_draws: int,
    num_probes: int,
    piecewise_linear: bool,
    axis_name: axes.AxisName,
) -> Traces:
    fisher_key, hessian_key = jax.random.split(key)
    fisher = fisher_trace(
        outputs_fn,
        params,
        inputs,
        fisher_key,
        likelihood=likelihood,
        mask=mask,
        draw=draw,
        num_draws=num_draws,
        axis_name=axis_name,
    )
    if piecewise_linear:
        return Traces(fisher, fisher)
    batch = labels.shape[0] * axes.size(axis_name)

    def loss(p: PyTree) -> Float[Array, ""]:
        outputs = likelihoods.keep(outputs_fn(p, inputs), mask)
        losses = likelihoods.keep(likelihood.loss(outputs, labels), mask)
        return jnp.sum(losses) / batch

    hessian = hessian_trace(
        loss, params, hessian_key, num_probes=num_probes, axis_name=axis_name
    )
    return Traces(fisher, hessian)
