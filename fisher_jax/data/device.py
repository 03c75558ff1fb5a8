"""A split on the device, and batches of it: gather, normalise, augment, compiled."""

from collections.abc import Callable, Generator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from fisher_jax.data.augment import augment, normalise


class DeviceSplit(NamedTuple):
    """One split, or a batch of one, in device memory, decoded, as bytes.

    Attributes:
        labels: what is trained on and scored against, noise included.
        is_noisy: whether the label differs from the true class.
        mean, std: per channel, of the training split, for pixels scaled to [0, 1].
    """

    images: UInt8[Array, "N H W channels"]
    labels: Int[Array, " N"]
    is_noisy: Bool[Array, " N"]
    mean: Float[Array, " channels"]
    std: Float[Array, " channels"]


class ScoredBatch(NamedTuple):
    """Examples to be scored: the first ``num_valid``; the others only fill up."""

    examples: DeviceSplit
    num_valid: int


# Starts anew at every call, so that a split can be scored again and again.
ScoredBatches = Callable[[], Generator[ScoredBatch, None, None]]


def scored_batches(
    split: DeviceSplit,
    ids: Int[np.ndarray, " K"] | None = None,
    *,
    batch_size: int,
    num_devices: int = 1,
    place_rows: Callable[[Int[np.ndarray, " B"]], Array] = jnp.asarray,
) -> Generator[ScoredBatch, None, None]:
    """Yields every example of ``ids`` (default: all) exactly once, in order.

    The last batch is filled up with example 0, so that all share one compiled form,
    and any number of devices divides it.

    Args:
        split: on every device.
        ids: rows of the split.
        batch_size: rows at a time; less where there are fewer.
        num_devices: batches are rounded up to what these divide.
        place_rows: spreads a batch's rows over the devices.
    """
    if ids is None:
        ids = np.arange(split.labels.shape[0], dtype=np.int32)
    batch_size = -(-min(batch_size, ids.size) // num_devices) * num_devices
    for start in range(0, ids.size, batch_size):
        chosen = ids[start : start + batch_size]
        rows = place_rows(filled(chosen, batch_size))
        yield ScoredBatch(_take(split, rows), chosen.size)


def filled(ids: Int[np.ndarray, " K"], size: int) -> Int[np.ndarray, " B"]:
    """The ids, then zeros up to ``size``: one compiled form for every last batch."""
    result = np.zeros(size, np.int32)
    result[: ids.size] = ids
    return result


def normalised(split: DeviceSplit) -> Float[Array, "N H W channels"]:
    """Returns all images, normalised."""
    return normalise(split.images, split.mean, split.std)


def examples_at(
    split: DeviceSplit, indices: Int[Array, " B"]
) -> tuple[Float[Array, "B H W channels"], Int[Array, " B"]]:
    """Returns the normalised images and the labels at ``indices``."""
    inputs = normalise(split.images[indices], split.mean, split.std)
    return inputs, split.labels[indices]


def training_batch(
    split: DeviceSplit,
    indices: Int[Array, " B"],
    key: Key[Array, ""],
    step: Int[Array, ""] | int,
    *,
    mode: str,
) -> tuple[Float[Array, "B H W channels"], Int[Array, " B"]]:
    """Returns the inputs and labels of one step, augmented.

    Args:
        indices: rows of the split, of the global batch.
        key: the run's augmentation key; ``step`` is folded into it.
        mode: static; ``none``, ``flip`` or ``standard``.
    """
    inputs, labels = examples_at(split, indices)
    if mode != "none":
        inputs = augment(jax.random.fold_in(key, step), inputs, mode)
    return inputs, labels


@jax.jit
def _take(split: DeviceSplit, indices: Int[Array, " B"]) -> DeviceSplit:
    return split._replace(
        images=split.images[indices],
        labels=split.labels[indices],
        is_noisy=split.is_noisy[indices],
    )
