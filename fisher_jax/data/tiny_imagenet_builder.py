"""Prepares Tiny ImageNet with TFDS, which has no builder for it.

Importing this file registers the builder ``tiny_imagenet``. Only preparing needs it:
a prepared set is read like any other.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fisher_jax.data.tiny_imagenet import (
    URL,
    Archive,
    Entry,
    open_archive,
    read_images,
)

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
        self, archive: Archive, entries: Sequence[Entry]
    ) -> Iterator[Any]:
        for entry, encoded in read_images(archive, entries, self.builder_config.size):
            name = Path(entry.member).name
            yield name, {"id": name, "image": encoded, "label": entry.wnid}
