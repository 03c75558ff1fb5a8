"""Batch norm as the networks of the paper have it, and its statistics for testing."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

# PyTorch's defaults, which the sources of these networks keep. PyTorch calls the
# weight of the NEW batch momentum (0.1), Flax that of the old average.
MOMENTUM = 0.9
EPSILON = 1e-5

# The mesh axis along which a batch is split, where shard_map has made it visible.
BATCH_AXIS = "data"


def batch_norm(train: bool, dtype: Any) -> nn.BatchNorm:
    """Returns a layer that normalises by the batch (train) or by running statistics.

    In train mode it also updates the running statistics, in the collection
    ``batch_stats`` and only when the caller makes that mutable. Mean and variance
    are computed in at least float32 whatever ``dtype``; they are those of the global
    batch when a jitted computation is sharded over devices, also inside shard_map if
    the mesh axis is called ``data``. The running variance
    averages the biased variance of batches, PyTorch's the unbiased one, larger by
    n / (n - 1) with n = batch size x height x width.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=MOMENTUM,
        epsilon=EPSILON,
        dtype=dtype,
        axis_name=_visible_axis(),
    )


def _visible_axis() -> str | None:
    try:
        jax.lax.axis_size(BATCH_AXIS)
    except NameError:
        return None
    return BATCH_AXIS


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
