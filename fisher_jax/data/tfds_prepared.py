"""A prepared TFDS folder: what its description says, and whether its files agree.

TFDS interprets the description, without TensorFlow; `fisher_jax.data.records` reads
the files.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fisher_jax.data.errors import DataError
from fisher_jax.data.records import REMEDY, Shard, open_shard, read_in_order
from fisher_jax.data.tfds_folder import prepare_command
from fisher_jax.errors import one_line


class Prepared(NamedTuple):
    """A prepared set whose files were found whole; nothing is decoded yet.

    Attributes:
        num_channels: 1, 3 or 4.
        num_classes: Number of classes C.
        label_names: C names, in the order of the labels.
        train: Files of the training split, in TFDS's order.
        test: Files of the split "test" where it is there and labelled, else of
            "validation".
    """

    num_channels: int
    num_classes: int
    label_names: tuple[str, ...]
    train: tuple[Shard, ...]
    test: tuple[Shard, ...]


def open_prepared(name: str, prepared_dir: Path) -> Prepared:
    """Opens a prepared set and checks that its files hold what they should.

    Args:
        name: The set's name, for messages.
        prepared_dir: Its folder: data_dir/name[/config]/version.

    Returns:
        Prepared.

    Raises:
        DataError: Where the folder's description or a file is missing, truncated or
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
        raise DataError(f"{path} is missing; {REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}); {REMEDY}") from error


def has_one_shape(prepared_dir: Path) -> bool:
    """Says whether a set's description gives all its images one height and width.

    Imports nothing, so that asking costs a start nothing. Where the description is
    damaged the answer is yes: whoever opens the set will say what is wrong with it.

    Args:
        prepared_dir: data_dir/name[/config]/version.
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
            f"{prepared_dir} holds {found} files, which only TensorFlow reads; "
            f"prepare array_record files in another folder: "
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
