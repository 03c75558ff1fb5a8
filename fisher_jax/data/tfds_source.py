"""Reads a prepared TFDS image-classification set into memory, without TensorFlow."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fisher_jax.data.errors import DataError
from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.records import (
    Example,
    Shard,
    check_label,
    count_examples,
    open_image,
    read_in_order,
)
from fisher_jax.data.tfds_prepared import Prepared, open_prepared
from fisher_jax.errors import one_line

Progress = Callable[[int, int], None]

_RECORDS_PER_TASK = 64
# Below this many pixels an image threads fight over the interpreter lock: on two
# cores a 32×32 JPEG took 47 µs with one thread and 61 µs with two, a 64×64 PNG 116
# and 80 µs, a 224×224 JPEG 241 and 131 µs.
_PIXELS_WORTH_THREADS = 64 * 64

_logger = logging.getLogger(__name__)


def read_prepared(
    name: str, prepared_dir: Path, progress: Progress | None = None
) -> Source:
    """Reads and decodes the training and test split of a prepared set.

    The test split is "test" where it is there and labelled, else "validation".

    Args:
        name: The set's name, for messages and the result.
        prepared_dir: Its folder: data_dir/name[/config]/version.
        progress: Called with (images decoded, images in all) every few thousand
            images. Without it one log line says what is being done.

    Returns:
        Source with the splits in TFDS's order. Images are decoded as TFDS decodes
        them; one whose channels differ from the set's description is converted.

    Raises:
        DataError: As `fisher_jax.data.tfds_prepared.open_prepared`, and where a
            record is damaged or images differ in shape. The message names the folder
            or file.
    """
    prepared = open_prepared(name, prepared_dir)
    num_train = count_examples(prepared.train)
    num_all = num_train + count_examples(prepared.test)
    if progress is None:
        _logger.info("decoding the %d images of %s", num_all, name)

    def report(num_done: int) -> None:
        if progress is not None:
            progress(num_done, num_all)

    train = _read_split(prepared.train, prepared, report)
    test = _read_split(prepared.test, prepared, lambda n: report(num_train + n))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _shape_error(
            prepared.test[0].path, test.images.shape[1:], train.images.shape[1:]
        )
    return Source(name, train, test, prepared.num_classes, prepared.label_names)


def _read_split(
    shards: Sequence[Shard], prepared: Prepared, report: Callable[[int], None]
) -> ImageSet:
    """Returns a split's images, of the first one's shape, and labels."""
    num_examples = count_examples(shards)
    first = next(read_in_order(shards[0]._replace(stop=shards[0].start + 1)))[0]
    shape = _decode(first, prepared.num_channels).shape
    try:
        images = np.empty((num_examples, *shape), np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{shards[0].path}: the {num_examples} images of its split do not fit in "
            f"memory ({one_line(error)})"
        ) from error
    labels = np.empty(num_examples, np.int32)
    is_threaded = shape[0] * shape[1] >= _PIXELS_WORTH_THREADS
    num_done = 0
    with ThreadPoolExecutor(os.cpu_count() if is_threaded else 1) as pool:
        for examples in (some for shard in shards for some in read_in_order(shard)):
            end = num_done + len(examples)
            labels[num_done:end] = [
                check_label(example, prepared.num_classes) for example in examples
            ]
            _decode_all(pool, examples, images[num_done:end])
            num_done = end
            report(num_done)
    return ImageSet(images, labels)


def _decode_all(
    pool: ThreadPoolExecutor,
    examples: list[Example],
    images: UInt8[np.ndarray, "n h w c"],
) -> None:
    """Decodes examples into the rows of ``images``."""

    def decode_some(start: int) -> None:
        some = examples[start : start + _RECORDS_PER_TASK]
        for row, example in enumerate(some, start):
            image = _decode(example, images.shape[-1])
            if image.shape != images.shape[1:]:
                raise _shape_error(example.place, image.shape, images.shape[1:])
            images[row] = image

    list(pool.map(decode_some, range(0, len(examples), _RECORDS_PER_TASK)))


def _decode(example: Example, num_channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Returns an example's image."""
    pixels = np.asarray(open_image(example, num_channels))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _shape_error(
    place: str, shape: tuple[int, ...], first_shape: tuple[int, ...]
) -> DataError:
    size, first_size = ("×".join(map(str, s)) for s in (shape, first_shape))
    return DataError(
        f"{place} is an image of {size}, others are {first_size}: only sets whose "
        "images have one shape can be held in memory"
    )
