"""The containers of a data set in memory: one split, and all of a source."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8


class ImageSet(NamedTuple):
    """One split in memory; an example's id is its row.

    Attributes:
        images: uint8 [N, H, W, C], pixel values 0 to 255 as decoded. May be read-only.
        labels: int32 [N], each in [0, num_classes). May be read-only.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]


class Source(NamedTuple):
    """A data set: its training and test split as they were published.

    Attributes:
        name: The name it was asked for by.
        train: The training split, before any subset, validation split or label noise.
        test: The test split (the validation split where none with labels is published).
        num_classes: Number of classes C.
        label_names: C names, in the order of the labels.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    label_names: tuple[str, ...]
