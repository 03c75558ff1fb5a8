"""Sets that do not fit in memory: batches decoded from the files as they are needed.

What a batch holds is a function of (seed, step) and of nothing else, as for sets in
memory: the same order, split and label noise, read by random access. So any step can
be started at, and neither the number of processes nor that of workers changes a byte.
"""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from fisher_jax.data.batches import steps_per_epoch
from fisher_jax.data.crops import needs_words
from fisher_jax.data.image_set import ImageSet
from fisher_jax.data.prepared import open_prepared
from fisher_jax.data.random_bits import random_bits
from fisher_jax.data.record_files import Shard, check_label
from fisher_jax.data.stream_reading import (
    ROWS_PER_CHUNK,
    Batch,
    ImageSize,
    Reading,
    ReadingPlan,
    Share,
    StreamSplit,
    count_threads,
    example_at,
    read_batches,
)
from fisher_jax.errors import DataError


class Stream(NamedTuple):
    """A prepared set whose files were found whole; ``Source`` for sets on disk.

    Attributes:
        name: the name it was asked for by.
        train: the training split, before any subset, validation split or label noise.
        test: the test split (the validation split where none with labels is published).
        num_classes: number of classes C.
        label_names: C names, in the order of the labels.
    """

    name: str
    train: StreamSplit
    test: StreamSplit
    num_classes: int
    label_names: tuple[str, ...]


def open_stream(name: str, prepared_dir: Path) -> Stream:
    """Opens a prepared TFDS image-classification set for reading by index.

    Raises:
        DataError: as ``fisher_jax.data.prepared.open_prepared``.
    """
    prepared = open_prepared(name, prepared_dir)

    def split(shards: tuple[Shard, ...]) -> StreamSplit:
        ends = np.cumsum([shard.stop - shard.start for shard in shards])
        return StreamSplit(shards, ends, prepared.num_channels, prepared.num_classes)

    return Stream(
        name=name,
        train=split(prepared.train),
        test=split(prepared.test),
        num_classes=prepared.num_classes,
        label_names=prepared.label_names,
    )


def split_size(split: StreamSplit) -> int:
    """Returns the number of examples of a split."""
    return int(split.ends[-1])


def stream_batches(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"],
    *,
    seed: int,
    batch_size: int,
    start_step: int,
    stop_step: int,
    augment: str = "none",
    drawn_labels: Int32[np.ndarray, "n"] | None = None,
    size: ImageSize = ImageSize(),
    share: Share = Share(),
    reading: Reading = Reading(),
) -> Generator[Batch, None, None]:
    """Yields the batches of the steps from ``start_step`` on.

    Row r of step s holds example ``ids[batch_indices(seed, s, N, batch_size)[r]]``,
    augmented by draws that are a function of (seed, s, r).

    Args:
        ids: [N] examples to train on, in the order of ``split_examples``.
        batch_size: of the global batch, over all processes.
        start_step: the first step, counted from 0 over the whole run.
        stop_step: one past the last step.
        augment: "none", "flip" or "standard"; see `fisher_jax.data.crops.crop_pixels`.
        drawn_labels: [N] as from ``draw_labels``; None leaves all labels.

    Yields:
        Batch of ``batch_size / share.process_count`` rows. Closing the iterator ends
        its threads and processes.

    Raises:
        DataError: at once where an argument does not fit; from the iterator where a
            file is missing or damaged, a record cannot be decoded or has no valid
            label, or a worker process has died. The message names file and record.
    """
    steps_per_epoch(len(ids), batch_size)
    _check_batch_size("train.batch_size", batch_size, share)
    needs_words(augment)
    plan = ReadingPlan(
        split=split,
        ids=np.asarray(ids, np.int64),
        drawn_labels=drawn_labels,
        seed=seed,
        augment=augment,
        size=size,
        batch_size=batch_size,
        share=share,
        first_step=start_step,
        last_step=stop_step,
    )
    return read_batches(plan, reading)


