"""Reads a prepared TFDS image-classification set into memory, without TensorFlow.

TFDS says what the files hold. The records are read with array_record and decoded here:
only so can an error name the file and the record, and no time goes to the features
that nobody asked for.
"""

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fisher_jax.data.errors import DataError
from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.tfds_folder import prepare_command
from fisher_jax.errors import one_line

Progress = Callable[[int, int], None]

_REMEDY = "delete the folder, then copy or prepare the data set again"
_RECORDS_PER_READ = 2048
_RECORDS_PER_TASK = 64
# Below this many pixels an image threads fight over the interpreter lock: on two
# cores a 32×32 JPEG took 47 µs with one thread and 61 µs with two, a 64×64 PNG 116
# and 80 µs, a 224×224 JPEG 241 and 131 µs.
_PIXELS_WORTH_THREADS = 64 * 64
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_logger = logging.getLogger(__name__)


class _Shard(NamedTuple):
    path: str
    start: int
    stop: int


class _Example(NamedTuple):
    place: str
    encoded: bytes
    label: int


class _Format(NamedTuple):
    num_channels: int
    num_classes: int
    label_names: tuple[str, ...]


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
        DataError: Where the folder's description or a file is missing, truncated or
            damaged, holds another number of examples than described, is not in
            array_record format, has no "image", no "label" or no such split, or where
            images differ in shape. The message names the folder or file.
    """
    builder = _open_builder(name, prepared_dir)
    image_format = _image_format(prepared_dir, builder.info.features)
    if "train" not in builder.info.splits:
        raise DataError(f"{prepared_dir} has no split train, only {_splits(builder)}")
    train_shards = _checked_shards(prepared_dir, builder, "train")
    test_shards = _test_shards(prepared_dir, builder, image_format)
    num_train, num_test = _num_examples(train_shards), _num_examples(test_shards)
    if progress is None:
        _logger.info("decoding the %d images of %s", num_train + num_test, name)

    def report(num_done: int) -> None:
        if progress is not None:
            progress(num_done, num_train + num_test)

    train = _read_split(train_shards, image_format, report)
    test = _read_split(test_shards, image_format, lambda n: report(num_train + n))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _shape_error(
            test_shards[0].path, test.images.shape[1:], train.images.shape[1:]
        )
    return Source(name, train, test, image_format.num_classes, image_format.label_names)


def _splits(builder: Any) -> str:
    return ", ".join(builder.info.splits) or "none at all"


def file_format(prepared_dir: Path) -> str:
    """Returns the format of a prepared folder's files: array_record, tfrecord, ...

    Args:
        prepared_dir: data_dir/name[/config]/version.

    Raises:
        DataError: Where dataset_info.json is missing or damaged.
    """
    path = prepared_dir / "dataset_info.json"
    try:
        # Sets from before TFDS could write other formats do not say theirs.
        return json.loads(path.read_text()).get("fileFormat", "tfrecord")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {_REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}); {_REMEDY}") from error


def _open_builder(name: str, prepared_dir: Path) -> Any:
    """Returns TFDS's description of a prepared folder, checked to be readable."""
    if (found := file_format(prepared_dir)) != "array_record":
        raise DataError(
            f"{prepared_dir} holds {found} files, which only TensorFlow reads; "
            f"prepare array_record files in another folder: "
            f"{prepare_command(name, 'OTHER_FOLDER')}"
        )
    if not (prepared_dir / "features.json").is_file():
        raise DataError(f"{prepared_dir / 'features.json'} is missing; {_REMEDY}")
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(prepared_dir)
    # TFDS lets through whatever protobuf, json and its own classes raise.
    except Exception as error:
        raise DataError(
            f"{prepared_dir}: dataset_info.json, features.json or label names are "
            f"damaged ({one_line(error)}); {_REMEDY}"
        ) from error


def _image_format(prepared_dir: Path, features: Any) -> _Format:
    """Returns what the set's description says of its images and labels."""
    import tensorflow_datasets as tfds

    is_dict = isinstance(features, tfds.features.FeaturesDict)
    known = dict(features.items()) if is_dict else {}
    image, label = known.get("image"), known.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        raise DataError(
            f"{prepared_dir} is not an image-classification set: it needs the features "
            "image (Image) and label (ClassLabel) and has "
            + (", ".join(sorted(known)) or "none")
        )
    if image.np_dtype != np.uint8 or image.shape[-1] not in _MODES:
        raise DataError(
            f"{prepared_dir} has images of {image.np_dtype} with {image.shape[-1]} "
            "channels; only uint8 with 1, 3 or 4 channels can be read"
        )
    if not label.num_classes:
        raise DataError(f"{prepared_dir} does not say how many classes there are")
    if len(label.names) != label.num_classes:
        raise DataError(
            f"{prepared_dir / 'label.labels.txt'} names {len(label.names)} classes, "
            f"features.json {label.num_classes}; {_REMEDY}"
        )
    return _Format(image.shape[-1], label.num_classes, tuple(label.names))


