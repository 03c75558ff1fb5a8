"""Normalisation and augmentation, on the device and under ``jit``.

The order is normalise, then augment: the zeros that a crop pads with are then the
mean colour of the training set, not black.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, UInt8

from fisher_jax.data.errors import DataError

_PADDING = 4
_CHUNK_PIXELS = 2**20


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float32[np.ndarray, "c"], Float32[np.ndarray, "c"]]:
    """Returns each channel's mean and standard deviation over all pixels.

    Computed from exact counts of pixel values, so the result does not depend on the
    order of the images and nothing is rounded before the final float64 root.

    Args:
        images: uint8 [N, H, W, C], at least one.

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
    """Returns ``(images / 255 - mean) / std`` per channel.

    Args:
        images: uint8 [B, H, W, C].
        mean: [C], of pixels scaled to [0, 1].
        std: [C], of pixels scaled to [0, 1].

    Returns:
        float32 [B, H, W, C].
    """
    return (jnp.asarray(images, jnp.float32) / 255.0 - mean) / std


def flip_horizontally(
    key: Key[Array, ""], images: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """Mirrors each image left to right with probability one half."""
    is_flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(is_flipped, images[:, :, ::-1], images)


def crop_randomly(
    key: Key[Array, ""], images: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """Shifts each image by up to 4 pixels each way, uniformly, and fills with zeros.

    The same as padding 4 zeros on every side and cropping the original size.
    """
    _, height, width, channels = images.shape
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * _PADDING + 1)
    border = (_PADDING, _PADDING)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))

    def crop(image: Float[Array, "hp wp c"], offset: Array) -> Float[Array, "h w c"]:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def augment(
    key: Key[Array, ""], images: Float[Array, "b h w c"], mode: str
) -> Float[Array, "b h w c"]:
    """Augments a normalised batch at random.

    All draws of a batch come from one key and the batch's shape, so they do not
    depend on how the batch is spread over devices.

    Args:
        key: Random key of this batch.
        images: Float [B, H, W, C], normalised.
        mode: "none"; "flip": mirror left to right with probability one half;
            "standard": pad 4 zeros, crop at random, then flip.

    Returns:
        Images of the same shape and dtype.

    Raises:
        DataError: Where the mode is none of the three.
    """
    crop_key, flip_key = jax.random.split(key)
    if mode == "none":
        return images
    if mode == "flip":
        return flip_horizontally(flip_key, images)
    if mode == "standard":
        return flip_horizontally(flip_key, crop_randomly(crop_key, images))
    raise DataError(f"dataset.augment={mode!r} must be one of none, flip, standard")
