"""Batch norm outside the training step: statistics estimated anew before testing."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fisher_jax.models.batch_norm import MOMENTUM


def reestimate_batch_stats(
    apply_fn: Callable[..., Any],
    params: PyTree,
    batch_stats: PyTree,
    batches: Iterable[Float[Array, "B H W channels"]],
) -> PyTree:
    """Returns the mean over batches of each layer's batch mean and variance.

    The running average follows the parameters late and with noise; the paper
    estimates the statistics anew on 100 training batches before testing. Every layer
    normalises by its own batch meanwhile, as in training.

    Args:
        apply_fn: a Flax module's ``apply``.
        params: parameters, unchanged throughout.
        batch_stats: the running statistics, for their structure.
        batches: inputs, at least one batch.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    total, count = zeros, 0
    for inputs in batches:
        # Not too far ahead of the device, which would fill its memory with batches.
        jax.block_until_ready(total)
        total = _add_batch(apply_fn, params, zeros, total, inputs)
        count += 1
    return jax.tree.map(lambda leaf: leaf / count, total)


@partial(jax.jit, static_argnames=("apply_fn",))
def _add_batch(
    apply_fn: Callable[..., Any],
    params: PyTree,
    zeros: PyTree,
    total: PyTree,
    inputs: Any,
) -> PyTree:
    """Adds one batch's statistics: what an update from zeros leaves, rescaled."""
    variables = {"params": params, "batch_stats": zeros}
    _, updated = apply_fn(variables, inputs, train=True, mutable=["batch_stats"])
    return jax.tree.map(
        lambda sum_, new: sum_ + new / (1 - MOMENTUM), total, updated["batch_stats"]
    )
