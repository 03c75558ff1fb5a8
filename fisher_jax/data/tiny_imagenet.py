"""Prepares Tiny ImageNet with TFDS, which has no builder for it.

Stanford's CS231n published tiny-imagenet-200.zip: 200 classes with 500 training and 50
validation images each, JPEGs of 64×64 pixels, and 10,000 test images whose labels were
never published. The paper trains on them at 32×32 pixels.

Importing this file registers the builder ``tiny_imagenet``. Only preparing needs it:
a prepared set is read like any other.
"""

import dataclasses
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from fisher_jax.errors import DataError, one_line

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
IMAGE_SIZE = 64
_ROOT = "tiny-imagenet-200"
_REMEDY = f"download it again from {URL}"


class ImageFile(NamedTuple):
    """One image: where it is in the archive, and its word-net id.

    Attributes:
        member: the file's path in the archive.
        wnid: word-net id of its class, such as "n01443537".
    """

    member: str
    wnid: str


class Archive(NamedTuple):
    """What an archive holds.

    Attributes:
        path: the zip file.
        wnids: word-net ids of the classes, sorted; an image's label is the index in
            this order (wnids.txt has them in no order).
        train: every training image, by class, then in the order of the class's list.
        validation: every validation image, in the order of val_annotations.txt.
    """

    path: Path
    wnids: tuple[str, ...]
    train: tuple[ImageFile, ...]
    validation: tuple[ImageFile, ...]


def open_archive(path: Path) -> Archive:
    """Reads an archive's lists and checks that they agree with its files.

    Raises:
        DataError: where the file is missing, truncated or no zip file, where a list is
            missing or malformed, an image is listed and not there or there and not
            listed, or a validation image has a label that is none of the classes.
    """
    with _opened(path) as file:
        members = set(file.namelist())
        wnids = _lines(path, file, "wnids.txt")
        if len(set(wnids)) != len(wnids) or not wnids:
            raise DataError(
                f"{path}: wnids.txt does not name each class once; {_REMEDY}"
            )
        wnids = sorted(wnids)
        train = [e for wnid in wnids for e in _train_entries(path, file, wnid)]
        validation = _validation_entries(path, file, wnids)
    for folder, entries in (("train/", train), ("val/", validation)):
        _check_listed(path, folder, members, [entry.member for entry in entries])
    return Archive(path, tuple(wnids), tuple(train), tuple(validation))


def read_images(
    archive: Archive, entries: Sequence[ImageFile], size: int
) -> Iterator[tuple[ImageFile, bytes]]:
    """Yields images as files of RGB images of ``size`` × ``size`` pixels.

    At 32 each pixel is the mean of 2×2 pixels (area resampling), rounded, and stored
    as PNG. At 64 the original JPEG is given, but for grey ones, which become RGB PNGs.

    Args:
        size: 32 or 64.

    Yields:
        (entry, the bytes of a PNG or JPEG file).

    Raises:
        DataError: where an image is damaged, cannot be decoded or is not of 64×64
            pixels; the message names the archive and the image.
    """
    with _opened(archive.path) as file:
        for entry in entries:
            encoded = _read(archive.path, file, entry.member)
            yield entry, _resized(archive.path, entry.member, encoded, size)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {_REMEDY}") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is truncated or not a zip file ({one_line(error)}); {_REMEDY}"
        ) from error


def _read(path: Path, file: zipfile.ZipFile, member: str) -> bytes:
    """Returns a file of the archive; zipfile checks its CRC."""
    try:
        return file.read(member)
    except KeyError as error:
        raise DataError(f"{path} has no {member}; {_REMEDY}") from error
    # A damaged archive also raises zlib.error, EOFError, NotImplementedError and more.
    except Exception as error:
        raise DataError(
            f"{path}: {member} is damaged ({one_line(error)}); {_REMEDY}"
        ) from error


def _lines(path: Path, file: zipfile.ZipFile, name: str) -> list[str]:
    """Returns a text file's lines that are not blank."""
    content = _read(path, file, f"{_ROOT}/{name}")
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {name} is not text; {_REMEDY}") from error
    return [line.rstrip() for line in lines if line.strip()]


def _train_entries(path: Path, file: zipfile.ZipFile, wnid: str) -> list[ImageFile]:
    """Returns a class's training images, listed beside their bounding boxes."""
    lines = _lines(path, file, f"train/{wnid}/{wnid}_boxes.txt")
    names = [line.split("\t")[0] for line in lines]
    return [ImageFile(f"{_ROOT}/train/{wnid}/images/{name}", wnid) for name in names]


