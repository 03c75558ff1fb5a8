"""A split on the device, and batches of it: gather, normalise, augment, compiled.

The order is normalise, then augment: the zeros that a crop pads with are then the
mean colour of the training set, not black.
"""

import dataclasses
from collections.abc import Callable, Generator
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, UInt8

from fisher_jax.errors import DataError

_CHUNK_PIXELS = 2**20


class Augmentation(NamedTuple):
    """How images are augmented.

    Attributes:
        mode: none, flip or standard.
        padding: pixels on every side from which standard crops.
    """

    mode: str = "none"
    padding: int = 4


NO_AUGMENTATION = Augmentation()


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float32[np.ndarray, "c"], Float32[np.ndarray, "c"]]:
    """Returns each channel's mean and standard deviation over all pixels.

    Computed from exact counts of pixel values, so the result does not depend on the
    order of the images and nothing is rounded before the final float64 root.

    Returns:
        (mean, std), float32 [C] each, of pixels scaled to [0, 1]. The standard
        deviation is the population's; that of a constant channel is given as 1, so
        that dividing by it is safe.
    """
    pixels = images.reshape(-1, images.shape[-1])
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    # In chunks, because bincount widens its input to 64 bits.
    for start in range(0, len(pixels), _CHUNK_PIXELS):
        chunk = pixels[start : start + _CHUNK_PIXELS]
        for channel, channel_counts in enumerate(counts):
            channel_counts += np.bincount(chunk[:, channel], minlength=256)
    values = np.arange(256)
    scale = 255 * len(pixels)
    mean = [Fraction(int(c @ values), scale) for c in counts]
    variance = [
        Fraction(int(c @ values**2), 255 * scale) - m**2
        for c, m in zip(counts, mean, strict=True)
    ]
    std = [float(v) ** 0.5 if v else 1.0 for v in variance]
    return np.array([float(m) for m in mean], np.float32), np.array(std, np.float32)


def normalise(
    images: UInt8[Array, "b h w c"],
    mean: Float32[Array, "c"],
    std: Float32[Array, "c"],
) -> Float32[Array, "b h w c"]:
    """Returns ``(images / 255 - mean) / std`` per channel."""
    # Of as many axes as the images, for JAX's jax_numpy_rank_promotion="raise".
    axes = tuple(range(images.ndim - 1))
    mean, std = (jnp.expand_dims(jnp.asarray(a), axes) for a in (mean, std))
    return (jnp.asarray(images, jnp.float32) / 255.0 - mean) / std


def flip_horizontally(
    key: Key[Array, ""], images: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """Mirrors each image left to right with probability one half."""
    is_flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(is_flipped, images[:, :, ::-1], images)


def crop_randomly(
    key: Key[Array, ""],
    images: Float[Array, "b h w c"],
    padding: int = NO_AUGMENTATION.padding,
) -> Float[Array, "b h w c"]:
    """Shifts each image by up to so many pixels each way and fills with zeros.

    The same as padding zeros on every side and cropping the original size, uniformly.
    """
    _, height, width, channels = images.shape
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)
    border = (padding, padding)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))

    def crop(image: Float[Array, "hp wp c"], offset: Array) -> Float[Array, "h w c"]:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def augment(
    key: Key[Array, ""],
    images: Float[Array, "b h w c"],
    mode: str,
    padding: int = NO_AUGMENTATION.padding,
) -> Float[Array, "b h w c"]:
    """Augments a normalised batch at random.

    All draws of a batch come from one key and the batch's shape, so they do not
    depend on how the batch is spread over devices.

    Args:
        key: random key of this batch.
        images: float [B, H, W, C], normalised.
        mode: "none"; "flip": mirror left to right with probability one half;
            "standard": pad zeros, crop at random, then flip.
        padding: zeros on every side; the paper's sets, at 32x32 pixels, take 4.

    Returns:
        Images of the same shape and dtype.

    Raises:
        DataError: where the mode is none of the three.
    """
    crop_key, flip_key = jax.random.split(key)
    if mode == "none":
        return images
    if mode == "flip":
        return flip_horizontally(flip_key, images)
    if mode == "standard":
        return flip_horizontally(flip_key, crop_randomly(crop_key, images, padding))
    raise DataError(f"dataset.augment={mode!r} must be one of none, flip, standard")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeviceSplit:
    """One split, or a batch of one, in device memory, decoded, as bytes.

    Attributes:
        pixels: [N, H, W, channels] of a batch; of a split that batches are gathered
            from [N, H · W · channels], each image one row: a TPU lays out four axes
            with N innermost, and would turn the whole split around for every batch.
        labels: what is trained on and scored against, noise included.
        is_noisy: whether the label differs from the true class.
        mean, std: per channel, of the training split, for pixels scaled to [0, 1].
        image_shape: (H, W, channels).
    """

    pixels: UInt8[Array, "N *pixels"]
    labels: Int[Array, " N"]
    is_noisy: Bool[Array, " N"]
    mean: Float[Array, " channels"]
    std: Float[Array, " channels"]
    image_shape: tuple[int, ...] = dataclasses.field(
        kw_only=True, metadata={"static": True}
    )


# The inputs and labels of a step, normalised and augmented.
TrainingBatch = tuple[Float[Array, "B H W channels"], Int[Array, " B"]]


class UngatheredBatches(NamedTuple):
    """Batches of consecutive steps, for a program that gathers them itself.

    Attributes:
        split: the training examples, on every device.
        rows: of the split; each step's global batch is split over the devices.
        augment_key: the step is folded into it.
    """

    split: DeviceSplit
    rows: Int[Array, "steps B"]
    augment_key: Key[Array, ""]


def as_rows(
    images: UInt8[np.ndarray, "N H W channels"],
) -> UInt8[np.ndarray, "N bytes"]:
    """Returns each image as one row of bytes, without a copy."""
    return images.reshape(len(images), -1)


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
    return normalise(_as_images(split.pixels, split), split.mean, split.std)


def examples_at(
    split: DeviceSplit, indices: Int[Array, " B"]
) -> tuple[Float[Array, "B H W channels"], Int[Array, " B"]]:
    """Returns the normalised images and the labels at ``indices``."""
    batch = _batch_at(split, indices)
    return normalised(batch), batch.labels


def training_batch(
    split: DeviceSplit,
    indices: Int[Array, " B"],
    key: Key[Array, ""],
    step: Int[Array, ""] | int,
    *,
    augmentation: Augmentation,
) -> TrainingBatch:
    """Returns the inputs and labels of one step, augmented.

    Args:
        indices: rows of the split, of the global batch.
        key: the run's augmentation key; ``step`` is folded into it.
        augmentation: static.
    """
    inputs, labels = examples_at(split, indices)
    if augmentation.mode != "none":
        inputs = augment(jax.random.fold_in(key, step), inputs, *augmentation)
    return inputs, labels


def _batch_at(split: DeviceSplit, indices: Int[Array, " B"]) -> DeviceSplit:
    return dataclasses.replace(
        split,
        pixels=_as_images(split.pixels[indices], split),
        labels=split.labels[indices],
        is_noisy=split.is_noisy[indices],
    )


def _as_images(
    pixels: UInt8[Array, "B *pixels"], split: DeviceSplit
) -> UInt8[Array, "B H W channels"]:
    return pixels.reshape(-1, *split.image_shape)


_take = jax.jit(_batch_at)
