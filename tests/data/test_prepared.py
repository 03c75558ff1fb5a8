import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from benchmarks.synthetic_images import (
    encode,
    feature,
    image_feature,
    label_feature,
    serialise,
    write_description,
    write_set,
    write_shards,
)
from fisher_jax.data import prepared
from fisher_jax.data.prepared import read_prepared
from fisher_jax.errors import DataError

TRAIN_0 = "tiny-train.array_record-00000-of-00002"
TRAIN_1 = "tiny-train.array_record-00001-of-00002"
TEST = "tiny-test.array_record-00000-of-00001"
IMAGE = image_feature((4, 4, 3))
LABEL = label_feature(5)


def read(data_dir: Path, **options):
    return read_prepared("tiny", data_dir / "tiny" / "1.0.0", **options)


def write_custom(data_dir: Path, splits: dict, features: dict, **options) -> Path:
    """Writes a set of given records; ``splits`` are lists of records, one file each."""
    folder = data_dir / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    files = {split: [records] for split, records in splits.items()}
    for split, shards in files.items():
        write_shards(folder, "tiny", split, shards)
    write_description(folder, "tiny", files, features, **options)
    return folder


def some_records(num: int = 3, shape=(4, 4, 3), label: int = 1) -> list[bytes]:
    images = np.random.default_rng(0).integers(0, 256, (num, *shape), dtype=np.uint8)
    return [serialise(encode(image), label) for image in images]


# --- What a sound set holds -----------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6, 3), (5, 5, 1), (3, 3, 4), (64, 64, 3)])
def test_lossless_images_and_labels_come_back(tmp_path, shape):
    written = write_set(tmp_path, shape=shape)
    source = read(tmp_path)
    for split, name in ((source.train, "train"), (source.test, "test")):
        images, labels = written[name]
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
    assert source.name == "tiny"
    assert source.num_classes == 5
    assert source.label_names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("image_format", "shape"),
    [("PNG", (9, 7, 3)), ("JPEG", (16, 16, 3)), ("JPEG", (70, 64, 3))]
    + [("PNG", (9, 7, 1)), ("JPEG", (16, 16, 1))],
)
def test_equal_to_tfds(tmp_path, image_format, shape):
    write_set(tmp_path, shape=shape, image_format=image_format)
    source = read(tmp_path)
    builder = tfds.builder_from_directory(tmp_path / "tiny" / "1.0.0")
    for split, name in ((source.train, "train"), (source.test, "test")):
        expected = list(builder.as_data_source(name))
        np.testing.assert_array_equal(split.images, [e["image"] for e in expected])
        np.testing.assert_array_equal(split.labels, [e["label"] for e in expected])


def test_records_are_read_in_many_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("fisher_jax.data.record_files._RECORDS_PER_READ", 4)
    monkeypatch.setattr("fisher_jax.data.prepared._RECORDS_PER_TASK", 3)
    monkeypatch.setattr("fisher_jax.data.prepared._PIXELS_WORTH_THREADS", 1)
    written = write_set(tmp_path, sizes={"train": (7, 1, 9), "test": (5,)})
    calls = []
    source = read(tmp_path, progress=lambda done, total: calls.append((done, total)))
    np.testing.assert_array_equal(source.train.images, written["train"][0])
    np.testing.assert_array_equal(source.test.images, written["test"][0])
    done = [4, 7, 8, 12, 16, 17, 21, 22]
    assert calls == [(count, 22) for count in done]


def test_label_names(tmp_path):
    write_set(tmp_path, num_classes=2)
    names = tmp_path / "tiny" / "1.0.0" / "label.labels.txt"
    names.write_text("no\nyes\n")
    assert read(tmp_path).label_names == ("no", "yes")


def test_validation_stands_in_for_a_missing_test_split(tmp_path):
    written = write_set(tmp_path, sizes={"train": (4,), "validation": (3,)})
    np.testing.assert_array_equal(read(tmp_path).test.images, written["validation"][0])


def test_validation_stands_in_for_an_unlabelled_test_split(tmp_path):
    """ImageNet's test split is published without labels."""
    splits = {
        "train": some_records(),
        "test": some_records(label=-1),
        "validation": some_records(2, label=3),
    }
    write_custom(tmp_path, splits, {"image": IMAGE, "label": LABEL})
    assert read(tmp_path).test.labels.tolist() == [3, 3]


def test_images_with_other_channels_are_converted(tmp_path):
    grey = np.full((4, 4, 1), 77, np.uint8)
    see_through = np.full((4, 4, 4), 200, np.uint8)
    palette = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 51, np.uint8)).quantize(2).save(palette, "PNG")
    encoded = [encode(grey), encode(see_through), palette.getvalue()]
    records = [serialise(image, 0) for image in encoded]
    splits = {"train": records, "test": records}
    write_custom(tmp_path, splits, {"image": IMAGE, "label": LABEL})
    images = read(tmp_path).train.images
    assert images.shape == (3, 4, 4, 3)
    assert [np.unique(image).tolist() for image in images] == [[77], [200], [51]]


