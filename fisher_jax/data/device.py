"""A split on the device, and batches of it: gather, normalise, augment, compiled."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from fisher_jax.data.augment import augment, normalise


class DeviceSplit(NamedTuple):
    """One split in device memory, decoded, as bytes.

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
