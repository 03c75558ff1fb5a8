"""Sets prepared by TFDS: found by name, described, checked, read into memory.

TFDS lays a set out as ``data_dir/name[/config]/version/``. Finding it by hand lets a
start that hits the cache skip the import of TFDS, which only interprets a folder's
description, and keeps the choice of folder, and so the cache's key, independent of the
TFDS version that is installed. TensorFlow is needed for none of it.
"""

import contextlib
import difflib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.packaged import PACKAGED
from fisher_jax.data.record_files import (
    REMEDY,
    Example,
    Shard,
    check_label,
    count_examples,
    open_image,
    open_shard,
    read_in_order,
)
from fisher_jax.errors import DataError, one_line
from fisher_jax.host.paths import local_path

_NAME = re.compile(
    r"(?P<dataset>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# The builders of ours, with their configurations; a bare name means the first one.
OWN_BUILDERS = {"tiny_imagenet": ("32x32", "64x64")}


class _Name(NamedTuple):
    dataset: str
    config: str | None
    version: str | None


def default_data_dir() -> str:
    """Returns TFDS's own default: ``$TFDS_DATA_DIR``, else ~/tensorflow_datasets."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.expanduser(
        os.path.join("~", "tensorflow_datasets")
    )


def resolve_data_dir(data_dir: str | None) -> Path:
    """Returns the folder that holds prepared sets.

    Args:
        data_dir: a local folder, ``~`` allowed; None takes ``default_data_dir``.

    Raises:
        DataError: where a remote address is given.
    """
    data_dir = data_dir or default_data_dir()
    if "://" in data_dir:
        raise DataError(
            f"dataset.data_dir={data_dir} is not a local folder: copy the "
            "array_record files to a local or mounted disk"
        )
    return local_path(data_dir, "dataset.data_dir")


def prepare_command(name: str, data_dir: Path | str) -> str:
    """Returns the command that prepares a set in a folder."""
    return f"python -m fisher_jax.data.prepare {name} --data_dir={data_dir}"


def find_prepared(name: str, data_dir: Path) -> Path | None:
    """Returns the folder of a prepared set.

    Without a version in the name the highest one there is taken; without a
    configuration, the default of a builder of ours, else the only one there.

    Args:
        name: "name", "name/config", "name:1.2.3" or "name/config:1.2.3".

    Returns:
        The version's folder; None where the set is not there.

    Raises:
        DataError: where the name has another form, a folder cannot be read, or
            several configurations are prepared and the name says none.
    """
    try:
        found = _find_versions(_parse_name(name), data_dir)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    if len(found) > 1:
        choices = ", ".join(
            f"{path.parent.parent.name}/{path.parent.name}" for path in found
        )
        raise DataError(
            f"dataset.name={name} is prepared in several configurations in {data_dir}: "
            f"name one of {choices}"
        )
    return found[0] if found else None


def _find_versions(name: _Name, data_dir: Path) -> list[Path]:
    """Returns the folders that a name may mean, one for each configuration."""
    set_dir = data_dir / name.dataset
    if name.config is not None:
        candidates = [set_dir / name.config]
    elif _pick_version(set_dir, name.version):
        candidates = [set_dir]
    else:
        candidates = sorted(_folders(set_dir))
    versions = [_pick_version(folder, name.version) for folder in candidates]
    return [version for version in versions if version is not None]


def _parse_name(name: str) -> _Name:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"dataset.name={name!r} is not a name of a data set: write 'name', "
            "'name/config' or 'name:1.2.3'"
        )
    parsed = _Name(**match.groupdict())
    configs = OWN_BUILDERS.get(parsed.dataset)
    if configs is None or parsed.config in configs:
        return parsed
    if parsed.config is None:
        return parsed._replace(config=configs[0])
    raise DataError(
        f"dataset.name={name}: {parsed.dataset} comes as {' or '.join(configs)}"
    )


def _folders(folder: Path) -> list[Path]:
    return (
        [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    )


def _pick_version(folder: Path, version: str | None) -> Path | None:
    """Returns the folder of a version, or of the highest where version is None."""
    found = [
        path
        for path in _folders(folder)
        if _VERSION.fullmatch(path.name) and version in (None, path.name)
    ]
    return max(
        found, key=lambda path: [int(n) for n in path.name.split(".")], default=None
    )


def missing_error(name: str, data_dir: Path) -> DataError:
    """Returns the error for a set that is not prepared: what to do, or what is near."""
    for parent in (data_dir.parent, data_dir.parent.parent):
        # Looking there is only a courtesy, so what goes wrong there is no matter.
        with contextlib.suppress(DataError):
            if find_prepared(name, parent):
                return DataError(
                    f"{name} is not prepared in {data_dir} but in the folder above: "
                    f"use dataset.data_dir={parent}"
                )
    if not is_known(name):
        return unknown_error(name, data_dir)
    absent = "" if data_dir.is_dir() else " (no such folder)"
    return DataError(
        f"{name} is not prepared in {data_dir}{absent}; run: "
        f"{prepare_command(name, data_dir)}"
    )


def is_known(name: str) -> bool:
    """Says whether TFDS or a builder of ours can prepare a set; may import TFDS.

    Raises:
        DataError: where the name has another form.
    """
    dataset = _parse_name(name).dataset
    return dataset in OWN_BUILDERS or dataset in _builder_names()


def unknown_error(name: str, data_dir: Path) -> DataError:
    """Returns the error for a name that nobody knows, with the nearest that exist."""
    prepared = {path.name for path in _folders(data_dir)}
    known = {*PACKAGED, *OWN_BUILDERS, *_builder_names(), *prepared}
    dataset = _parse_name(name).dataset
    nearest = difflib.get_close_matches(dataset.lower(), sorted(known), 3, cutoff=0.5)
    choices = f"the nearest are {', '.join(nearest)}" if nearest else "see tfds.org"
    return DataError(
        f"dataset.name={name} is neither {' nor '.join(PACKAGED)} nor a TFDS set, and "
        f"is not prepared in {data_dir}: {choices}"
    )


def _builder_names() -> list[str]:
    """Returns all names TFDS can prepare; imports TFDS, so only for errors."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


class Prepared(NamedTuple):
    """A prepared set whose files were found whole; nothing is decoded yet.

    Attributes:
        num_channels: 1, 3 or 4.
        num_classes: number of classes C.
        label_names: C names, in the order of the labels.
        train: files of the training split, in TFDS's order.
        test: files of the split "test" where it is there and labelled, else of
            "validation".
    """

    num_channels: int
    num_classes: int
    label_names: tuple[str, ...]
    train: tuple[Shard, ...]
    test: tuple[Shard, ...]


def open_prepared(name: str, prepared_dir: Path) -> Prepared:
    """Opens a prepared set and checks that its files hold what they should.

    Raises:
        DataError: where the folder's description or a file is missing, truncated or
            damaged, holds another number of examples than described, is not in
            array_record format, or has no "image", no "label" or no such split. The
            message names the folder or file.
    """
    builder = _open_builder(name, prepared_dir)
    image, label = _image_and_label(prepared_dir, builder.info.features)
    if "train" not in builder.info.splits:
        raise DataError(f"{prepared_dir} has no split train, only {_splits(builder)}")
    return Prepared(
        num_channels=image.shape[-1],
        num_classes=label.num_classes,
        label_names=tuple(label.names),
        train=_shards(prepared_dir, builder, "train"),
        test=_test_shards(prepared_dir, builder),
    )


def file_format(prepared_dir: Path) -> str:
    """Returns the format of a prepared folder's files: array_record, tfrecord, ...

    Raises:
        DataError: where dataset_info.json is missing or damaged.
    """
    path = prepared_dir / "dataset_info.json"
    try:
        # Sets from before TFDS could write other formats do not say theirs.
        return json.loads(path.read_text()).get("fileFormat", "tfrecord")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}); {REMEDY}") from error


