"""Records of array_record files: read one by one or in order, parsed, decoded.

They are read with array_record and decoded here, without TensorFlow: only so can an
error name the file and the record, and no time goes to the features that nobody asked
for.
"""

import functools
import io
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from fisher_jax.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

REMEDY = "delete the folder, then copy or prepare the data set again"
_RECORDS_PER_READ = 2048
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Opening a file costs a tenth of decoding a photograph, so keeping some of ImageNet's
# 1024 open is enough; many systems would not allow all of them.
_MAX_OPEN_READERS = 128


class Shard(NamedTuple):
    """Records of one file.

    Attributes:
        path: the file.
        start: the first record.
        stop: one past the last record.
        version: size and modification time, which tell a file from its replacement.
    """

    path: str
    start: int
    stop: int
    version: tuple[int, int]


class Example(NamedTuple):
    """A record's image, still encoded, and its label.

    Attributes:
        place: the file and the record's number, for messages.
        encoded: the image file's bytes.
        label: not yet checked.
    """

    place: str
    encoded: bytes
    label: int


def open_shard(path: str, num_records: int, start: int, stop: int) -> Shard:
    """Returns records of a file after checking that it is whole.

    Args:
        num_records: how many records the file should hold.

    Raises:
        DataError: where the file is missing, cannot be read or holds another number
            of records, as it does when truncated.
    """
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    # A damaged file opens without an error and says that it holds no records.
    found = _open_reader(path).num_records()
    if found != num_records:
        raise DataError(
            f"{path} is truncated or damaged: {found} of {num_records} examples "
            f"can be found in its {stat.st_size} bytes; {REMEDY}"
        )
    return Shard(path, start, stop, (stat.st_size, stat.st_mtime_ns))


def count_examples(shards: Iterable[Shard]) -> int:
    """Returns the number of records of some files."""
    return sum(shard.stop - shard.start for shard in shards)


def read_in_order(shard: Shard) -> Iterator[list[Example]]:
    """Yields a file's examples, still encoded, some thousand at a time.

    Raises:
        DataError: where a record is damaged or holds no image and label; the message
            names the file and the record.
    """
    reader = _open_reader(shard.path)
    for start in range(shard.start, shard.stop, _RECORDS_PER_READ):
        stop = min(start + _RECORDS_PER_READ, shard.stop)
        try:
            records = reader.read(start, stop)
        except (RuntimeError, IndexError) as error:
            position = _first_damaged(shard, start)
            raise _damaged(shard.path, position, error) from error
        yield [
            _parse(shard.path, position, record)
            for position, record in enumerate(records, start)
        ]


def read_one(shard: Shard, position: int) -> Example:
    """Returns the example of one record; may be called from many threads at once.

    Raises:
        DataError: as ``read_in_order``, and where the file has gone.
    """
    try:
        (record,) = _shared_reader(shard.path, shard.version).read([position])
    except (RuntimeError, IndexError) as error:
        # A reader that has failed once stays unusable.
        _shared_reader.cache_clear()
        if not os.path.exists(shard.path):
            raise DataError(f"{shard.path} is missing; {REMEDY}") from error
        raise _damaged(shard.path, position, error) from error
    return _parse(shard.path, position, record)


def check_label(example: Example, num_classes: int) -> int:
    """Returns an example's label.

    Raises:
        DataError: where it is not in [0, num_classes).
    """
    if not 0 <= example.label < num_classes:
        raise DataError(
            f"{example.place} has label {example.label}, not one of the "
            f"{num_classes} classes 0 to {num_classes - 1}"
        )
    return example.label


def open_image(example: Example, num_channels: int) -> "Image":
    """Returns an example's image, decoded, with 1, 3 or 4 channels.

    Raises:
        DataError: where it cannot be decoded.
    """
    import PIL.Image

    mode = _MODES[num_channels]
    try:
        image = PIL.Image.open(io.BytesIO(example.encoded))
        image.load()
        return image if image.mode == mode else image.convert(mode)
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise DataError(
            f"{example.place} cannot be decoded as an image ({one_line(error)}); "
            f"{REMEDY}"
        ) from error


def keep_image_memory(num_images: int) -> None:
    """Lets Pillow reuse the memory of so many decoded images.

    By default it gives each back to the system, and getting it again page by page
    takes up to a quarter of the time of decoding a photograph. The same as setting
    PILLOW_BLOCKS_MAX, which is kept where it asks for more.
    """
    import PIL.Image

    core = PIL.Image.core
    core.set_blocks_max(max(num_images, core.get_blocks_max()))


def _open_reader(path: str) -> Any:
    from array_record.python import array_record_module

    # Closing the reader of a damaged file raises, so readers are left to close
    # themselves.
    return array_record_module.ArrayRecordReader(path)


@functools.lru_cache(maxsize=_MAX_OPEN_READERS)
def _shared_reader(path: str, version: tuple[int, int]) -> Any:
    """Returns this process's reader of a file in the state it had when checked."""
    return _open_reader(path)


def _parse(path: str, position: int, record: bytes) -> Example:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    place = f"{path}: record {position}"
    try:
        feature = tf_example_pb2.Example.FromString(record).features.feature
        (encoded,) = feature["image"].bytes_list.value
        (label,) = feature["label"].int64_list.value
    except (DecodeError, ValueError) as error:
        raise DataError(f"{place} has no image and label; {REMEDY}") from error
    return Example(place, encoded, label)


def _damaged(path: str, position: int, error: Exception) -> DataError:
    return DataError(
        f"{path} is damaged at record {position} ({one_line(error)}); {REMEDY}"
    )


def _first_damaged(shard: Shard, start: int) -> int:
    """Returns the first record from ``start`` on that cannot be read."""
    for position in range(start, shard.stop):
        # A reader that has failed once stays unusable.
        reader = _open_reader(shard.path)
        try:
            reader.read([position])
        except (RuntimeError, IndexError):
            return position
    return start
