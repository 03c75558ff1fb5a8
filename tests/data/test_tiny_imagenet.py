import functools
import http.server
import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info

from fisher_jax.data import tiny_imagenet
from fisher_jax.data.prepare import main
from fisher_jax.data.sources import load_source
from fisher_jax.data.tiny_imagenet import URL, TinyImagenet, open_archive, read_images
from fisher_jax.errors import DataError
from tests.data.archives import (
    ROOT,
    WNIDS,
    jpeg,
    tiny_imagenet_files,
    write_tiny_imagenet,
)


@pytest.fixture
def files() -> dict[str, bytes]:
    return tiny_imagenet_files()


def read_all(path: Path, size: int = 32) -> list:
    archive = open_archive(path)
    entries = [*archive.train, *archive.validation]
    return list(read_images(archive, entries, size))


def pixels(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def block_means(image: np.ndarray) -> np.ndarray:
    """The mean of each 2×2 pixels, rounded half up: area resampling by one half."""
    sums = image.reshape(32, 2, 32, 2, 3).astype(np.int64).sum(axis=(1, 3))
    return ((sums + 2) // 4).astype(np.uint8)


# --- A sound archive ------------------------------------------------------------------


def test_classes_are_sorted_and_every_image_is_listed_once(tmp_path, files):
    path = tmp_path / "archive.zip"
    write_tiny_imagenet(path, files)
    archive = open_archive(path)
    assert archive.wnids == tuple(sorted(WNIDS))
    assert len(archive.train) == 12
    assert [e.wnid for e in archive.train[:4]] == ["n01443537"] * 4
    assert archive.train[0].member == f"{ROOT}/train/n01443537/images/n01443537_0.JPEG"
    assert [e.wnid for e in archive.validation] == [WNIDS[i] for i in (0, 1, 2, 0, 1)]
    members = [e.member for e in [*archive.train, *archive.validation]]
    assert len(set(members)) == 17
    assert not any("/test/" in member for member in members)


def test_images_are_downsized_by_area(tmp_path, files):
    path = tmp_path / "archive.zip"
    write_tiny_imagenet(path, files)
    for entry, encoded in read_all(path, 32):
        original = pixels(files[entry.member.removeprefix(f"{ROOT}/")])
        np.testing.assert_array_equal(pixels(encoded), block_means(original))
        with Image.open(io.BytesIO(encoded)) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))


def test_at_64_the_original_files_come_and_grey_ones_in_rgb(tmp_path, files):
    path = tmp_path / "archive.zip"
    write_tiny_imagenet(path, files)
    changed = []
    for entry, encoded in read_all(path, 64):
        original = files[entry.member.removeprefix(f"{ROOT}/")]
        np.testing.assert_array_equal(pixels(encoded), pixels(original))
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.mode == "RGB"
        if encoded != original:
            changed.append(entry.member.rpartition("/")[2])
    assert changed == [f"{WNIDS[0]}_0.JPEG", "val_1.JPEG"]


# --- Damaged archives -----------------------------------------------------------------

TRAIN = f"train/{WNIDS[1]}/images/{WNIDS[1]}_2.JPEG"
BOXES = f"train/{WNIDS[1]}/{WNIDS[1]}_boxes.txt"
ANNOTATIONS = "val/val_annotations.txt"


def replaced(name: str, old: bytes, new: bytes):
    return lambda files: files | {name: files[name].replace(old, new)}


def without(name: str):
    return lambda files: {key: files[key] for key in files if key != name}