def has_one_shape(prepared_dir: Path) -> bool:
    """Says whether a set's description gives all its images one height and width.

    Imports nothing, so that asking costs a start nothing. Where the description is
    damaged the answer is yes: whoever opens the set will say what is wrong with it.
    """
    try:
        features = json.loads((prepared_dir / "features.json").read_text())
        image = features["featuresDict"]["features"]["image"]["image"]
        return all(int(size) >= 0 for size in image["shape"]["dimensions"])
    except (OSError, ValueError, LookupError, TypeError):
        return True


def _open_builder(name: str, prepared_dir: Path) -> Any:
    """Returns TFDS's description of a prepared folder, checked to be readable."""
    if (found := file_format(prepared_dir)) != "array_record":
        raise DataError(
            f"{prepared_dir} has {found} files, which only TensorFlow reads; prepare "
            "array_record files in another folder: "
            f"{prepare_command(name, 'OTHER_FOLDER')}"
        )
    if not (prepared_dir / "features.json").is_file():
        raise DataError(f"{prepared_dir / 'features.json'} is missing; {REMEDY}")
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(prepared_dir)
    # TFDS lets through whatever protobuf, json and its own classes raise.
    except Exception as error:
        raise DataError(
            f"{prepared_dir}: dataset_info.json, features.json or label names are "
            f"damaged ({one_line(error)}); {REMEDY}"
        ) from error


def _image_and_label(prepared_dir: Path, features: Any) -> tuple[Any, Any]:
    """Returns TFDS's image and label feature, checked to be of a kind that we read."""
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
    if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3, 4):
        raise DataError(
            f"{prepared_dir} has images of {image.np_dtype} with {image.shape[-1]} "
            "channels; only uint8 with 1, 3 or 4 channels can be read"
        )
    if not label.num_classes:
        raise DataError(f"{prepared_dir} does not say how many classes there are")
    if len(label.names) != label.num_classes:
        raise DataError(
            f"{prepared_dir / 'label.labels.txt'} names {len(label.names)} classes, "
            f"features.json {label.num_classes}; {REMEDY}"
        )
    return image, label


def _shards(prepared_dir: Path, builder: Any, split: str) -> tuple[Shard, ...]:
    """Returns a split's files after checking that each holds what it should."""
    shards = tuple(
        open_shard(
            instruction.filename,
            instruction.examples_in_shard,
            instruction.skip,
            instruction.skip + instruction.take,
        )
        for instruction in builder.info.splits[split].file_instructions
    )
    if not shards:
        raise DataError(f"{prepared_dir} has no examples in split {split}; {REMEDY}")
    return shards


def _test_shards(prepared_dir: Path, builder: Any) -> tuple[Shard, ...]:
    """Returns the files of the split to test on."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            shards = _shards(prepared_dir, builder, split)
            # ImageNet's test split is there, but all its labels are -1.
            first = next(read_in_order(shards[0]._replace(stop=shards[0].start + 1)))
            if first[0].label >= 0:
                return shards
    raise DataError(
        f"{prepared_dir} has no labelled split test or validation, only "
        f"{_splits(builder)}"
    )


def _splits(builder: Any) -> str:
    return ", ".join(builder.info.splits) or "none at all"


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
        progress: called with (images decoded, images in all) every few thousand
            images. Without it one log line says what is being done.

    Returns:
        Source with the splits in TFDS's order. Images are decoded as TFDS decodes
        them; one whose channels differ from the set's description is converted.

    Raises:
        DataError: as ``fisher_jax.data.prepared.open_prepared``, and where a
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
