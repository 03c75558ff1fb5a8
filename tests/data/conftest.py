"""Real TFDS folders, small, written without TensorFlow; the real CIFAR-10, if there."""

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

SHARED_TFDS_DATA = Path(__file__).parents[3] / "shared" / "tfds_data"


@pytest.fixture
def cifar10_data_dir() -> Path:
    """The folder of the real CIFAR-10 beside the repository."""
    if not (SHARED_TFDS_DATA / "cifar10").is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no real CIFAR-10 in {SHARED_TFDS_DATA}")
    return SHARED_TFDS_DATA


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A temporary folder that every user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """A context in which even root's tests meet file permissions."""

    @contextmanager
    def context() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    return context


def encode(image: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def serialise(encoded: bytes, label: int) -> bytes:
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(encoded)
    example.features.feature["label"].int64_list.value.append(label)
    example.features.feature["id"].bytes_list.value.append(b"some text")
    return example.SerializeToString(deterministic=True)


def write_shards(
    folder: Path, name: str, split: str, shards: list[list[bytes]]
) -> None:
    for i, records in enumerate(shards):
        path = folder / f"{name}-{split}.array_record-{i:05d}-of-{len(shards):05d}"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()


def feature(kind: str, **content: object) -> dict:
    module = {
        "Image": "image_feature",
        "ClassLabel": "class_label_feature",
        "Text": "text_feature",
    }[kind]
    field = {"Image": "image", "ClassLabel": "classLabel", "Text": "text"}[kind]
    full_name = f"tensorflow_datasets.core.features.{module}.{kind}"
    return {"pythonClassName": full_name, field: content}


def image_feature(shape: tuple[int, ...], dtype: str = "uint8") -> dict:
    dimensions = {"dimensions": [str(d) for d in shape]}
    return feature("Image", dtype=dtype, shape=dimensions)


def label_feature(num_classes: int) -> dict:
    return feature("ClassLabel", numClasses=str(num_classes))


def write_description(
    folder: Path,
    name: str,
    splits: dict[str, list[list[bytes]]],
    features: dict[str, dict],
    file_format: str = "array_record",
) -> None:
    info = {
        "name": name,
        "version": folder.name,
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(sum(len(r) for shard in shards for r in shard)),
                "shardLengths": [str(len(shard)) for shard in shards],
            }
            for split, shards in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    description = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict"
        ".FeaturesDict",
        "featuresDict": {"features": features},
    }
    (folder / "features.json").write_text(json.dumps(description))


def write_set(
    data_dir: Path,
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    shape: tuple[int, int, int] = (4, 6, 3),
    sizes: dict[str, tuple[int, ...]] | None = None,
    num_classes: int = 5,
    image_format: str = "PNG",
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes a prepared set as TFDS does; returns each split's images and labels.

    ``sizes`` are the numbers of records of each split's files.
    """
    sizes = sizes or {"train": (7, 5), "test": (6,)}
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    written, splits = {}, {}
    for split, lengths in sizes.items():
        images = generator.integers(0, 256, (sum(lengths), *shape), dtype=np.uint8)
        labels = generator.integers(0, num_classes, sum(lengths))
        records = [
            serialise(encode(image, image_format), label)
            for image, label in zip(images, labels, strict=True)
        ]
        ends = np.cumsum(lengths)
        splits[split] = [
            records[end - length : end]
            for end, length in zip(ends, lengths, strict=True)
        ]
        write_shards(folder, name, split, splits[split])
        written[split] = (images, labels)
    features = {
        "id": feature("Text"),
        "image": image_feature(shape),
        "label": label_feature(num_classes),
    }
    write_description(folder, name, splits, features)
    return written
