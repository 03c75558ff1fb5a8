"""What a run takes from a data set: what trains, what validates, with which labels.

All draws are functions of (seed, example id).
"""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.random_bits import integers_below, random_bits, unit_interval
from fisher_jax.data.stream import Stream, read_labels, split_size
from fisher_jax.data.stream_reading import KEPT, ImageSize, Reading
from fisher_jax.errors import DataError


def split_examples(
    seed: int, num_examples: int, num_validation: int, num_train: int | None
) -> tuple[Int64[np.ndarray, "t"], Int64[np.ndarray, "v"]]:
    """Draws disjoint training and validation examples.

    Every example gets a random 64-bit number, a function of (seed, id). In the order
    of these numbers the first ``num_validation`` validate and the next ``num_train``
    train. So a smaller ``num_train`` takes a subset of the larger one's examples, and
    the validation examples are the same for every ``num_train``.

    Args:
        seed: selects the draw.
        num_examples: number of examples N in the split; ids are 0 to N - 1.
        num_validation: number of examples to hold out, 0 or more.
        num_train: number of examples to train on; None takes all that remain.

    Returns:
        (train_ids, validation_ids), both int64 and sorted.

    Raises:
        DataError: where a size is negative, no training example would remain, or
            more examples are asked for than there are.
    """
    if not 0 <= num_validation < num_examples:
        raise DataError(
            f"dataset.num_validation={num_validation} must be between 0 and "
            f"{num_examples - 1}: there are {num_examples} training examples"
        )
    num_left = num_examples - num_validation
    num_train = num_left if num_train is None else num_train
    if not 1 <= num_train <= num_left:
        raise DataError(
            f"dataset.num_train={num_train} must be between 1 and {num_left}: there "
            f"are {num_examples} training examples, {num_validation} of them held "
            "out for validation"
        )
    priority = random_bits(seed, "split", num_examples)[:, 0]
    order = np.argsort(priority, kind="stable")
    validation_ids = order[:num_validation]
    train_ids = order[num_validation : num_validation + num_train]
    return np.sort(train_ids), np.sort(validation_ids)


class NoisyLabels(NamedTuple):
    """Labels after noise.

    Attributes:
        labels: int32 [N].
        is_noisy: bool [N], true where the label differs from the true one.
        effective_rate: fraction of labels that differ; on average
            rate * (1 - 1/num_classes), because a draw may hit the true class.
    """

    labels: Int32[np.ndarray, "n"]
    is_noisy: Bool[np.ndarray, "n"]
    effective_rate: float


def add_label_noise(
    seed: int,
    example_ids: Int[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    num_classes: int,
    rate: float,
) -> NoisyLabels:
    """Replaces each label, with probability ``rate``, by a uniform draw of a class.

    The draw is over all classes and may hit the true one: such an example counts as
    clean. What happens to an example is a function of (seed, id, rate), so it is the
    same in every subset, order, batch and process; the examples changed at a rate
    are among those changed at a higher rate, to the same labels.

    Args:
        seed: selects the draw.
        example_ids: [N] ids, each at least 0.
        labels: [N] true labels.
        num_classes: number of classes.
        rate: probability in [0, 1].

    Returns:
        NoisyLabels with N entries, in the order given.

    Raises:
        DataError: where the rate is outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise DataError(f"dataset.label_noise={rate} must be between 0 and 1")
    true_labels = np.asarray(labels, np.int32)
    num_blocks = int(np.max(example_ids, initial=-1)) + 1
    bits = random_bits(seed, "label noise", num_blocks)[example_ids]
    is_replaced = unit_interval(bits[:, 0]) < rate
    drawn = integers_below(bits[:, 1], num_classes).astype(np.int32)
    noisy_labels = np.where(is_replaced, drawn, true_labels)
    is_noisy = noisy_labels != true_labels
    effective_rate = float(is_noisy.mean()) if is_noisy.size else 0.0
    return NoisyLabels(noisy_labels, is_noisy, effective_rate)


def draw_labels(
    seed: int, ids: Int[np.ndarray, "n"], num_classes: int, rate: float
) -> Int32[np.ndarray, "n"]:
    """Draws label noise before any label is known.

    Returns:
        int32 [N]: the label that ``add_label_noise`` gives the example, or -1 where it
        leaves the true one.

    Raises:
        DataError: where the rate is outside [0, 1].
    """
    unknown = np.full(len(ids), KEPT, np.int32)
    return add_label_noise(seed, ids, unknown, num_classes, rate).labels


def label_hash(example_ids: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"]) -> str:
    """Returns 32 hex digits that identify which label each example has.

    Returns:
        The hash of the (id, label) pairs in the order of the ids, so the order in
        which they are given does not matter; the same on every machine.
    """
    order = np.argsort(example_ids, kind="stable")
    pairs = np.stack([np.asarray(example_ids), np.asarray(labels)], axis=1)[order]
    return hashlib.blake2b(pairs.astype("<i8").tobytes(), digest_size=16).hexdigest()


class Selection(NamedTuple):
    """What a run takes from a data set; the same on every process.

    Attributes:
        source: in memory or on disk.
        train_ids: int64 [N], sorted.
        validation_ids: int64 [V], sorted; may be empty.
        labels: int32 [N], of the training examples, noise included. Of a set on disk
            only those that noise has drawn, -1 for the others: as from ``draw_labels``.
        is_noisy: bool [N], whether the label differs from the true class.
        noise_hash: of ``labels``; see ``label_hash``.
        effective_noise_rate: fraction of training labels that differ from the true.
        size: pixels of the images of a set on disk.
        reading: how a set on disk is read.
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
    def is_streamed(self) -> bool:
        """Whether the set is on disk and read as it is needed."""
        return isinstance(self.source, Stream)

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
    size: ImageSize = ImageSize(),
    reading: Reading = Reading(),
) -> Selection:
    """Draws validation split, subset and label noise, functions of (seed, example id).

    Of a set on disk the records whose label noise has redrawn are read, to know which
    of the draws have hit the true class; without noise nothing is read.

    Args:
        source: from ``load_source`` or ``find_stream``.
        seed: selects all draws.
        num_validation: number of training examples to hold out.
        num_train: number to train on; None takes all that remain.
        label_noise: probability in [0, 1] that a training label is drawn anew.
        size: for sets on disk.
        reading: for sets on disk.

    Raises:
        DataError: as ``split_examples``, ``add_label_noise`` and ``stream_batches``.
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
