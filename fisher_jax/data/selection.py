"""A data set as a run uses it: what trains, what validates, which labels are noise."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.label_noise import add_label_noise, label_hash
from fisher_jax.data.splits import split_examples
from fisher_jax.data.stream import (
    ImageSize,
    Reading,
    Stream,
    draw_labels,
    read_labels,
    split_size,
)


class Selection(NamedTuple):
    """What a run takes from a data set; the same on every process.

    Attributes:
        source: In memory or on disk.
        train_ids: int64 [N], sorted.
        validation_ids: int64 [V], sorted; may be empty.
        labels: int32 [N], of the training examples, noise included. Of a set on disk
            only those that noise has drawn, -1 for the others: as from `draw_labels`.
        is_noisy: bool [N], whether the label differs from the true class.
        noise_hash: Of ``labels``; see `label_hash`.
        effective_noise_rate: Fraction of training labels that differ from the true.
        size: Pixels of the images of a set on disk.
        reading: How a set on disk is read.
    """

    source: Source | Stream
    train_ids: Int64[np.ndarray, "n"]
    validation_ids: Int64[np.ndarray, "v"]
    labels: Int32[np.ndarray, "n"]
    is_noisy: Bool[np.ndarray, "n"]
    noise_hash: str
    effective_noise_rate: float
    size: ImageSize = ImageSize()
    reading: Reading = Reading()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the network sees."""
        train = self.source.train
        if isinstance(train, ImageSet):
            height, width, channels = train.images.shape[1:]
            return height, width, channels
        return self.size.crop, self.size.crop, train.num_channels

    @property
    def num_test(self) -> int:
        """Number of test examples."""
        test = self.source.test
        return len(test.labels) if isinstance(test, ImageSet) else split_size(test)


def select_examples(
    source: Source | Stream,
    *,
    seed: int,
    num_validation: int,
    num_train: int | None,
    label_noise: float,
    size: ImageSize = ImageSize(),  # noqa: B008  immutable
    reading: Reading = Reading(),  # noqa: B008
) -> Selection:
    """Draws validation split, subset and label noise, functions of (seed, example id).

    Of a set on disk the records whose label noise has redrawn are read, to know which
    of the draws have hit the true class; without noise nothing is read.

    Args:
        source: From `load_source` or `find_stream`.
        seed: Selects all draws.
        num_validation: Number of training examples to hold out.
        num_train: Number to train on; None takes all that remain.
        label_noise: Probability in [0, 1] that a training label is drawn anew.
        size: For sets on disk.
        reading: For sets on disk.

    Raises:
        DataError: As `split_examples`, `add_label_noise` and `stream_batches`.
    """
    train = source.train
    num_examples = (
        len(train.labels) if isinstance(train, ImageSet) else split_size(train)
    )
    train_ids, validation_ids = split_examples(
        seed, num_examples, num_validation, num_train
    )
    if isinstance(train, ImageSet):
        noisy = add_label_noise(
            seed, train_ids, train.labels[train_ids], source.num_classes, label_noise
        )
        labels, is_noisy = noisy.labels, noisy.is_noisy
    else:
        labels = draw_labels(seed, train_ids, source.num_classes, label_noise)
        is_drawn = labels >= 0
        is_noisy = np.zeros(len(labels), bool)
        true_labels = read_labels(train, train_ids[is_drawn], reading=reading)
        is_noisy[is_drawn] = labels[is_drawn] != true_labels
    return Selection(
        source=source,
        train_ids=train_ids,
        validation_ids=validation_ids,
        labels=labels,
        is_noisy=is_noisy,
        noise_hash=label_hash(train_ids, labels),
        effective_noise_rate=float(is_noisy.mean()),
        size=size,
        reading=reading,
    )