def _validation_entries(
    path: Path, file: zipfile.ZipFile, wnids: Sequence[str]
) -> list[ImageFile]:
    """Returns the validation images with the classes that their list gives them."""
    known = set(wnids)
    entries = []
    for number, line in enumerate(_lines(path, file, "val/val_annotations.txt"), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in known:
            raise DataError(
                f"{path}: val/val_annotations.txt gives {name} in line {number} the "
                f"class {wnid!r}, which is not in wnids.txt; {_REMEDY}"
            )
        entries.append(ImageFile(f"{_ROOT}/val/images/{name}", wnid))
    return entries


def _check_listed(
    path: Path, folder: str, members: set[str], listed: Sequence[str]
) -> None:
    """Raises DataError unless the images of a folder are those that are listed."""
    there = {
        member
        for member in members
        if member.startswith(f"{_ROOT}/{folder}") and member.endswith(".JPEG")
    }
    if len(set(listed)) != len(listed):
        twice = next(member for member in listed if listed.count(member) > 1)
        raise DataError(f"{path}: {twice} is listed twice; {_REMEDY}")
    if missing := sorted(set(listed) - there):
        raise DataError(f"{path} has no {missing[0]}, which is listed; {_REMEDY}")
    if unlisted := sorted(there - set(listed)):
        raise DataError(
            f"{path}: {unlisted[0]} is in no list, so its class is unknown; {_REMEDY}"
        )
    if not listed:
        raise DataError(f"{path} has no images in {folder}; {_REMEDY}")


def _resized(path: Path, member: str, encoded: bytes, size: int) -> bytes:
    """Returns an image's file at ``size`` × ``size`` pixels, in RGB."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise DataError(
            f"{path}: {member} cannot be decoded as an image ({one_line(error)}); "
            f"{_REMEDY}"
        ) from error
    if image.size != (IMAGE_SIZE, IMAGE_SIZE):
        width, height = image.size
        raise DataError(
            f"{path}: {member} has {width}×{height} pixels, not "
            f"{IMAGE_SIZE}×{IMAGE_SIZE}; {_REMEDY}"
        )
    if size == IMAGE_SIZE and (image.format, image.mode) == ("JPEG", "RGB"):
        return encoded
    buffer = io.BytesIO()
    image.convert("RGB").reduce(IMAGE_SIZE // size).save(buffer, "PNG")
    return buffer.getvalue()


_DESCRIPTION = """\
A subset of ImageNet made for a course at Stanford: 200 classes with 500 training and
50 validation images each. Labels are the word-net ids in sorted order.
"""
_CITATION = """\
@misc{le2015tiny,
  title={Tiny ImageNet Visual Recognition Challenge},
  author={Le, Ya and Yang, Xuan},
  howpublished={CS 231N, Stanford University},
  year={2015},
}
"""


@dataclasses.dataclass
class TinyImagenetConfig(tfds.core.BuilderConfig):
    """Images of ``size`` × ``size`` pixels."""

    size: int = 64


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Tiny ImageNet: 200 classes, 100,000 training and 10,000 validation images."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        TinyImagenetConfig(
            name="32x32",
            description="Each pixel is the mean of 2×2 original ones, as PNG.",
            size=32,
        ),
        TinyImagenetConfig(
            name="64x64",
            description="The original JPEGs; grey ones as RGB PNGs.",
            size=64,
        ),
    )
    # TFDS would look for a file with this beside the builder's.
    url_infos = {  # noqa: RUF012
        URL: tfds.core.download.checksums.UrlInfo(
            size=248_100_043,
            checksum="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            filename="tiny-imagenet-200.zip",
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    # The archive names the classes, and it is not there yet.
                    "label": tfds.features.ClassLabel(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        # The archive is read as it is: unpacked it would be 120,000 small files.
        archive = open_archive(Path(dl_manager.download(URL)))
        self.info.features["label"].names = list(archive.wnids)
        return {
            "train": self._generate_examples(archive, archive.train),
            "validation": self._generate_examples(archive, archive.validation),
        }

    def _generate_examples(
        self, archive: Archive, entries: Sequence[ImageFile]
    ) -> Iterator[Any]:
        for entry, encoded in read_images(archive, entries, self.builder_config.size):
            name = Path(entry.member).name
            yield name, {"id": name, "image": encoded, "label": entry.wnid}
