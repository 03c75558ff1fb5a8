"""The containers of a data set in memory, and smaller images by averaging areas."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, UInt8

from fisher_jax.errors import DataError


class ImageSet(NamedTuple):
    """One split in memory; an example's id is its row.

    Attributes:
        images: uint8 [N, H, W, C], pixel values 0 to 255 as decoded. May be read-only.
        labels: int32 [N], each in [0, num_classes). May be read-only.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]


class Source(NamedTuple):
    """A data set: its training and test split as they were published.

    Attributes:
        name: the name it was asked for by.
        train: the training split, before any subset, validation split or label noise.
        test: the test split (the validation split where none with labels is published).
        num_classes: number of classes C.
        label_names: C names, in the order of the labels.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    label_names: tuple[str, ...]


_CHUNK_IMAGES = 1000


def resample(source: Source, image_size: int | None) -> Source:
    """Returns the source with images of image_size x image_size pixels.

    See ``area_means``; None leaves the images as they are.

    Raises:
        DataError: where the images are smaller than that.
    """
    if image_size is None:
        return source
    height, width = source.train.images.shape[1:3]
    if image_size > min(height, width):
        raise DataError(
            f"dataset.image_size={image_size} exceeds the images of {source.name}, "
            f"which have {height}x{width} pixels"
        )
    return source._replace(
        train=_smaller(source.train, image_size), test=_smaller(source.test, image_size)
    )


def _smaller(images: ImageSet, size: int) -> ImageSet:
    return images._replace(images=area_means(images.images, size))


def area_means(
    images: UInt8[np.ndarray, "n h w c"], size: int
) -> UInt8[np.ndarray, "n s s c"]:
    """Averages over the area that each of size x size pixels has in the image.

    With H x W pixels in and S x S out, ``out[i, j] = Σ_yx a_i(y) b_j(x) in[y, x]``,
    where ``a_i(y)`` is the share of the interval ``[i H/S, (i+1) H/S]`` that pixel y,
    ``[y, y+1]``, covers, and ``b_j(x)`` that of columns. Where S divides H and W this
    is the mean of a block. The sums are of integers and exact, so that the result is
    the same on every machine.

    Args:
        images: uint8 [N, H, W, C].
        size: S, from 1 to the smaller of H and W.

    Returns:
        uint8 [N, S, S, C], rounded to the nearest integer, halves to the even one.
    """
    count, height, width, channels = images.shape
    rows, columns = _overlaps(height, size), _overlaps(width, size)
    out = np.empty((count, size, size, channels), np.uint8)
    for start in range(0, count, _CHUNK_IMAGES):
        chunk = images[start : start + _CHUNK_IMAGES].astype(np.float64)
        chunk = rows @ chunk.reshape(len(chunk), height, width * channels)
        sums = columns @ chunk.reshape(-1, size, width, channels)
        out[start : start + _CHUNK_IMAGES] = np.rint(sums / (height * width))
    return out


def _overlaps(length: int, size: int) -> Float64[np.ndarray, "size length"]:
    """Overlap of each interval with each pixel, in 1/size of a pixel: integers."""
    interval = length * np.arange(size)[:, None]
    pixel = size * np.arange(length)[None, :]
    ends = np.minimum(interval + length, pixel + size)
    return np.maximum(0, ends - np.maximum(interval, pixel)).astype(np.float64)