def evaluation_batches(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"] | None = None,
    *,
    batch_size: int,
    drawn_labels: Int32[np.ndarray, "n"] | None = None,
    size: ImageSize = ImageSize(),
    share: Share = Share(),
    reading: Reading = Reading(),
) -> Generator[Batch, None, None]:
    """Yields every example once, in order, not augmented.

    All batches have one size, also on every process; rows that fill up the last one
    are not valid and cost nothing.

    Args:
        ids: [N] examples; None takes all.
        batch_size: of the global batch, over all processes.

    Yields:
        Batch, ceil(N / batch_size) times.

    Raises:
        DataError: as ``stream_batches``.
    """
    _check_batch_size("measure.batch_size", batch_size, share)
    ids = np.arange(split_size(split)) if ids is None else np.asarray(ids, np.int64)
    plan = ReadingPlan(
        split=split,
        ids=ids,
        drawn_labels=drawn_labels,
        seed=None,
        augment="none",
        size=size,
        batch_size=batch_size,
        share=share,
        first_step=0,
        last_step=-(-len(ids) // batch_size),
    )
    return read_batches(plan, reading)


def read_images(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"],
    *,
    drawn_labels: Int32[np.ndarray, "n"] | None = None,
    size: ImageSize = ImageSize(),
    reading: Reading = Reading(),
) -> ImageSet:
    """Reads examples into memory, not augmented: for fixed probes of Tr(F) and Tr(H).

    Args:
        ids: [N] examples, at least one.

    Raises:
        DataError: as ``stream_batches``.
    """
    images = np.empty((len(ids), size.crop, size.crop, split.num_channels), np.uint8)
    labels = np.empty(len(ids), np.int32)
    start = 0
    for batch in evaluation_batches(
        split,
        ids,
        batch_size=min(len(ids), 4 * ROWS_PER_CHUNK),
        drawn_labels=drawn_labels,
        size=size,
        reading=reading,
    ):
        stop = start + int(batch.is_valid.sum())
        images[start:stop] = batch.images[: stop - start]
        labels[start:stop] = batch.labels[: stop - start]
        start = stop
    return ImageSet(images, labels)


def read_labels(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"],
    *,
    reading: Reading = Reading(),
) -> Int32[np.ndarray, "n"]:
    """Returns the true labels of some examples; no image is decoded.

    The whole records are read all the same, because a label stands inside of one.

    Raises:
        DataError: where a file is missing or damaged or a record has no valid label.
    """

    def label_of(example_id: int) -> int:
        return check_label(example_at(split, example_id), split.num_classes)

    with ThreadPoolExecutor(count_threads(reading)) as pool:
        labels = list(pool.map(label_of, np.asarray(ids).tolist()))
    return np.array(labels, np.int32)


def stream_statistics(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"],
    *,
    num_images: int = 1000,
    size: ImageSize = ImageSize(),
    reading: Reading = Reading(),
) -> tuple[Float32[np.ndarray, "c"], Float32[np.ndarray, "c"]]:
    """Returns each channel's mean and standard deviation over a sample of images.

    Args:
        num_images: how many of them make the sample, a function of N alone.

    Returns:
        (mean, std) as from ``channel_statistics``.

    Raises:
        DataError: as ``stream_batches``.
    """
    # This imports jax, which worker processes and readers of this file do without.
    from fisher_jax.data.device import channel_statistics

    priority = random_bits(0, "statistics sample", len(ids))[:, 0]
    sample = np.sort(np.argsort(priority, kind="stable")[:num_images])
    images = read_images(split, np.asarray(ids)[sample], size=size, reading=reading)
    return channel_statistics(images.images)


def _check_batch_size(key: str, batch_size: int, share: Share) -> None:
    """Raises DataError where a batch cannot be shared out evenly."""
    count = share.process_count
    if batch_size < 1 or batch_size % count:
        nearest = max(1, batch_size // count) * count
        raise DataError(
            f"{key}={batch_size} is not a multiple of the number of processes, "
            f"{count}; the nearest multiple: {nearest}"
        )
