"""Prepared TFDS sets of made-up images, written without TensorFlow.

For the benchmark and tests only: small sets of noise, and photographs of the size and
weight of ImageNet's.
"""

import io
import json
from pathlib import Path

import numpy as np
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

WIDTH, HEIGHT = 500, 375


def encode(image: np.ndarray, image_format: str = "PNG") -> bytes:
    """Returns pixels as the bytes of a file."""
    buffer = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def serialise(encoded: bytes, label: int) -> bytes:
    """Returns a record: an encoded image, its label and a text."""
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(encoded)
    example.features.feature["label"].int64_list.value.append(label)
    example.features.feature["id"].bytes_list.value.append(b"some text")
    return example.SerializeToString(deterministic=True)


def write_shards(
    folder: Path, name: str, split: str, shards: list[list[bytes]]
) -> None:
    """Writes a split's files."""
    for i, records in enumerate(shards):
        path = folder / f"{name}-{split}.array_record-{i:05d}-of-{len(shards):05d}"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()


def feature(kind: str, **content: object) -> dict:
    """Returns what features.json says of a feature."""
    module = {
        "Image": "image_feature",
        "ClassLabel": "class_label_feature",
        "Text": "text_feature",
    }[kind]
    field = {"Image": "image", "ClassLabel": "classLabel", "Text": "text"}[kind]
    full_name = f"tensorflow_datasets.core.features.{module}.{kind}"
    return {"pythonClassName": full_name, field: content}


def image_feature(shape: tuple[int, ...], dtype: str = "uint8") -> dict:
    """Returns it of images; -1 is any size."""
    dimensions = {"dimensions": [str(d) for d in shape]}
    return feature("Image", dtype=dtype, shape=dimensions)


def label_feature(num_classes: int) -> dict:
    """Returns it of labels."""
    return feature("ClassLabel", numClasses=str(num_classes))


def write_description(
    folder: Path,
    name: str,
    splits: dict[str, list[list[bytes]]],
    features: dict[str, dict],
    file_format: str = "array_record",
) -> None:
    """Writes dataset_info.json and features.json."""
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


def photograph(
    generator: np.random.Generator, width: int = WIDTH, height: int = HEIGHT
) -> bytes:
    """A JPEG of quality 90 whose spectrum falls as a photograph's does: some 100 kB."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1

    def noise() -> np.ndarray:
        spectrum = generator.normal(size=(2, *frequency.shape))
        spectrum = (spectrum[0] + 1j * spectrum[1]) / frequency**1.1
        plane = np.fft.irfft2(spectrum, (height, width))
        return plane / plane.std()

    brightness = noise()
    planes = [brightness + 0.4 * noise() for _ in range(3)]
    pixels = np.clip(128 + 50 * np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_photographs(
    data_dir: Path,
    num_images: int,
    num_files: int = 4,
    num_test: int = 8,
    sizes: tuple[tuple[int, int], ...] = ((WIDTH, HEIGHT),),
    name: str = "photos",
    num_classes: int = 10,
) -> dict[str, list[bytes]]:
    """Writes data_dir/name/1.0.0 with images of any shape, as imagenet2012 has.

    Returns the encoded images of each split; image i has label i modulo the classes.
    """
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    written, splits = {}, {}
    for split, size, files in (("train", num_images, num_files), ("test", num_test, 1)):
        written[split] = [
            photograph(generator, *sizes[i % len(sizes)]) for i in range(size)
        ]
        records = [
            serialise(image, i % num_classes) for i, image in enumerate(written[split])
        ]
        per_file = -(-size // files)
        splits[split] = [
            records[start : start + per_file] for start in range(0, size, per_file)
        ]
        write_shards(folder, name, split, splits[split])
    label = label_feature(num_classes)
    features = {"image": image_feature((-1, -1, 3)), "label": label}
    write_description(folder, name, splits, features)
    return written