# --- Damaged folders ------------------------------------------------------------------


def flip_bytes(content: bytes, start: int, count: int) -> bytes:
    flipped = bytes(byte ^ 0xFF for byte in content[start : start + count])
    return content[:start] + flipped + content[start + count :]


DAMAGE = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "one block": lambda content: content[:65536],
    "one byte short": lambda content: content[:-1],
    "longer": lambda content: content + b"more",
    "text": lambda content: b"hello\n",
    "zeros": lambda content: bytes(len(content)),
    "no end": lambda content: content[:-65536] + bytes(65536),
}


@pytest.mark.parametrize("file", [TRAIN_0, TRAIN_1, TEST])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file(tmp_path, file, damage):
    write_set(tmp_path)
    path = tmp_path / "tiny" / "1.0.0" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert str(path) in message
    assert "truncated or damaged" in message
    assert "\n" not in message


def test_missing_file(tmp_path):
    write_set(tmp_path)
    path = tmp_path / "tiny" / "1.0.0" / TRAIN_1
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing"):
        read(tmp_path)


@pytest.mark.parametrize("file", ["dataset_info.json", TRAIN_0, TEST])
def test_file_that_may_not_be_read(public_dir, unprivileged, file):
    write_set(public_dir)
    path = public_dir / "tiny" / "1.0.0" / file
    path.chmod(0)
    with unprivileged(), pytest.raises(DataError) as caught:
        read(public_dir)
    assert str(caught.value) == f"{path} cannot be read: Permission denied"


def test_flipped_bytes_in_a_record_are_found_by_number(tmp_path):
    """The file's own hashes notice; the message says which record it is."""
    sizes = {"train": (200,), "test": (3,)}
    written = write_set(tmp_path, shape=(16, 16, 3), sizes=sizes)
    path = tmp_path / "tiny/1.0.0/tiny-train.array_record-00000-of-00001"
    content = path.read_bytes()
    record = encode(written["train"][0][123])
    # Records are compressed, but an image's bytes hardly change.
    place = content.find(record[60:90])
    assert place > 0
    path.write_bytes(flip_bytes(content, place, 5))
    with pytest.raises(DataError, match=f"{path} is damaged at record 123 "):
        read(tmp_path)


@pytest.mark.parametrize(
    "file", ["dataset_info.json", "features.json"], ids=["info", "features"]
)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1, 2]", b"\xff\xfe\x00"])
def test_missing_or_damaged_description(tmp_path, file, content):
    write_set(tmp_path)
    path = tmp_path / "tiny" / "1.0.0" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert str(path.parent) in message
    assert file in message
    assert ("is missing;" in message) == (content is None)
    assert "\n" not in message


def test_wrong_number_of_label_names(tmp_path):
    write_set(tmp_path)
    (tmp_path / "tiny" / "1.0.0" / "label.labels.txt").write_text("a\nb\n")
    with pytest.raises(
        DataError, match=r"label.labels.txt names 2 classes, features.json 5"
    ):
        read(tmp_path)


def test_description_of_another_number_of_examples(tmp_path):
    write_set(tmp_path)
    path = tmp_path / "tiny" / "1.0.0" / "dataset_info.json"
    path.write_text(path.read_text().replace('["7", "5"]', '["7", "6"]'))
    with pytest.raises(DataError, match=f"{TRAIN_1} .* 5 of 6 examples"):
        read(tmp_path)


def test_tfrecord_files_need_another_folder(tmp_path):
    splits = {"train": some_records(), "test": some_records()}
    features = {"image": IMAGE, "label": LABEL}
    folder = write_custom(tmp_path, splits, features, file_format="tfrecord")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{folder} has tfrecord files")
    assert "fisher_jax.data.prepare tiny --data_dir=" in str(caught.value)


# --- Sets of another kind -------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"image": IMAGE, "id": feature("Text")},
            "it needs the features .* has id, image",
        ),
        ({"text": feature("Text"), "label": LABEL}, "has label, text"),
        ({"image": feature("Text"), "label": LABEL}, "it needs the features"),
        ({"image": IMAGE, "label": feature("Text")}, "it needs the features"),
        ({"image": image_feature((4, 4, 3), "uint16"), "label": LABEL}, "uint16"),
        ({"image": image_feature((4, 4, 2)), "label": LABEL}, "2 channels|damaged"),
        ({"image": IMAGE, "label": feature("ClassLabel")}, "how many classes"),
    ],
)
def test_not_image_classification(tmp_path, features, message):
    splits = {"train": some_records(), "test": some_records()}
    write_custom(tmp_path, splits, features)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("test",), "has no split train, only test"),
        (("train",), "has no labelled split test or validation, only train"),
        (("train", "extra"), "has no labelled split test or validation"),
        ((), "has no split train, only none at all"),
    ],
)
def test_missing_splits(tmp_path, splits, message):
    records = {split: some_records() for split in splits}
    write_custom(tmp_path, records, {"image": IMAGE, "label": LABEL})
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_empty_split(tmp_path):
    splits = {"train": [], "test": some_records()}
    write_custom(tmp_path, splits, {"image": IMAGE, "label": LABEL})
    with pytest.raises(DataError, match="no examples in split train"):
        read(tmp_path)


