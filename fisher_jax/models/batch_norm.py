"""Batch norm as the networks of the paper have it, its constants in one place."""

from typing import Any

import jax
from flax import linen as nn

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