def _checked_shards(prepared_dir: Path, builder: Any, split: str) -> list[_Shard]:
    """Returns a split's files after checking that each holds what it should."""
    from array_record.python import array_record_module

    shards = []
    for instruction in builder.info.splits[split].file_instructions:
        path = instruction.filename
        _check_readable(path)
        # A damaged file opens without an error and says that it holds no records;
        # only closing it would raise, so readers are left to close themselves.
        reader = array_record_module.ArrayRecordReader(path)
        num_records, expected = reader.num_records(), instruction.examples_in_shard
        if num_records != expected:
            raise DataError(
                f"{path} is truncated or damaged: {num_records} of {expected} examples "
                f"can be found in its {os.path.getsize(path)} bytes; {_REMEDY}"
            )
        stop = instruction.skip + instruction.take
        shards.append(_Shard(path, instruction.skip, stop))
    if not shards:
        raise DataError(f"{prepared_dir} has no examples in split {split}; {_REMEDY}")
    return shards


def _check_readable(path: str) -> None:
    """Raises DataError where a file cannot be opened; array_record does not say why."""
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {_REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _test_shards(
    prepared_dir: Path, builder: Any, image_format: _Format
) -> list[_Shard]:
    """Returns the files of the split to test on."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            shards = _checked_shards(prepared_dir, builder, split)
            # ImageNet's test split is there, but all its labels are -1.
            first = next(_examples(shards[0]._replace(stop=shards[0].start + 1)))
            if first[0].label >= 0:
                return shards
    raise DataError(
        f"{prepared_dir} has no labelled split test or validation, only "
        f"{_splits(builder)}"
    )


def _num_examples(shards: list[_Shard]) -> int:
    return sum(shard.stop - shard.start for shard in shards)


def _examples(shard: _Shard) -> Iterator[list[_Example]]:
    """Yields a file's examples, still encoded, some thousand at a time."""
    from array_record.python import array_record_module
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    reader = array_record_module.ArrayRecordReader(shard.path)
    for start in range(shard.start, shard.stop, _RECORDS_PER_READ):
        stop = min(start + _RECORDS_PER_READ, shard.stop)
        try:
            records = reader.read(start, stop)
        except (RuntimeError, IndexError) as error:
            raise DataError(
                f"{shard.path} is damaged at record {_first_damaged(shard, start)} "
                f"({one_line(error)}); {_REMEDY}"
            ) from error
        examples = []
        for position, record in enumerate(records, start):
            place = f"{shard.path}: record {position}"
            try:
                feature = tf_example_pb2.Example.FromString(record).features.feature
                (encoded,) = feature["image"].bytes_list.value
                (label,) = feature["label"].int64_list.value
            except (DecodeError, ValueError) as error:
                raise DataError(f"{place} has no image and label; {_REMEDY}") from error
            examples.append(_Example(place, encoded, label))
        yield examples


def _first_damaged(shard: _Shard, start: int) -> int:
    """Returns the first record from ``start`` on that cannot be read."""
    from array_record.python import array_record_module

    for position in range(start, shard.stop):
        # A reader that has failed once stays unusable.
        reader = array_record_module.ArrayRecordReader(shard.path)
        try:
            reader.read([position])
        except (RuntimeError, IndexError):
            return position
    return start


def _read_split(
    shards: list[_Shard], image_format: _Format, report: Callable[[int], None]
) -> ImageSet:
    """Returns a split's images, of the first one's shape, and labels."""
    num_examples = _num_examples(shards)
    first = next(_examples(shards[0]._replace(stop=shards[0].start + 1)))[0]
    shape = _decode(first, image_format.num_channels).shape
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
        for examples in (chunk for shard in shards for chunk in _examples(shard)):
            end = num_done + len(examples)
            labels[num_done:end] = _checked_labels(examples, image_format.num_classes)
            _decode_all(pool, examples, images[num_done:end])
            num_done = end
            report(num_done)
    return ImageSet(images, labels)


def _checked_labels(examples: list[_Example], num_classes: int) -> list[int]:
    for example in examples:
        if not 0 <= example.label < num_classes:
            raise DataError(
                f"{example.place} has label {example.label}, not one of the "
                f"{num_classes} classes 0 to {num_classes - 1}"
            )
    return [example.label for example in examples]


def _decode_all(
    pool: ThreadPoolExecutor,
    examples: list[_Example],
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


def _shape_error(
    place: str, shape: tuple[int, ...], first_shape: tuple[int, ...]
) -> DataError:
    size, first_size = ("×".join(map(str, s)) for s in (shape, first_shape))
    return DataError(
        f"{place} is an image of {size}, others are {first_size}: only sets whose "
        "images have one shape can be held in memory"
    )


def _decode(example: _Example, num_channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Returns an example's image."""
    from PIL import Image

    mode = _MODES[num_channels]
    try:
        with Image.open(io.BytesIO(example.encoded)) as image:
            pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise DataError(
            f"{example.place} cannot be decoded as an image ({one_line(error)}); "
            f"{_REMEDY}"
        ) from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