DAMAGE = {
    "no wnids": (without("wnids.txt"), f"has no {ROOT}/wnids.txt"),
    "empty wnids": (lambda f: f | {"wnids.txt": b"\n"}, "does not name each class"),
    "a class twice": (
        lambda f: f | {"wnids.txt": f["wnids.txt"] * 2},
        "does not name each class once",
    ),
    "wnids no text": (lambda f: f | {"wnids.txt": b"\xff\xfe\x80"}, "is not text"),
    "no list of a class": (without(BOXES), f"has no {ROOT}/{BOXES}"),
    "a class more": (
        lambda f: f | {"wnids.txt": f["wnids.txt"] + b"n99999999\n"},
        "has no .*n99999999_boxes.txt",
    ),
    "a class less": (
        replaced("wnids.txt", b"n01443537\n", b""),
        r"train/n01443537/images/n01443537_0.JPEG is in no list|class 'n01443537'",
    ),
    "a missing image": (without(TRAIN), f"has no {ROOT}/{TRAIN}, which is listed"),
    "an image too many": (
        lambda f: f | {"val/images/val_77.JPEG": f[TRAIN]},
        "val/images/val_77.JPEG is in no list, so its class is unknown",
    ),
    "no annotations": (without(ANNOTATIONS), f"has no {ROOT}/{ANNOTATIONS}"),
    "empty annotations": (
        lambda f: f | {ANNOTATIONS: b""},
        "val_0.JPEG is in no list",
    ),
    "an annotation is missing": (
        replaced(ANNOTATIONS, b"val_3.JPEG\tn02124075\t0\t32\t44\t62\n", b""),
        "val/images/val_3.JPEG is in no list",
    ),
    "an annotation of nothing": (
        replaced(ANNOTATIONS, b"val_3.", b"val_33."),
        "has no .*val_33.JPEG, which is listed",
    ),
    "an annotation twice": (
        replaced(ANNOTATIONS, b"val_3.", b"val_2."),
        "val_2.JPEG is listed twice",
    ),
    "a wrong label": (
        replaced(ANNOTATIONS, b"val_3.JPEG\tn02124075", b"val_3.JPEG\tn00000001"),
        "gives val_3.JPEG in line 4 the class 'n00000001', which is not in wnids",
    ),
    "a line without a label": (
        replaced(ANNOTATIONS, b"val_3.JPEG\tn02124075\t0\t32", b"val_3.JPEG"),
        "gives val_3.JPEG in line 4 the class '44'",
    ),
    "no image file": (
        lambda f: f | {TRAIN: b"no image"},
        f"{TRAIN} cannot be decoded as an image",
    ),
    "an empty image": (lambda f: f | {TRAIN: b""}, f"{TRAIN} cannot be decoded"),
    "half an image": (
        lambda f: f | {TRAIN: f[TRAIN][: len(f[TRAIN]) // 2]},
        f"{TRAIN} cannot be decoded",
    ),
    "another size": (
        lambda f: f | {TRAIN: jpeg(np.zeros((32, 64, 3), np.uint8))},
        f"{TRAIN} has 64×32 pixels, not 64×64",
    ),
    "nothing": (lambda f: {}, "has no .*wnids.txt"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_content(tmp_path, files, damage, message):
    path = tmp_path / "archive.zip"
    write_tiny_imagenet(path, damage(files))
    with pytest.raises(DataError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(f"; download it again from {URL}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_truncated_archive(tmp_path, files, kept):
    path = tmp_path / "archive.zip"
    write_tiny_imagenet(path, files)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=f"{path} is truncated or not a zip file"):
        open_archive(path)


def test_missing_archive(tmp_path):
    with pytest.raises(DataError, match=r"archive.zip is missing; download it again"):
        open_archive(tmp_path / "archive.zip")
    with pytest.raises(DataError, match="is truncated or not a zip file"):
        open_archive(tmp_path)


def test_flipped_bytes_are_found_by_their_image(tmp_path, files):
    path = tmp_path / "archive.zip"
    write_tiny_imagenet(path, files)
    content = bytearray(path.read_bytes())
    start = content.find(f"{ROOT}/{TRAIN}".encode()) + 200
    content[start : start + 20] = bytes(byte ^ 0xFF for byte in content[start:][:20])
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: {ROOT}/{TRAIN} is damaged \("):
        read_all(path)


# --- A real preparation ---------------------------------------------------------------


@pytest.fixture
def archive_path(tmp_path, files, monkeypatch) -> Path:
    """A small archive in a folder of its own; only its checksum is not official."""
    path = tmp_path / "archives" / "tiny-imagenet-200.zip"
    path.parent.mkdir()
    write_tiny_imagenet(path, files)
    monkeypatch.setattr(TinyImagenet, "url_infos", {URL: compute_url_info(path)})
    return path


def prepare(name: str, archive_path: Path) -> int:
    data_dir = archive_path.parents[1] / "data"
    manual_dir = archive_path.parent
    return main([name, f"--data_dir={data_dir}", f"--manual_dir={manual_dir}"])


def check_prepared(data_dir: Path, files: dict[str, bytes], name: str) -> None:
    """Compares what is read from a prepared set with the archive's files."""
    source = load_source(name, str(data_dir), str(data_dir / "cache"))
    assert source.label_names == tuple(sorted(WNIDS))
    for split, images in (("train", source.train), ("val", source.test)):
        chosen = [n for n in files if n.startswith(split) and n.endswith(".JPEG")]
        expected = [pixels(files[n]) for n in chosen]
        if "64x64" not in name:
            expected = [block_means(image) for image in expected]
        wnids = [n.split("/")[1] for n in chosen]
        if split == "val":
            wnids = [WNIDS[i % 3] for i in range(5)]
        labels = [source.label_names.index(wnid) for wnid in wnids]
        assert as_bytes(*images) == as_bytes(np.stack(expected), np.array(labels))


def as_bytes(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    return sorted(
        image.tobytes() + bytes([label])
        for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize("name", ["tiny_imagenet", "tiny_imagenet/64x64"])
def test_prepared_for_real(tmp_path, files, archive_path, capsys, name):
    was_imported = "tensorflow" in sys.modules
    assert prepare(name, archive_path) == 0
    config = "64x64" if "/" in name else "32x32"
    folder = tmp_path / "data" / "tiny_imagenet" / config / "1.0.0"
    captured = capsys.readouterr()
    assert f"{name} is prepared in {folder}" in captured.out
    assert "Generating train examples" in captured.err
    assert ("tensorflow" in sys.modules) == was_imported
    check_prepared(tmp_path / "data", files, name)
    assert prepare(name, archive_path) == 0
    assert "already prepared" in capsys.readouterr().out


def test_both_sizes_beside_each_other(tmp_path, files, archive_path):
    """The bare name means 32×32, whichever is there."""
    assert prepare("tiny_imagenet/64x64", archive_path) == 0
    with pytest.raises(DataError, match="tiny_imagenet is not prepared in"):
        load_source("tiny_imagenet", str(tmp_path / "data"))
    assert prepare("tiny_imagenet", archive_path) == 0
    check_prepared(tmp_path / "data", files, "tiny_imagenet")
    check_prepared(tmp_path / "data", files, "tiny_imagenet/64x64:1.0.0")


def test_prepared_again_after_being_killed(tmp_path, files, archive_path):
    """Nothing half-made is ever taken for a set, and old remains are removed."""
    folder = tmp_path / "data" / "tiny_imagenet" / "32x32"
    old, young = folder / "incomplete.AB12CD_1.0.0", folder / "incomplete.EF34AB_1.0.0"
    for remains in (old, young):
        remains.mkdir(parents=True)
        (remains / "tiny_imagenet-train.array_record-00000-of-00001").write_bytes(b"x")
    os.utime(old, (0, 0))
    assert prepare("tiny_imagenet", archive_path) == 0
    assert {path.name for path in folder.iterdir()} == {young.name, "1.0.0"}
    check_prepared(tmp_path / "data", files, "tiny_imagenet")


def test_a_downloaded_archive(tmp_path, files, archive_path, monkeypatch):
    """Over a real connection, to a server of this machine."""
    handler = functools.partial(QuietHandler, directory=archive_path.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive_path.name}"
        monkeypatch.setattr(tiny_imagenet, "URL", url)
        info = TinyImagenet.url_infos[URL]
        monkeypatch.setattr(TinyImagenet, "url_infos", {url: info})
        assert main(["tiny_imagenet", f"--data_dir={tmp_path / 'data'}"]) == 0
        server.shutdown()
    check_prepared(tmp_path / "data", files, "tiny_imagenet")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_another_archive(files, archive_path, capsys):
    write_tiny_imagenet(archive_path, files | {TRAIN: b"no image"})
    assert prepare("tiny_imagenet", archive_path) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "NonMatchingChecksumError" in message
    assert str(archive_path) in message


def test_a_damaged_archive_leaves_no_set_behind(tmp_path, files, archive_path, capsys):
    """As it would be if the official archive had the damage."""
    write_tiny_imagenet(archive_path, files | {TRAIN: b"no image"})
    TinyImagenet.url_infos[URL] = compute_url_info(archive_path)
    assert prepare("tiny_imagenet", archive_path) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"{archive_path}: {ROOT}/{TRAIN} cannot be decoded")
    assert not list((tmp_path / "data").glob("tiny_imagenet/32x32/*"))


def test_an_unknown_size(tmp_path, archive_path, capsys):
    assert prepare("tiny_imagenet/48x48", archive_path) == 2
    message = "dataset.name=tiny_imagenet/48x48: tiny_imagenet comes as 32x32 or 64x64"
    assert capsys.readouterr().err == message + "\n"
    with pytest.raises(DataError, match=message):
        load_source("tiny_imagenet/48x48", str(tmp_path))


def test_the_official_archive_is_known_by_its_checksum():
    assert TinyImagenet.url_infos[URL].size == 248_100_043
    assert len(TinyImagenet.url_infos[URL].checksum) == 64