FREE_SIZE = {"image": image_feature((-1, -1, 3)), "label": LABEL}


def test_images_of_different_shapes(tmp_path):
    train = some_records(5) + some_records(1, (4, 5, 3))
    write_custom(tmp_path, {"train": train, "test": some_records()}, FREE_SIZE)
    with pytest.raises(
        DataError, match="record 5 is an image of 4×5×3, others are 4×4"
    ):
        read(tmp_path)


def test_a_small_image_is_not_spread_over_a_row(tmp_path):
    """numpy would broadcast it without a word."""
    train = some_records(2) + some_records(1, (1, 1, 3))
    write_custom(tmp_path, {"train": train, "test": some_records()}, FREE_SIZE)
    with pytest.raises(DataError, match="record 2 is an image of 1×1×3"):
        read(tmp_path)


def test_splits_of_different_shapes(tmp_path):
    splits = {"train": some_records(), "test": some_records(3, (6, 6, 3))}
    write_custom(tmp_path, splits, FREE_SIZE)
    with pytest.raises(DataError, match="an image of 6×6×3, others are 4×4×3"):
        read(tmp_path)


def test_images_that_do_not_fit_in_memory(tmp_path, monkeypatch):
    def too_large(shape, dtype):
        raise MemoryError("Unable to allocate 735 GiB")

    write_set(tmp_path)
    monkeypatch.setattr(prepared.np, "empty", too_large)
    with pytest.raises(DataError, match=r"12 images .* do not fit in memory .*735 GiB"):
        read(tmp_path)


def cut_off(encoded: bytes) -> bytes:
    return encoded[: len(encoded) // 2]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (serialise(b"", 1), "record 3 cannot be decoded as an image"),
        (serialise(b"no image", 1), "record 3 cannot be decoded as an image"),
        (
            serialise(cut_off(encode(np.zeros((4, 4, 3), np.uint8))), 1),
            "record 3 cannot be decoded as an image",
        ),
        (
            serialise(cut_off(encode(np.zeros((64, 64, 3), np.uint8), "JPEG")), 1),
            "record 3 cannot be decoded as an image",
        ),
        (b"no example", "record 3 has no image and label"),
        (b"", "record 3 has no image and label"),
        (some_records(1, label=5)[0], "record 3 has label 5, not one of the 5 classes"),
        (some_records(1, label=-1)[0], "record 3 has label -1"),
    ],
    # Bytes make names that differ between processes, which tests on two workers must
    # not: protobuf maps have no order.
    ids=[
        "empty image",
        "no image",
        "half a PNG",
        "half a JPEG",
        "no example",
        "empty",
        "label too large",
        "label negative",
    ],
)
def test_damaged_record(tmp_path, record, message):
    splits = {"train": some_records(3) + [record], "test": some_records()}
    folder = write_custom(tmp_path, splits, {"image": IMAGE, "label": LABEL})
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    file = folder / "tiny-train.array_record-00000-of-00001"
    assert f"{file}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- The real thing -------------------------------------------------------------------


def copy_first(source: Path, target: Path, count: int) -> None:
    reader = array_record_module.ArrayRecordReader(str(source))
    writer = array_record_module.ArrayRecordWriter(str(target), "group_size:1")
    for record in reader.read(0, count):
        writer.write(record)
    writer.close()


def test_real_images_are_decoded_as_tfds_decodes_them(cifar10_data_dir, tmp_path):
    """On the first records of each real file, so that it takes a second."""
    original = cifar10_data_dir / "cifar10" / "3.0.2"
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    for name in ("features.json", "label.labels.txt"):
        shutil.copy(original / name, folder / name)
    text = (original / "dataset_info.json").read_text()
    text = text.replace('"50000"', '"700"').replace('"10000"', '"300"')
    (folder / "dataset_info.json").write_text(text)
    for split, count in (("train", 700), ("test", 300)):
        name = f"cifar10-{split}.array_record-00000-of-00001"
        copy_first(original / name, folder / name, count)
    source = read_prepared("cifar10", folder)
    builder = tfds.builder("cifar10", data_dir=tmp_path)
    for images, name in ((source.train, "train"), (source.test, "test")):
        expected = list(builder.as_data_source(name))
        np.testing.assert_array_equal(images.images, [e["image"] for e in expected])
        np.testing.assert_array_equal(images.labels, [e["label"] for e in expected])
    assert source.label_names[:3] == ("airplane", "automobile", "bird")
