"""Sets that do not fit in memory: batches decoded from the files as they are needed.

What a batch holds is a function of (seed, step) and of nothing else, as for sets in
memory: the same order, split and label noise, read by random access. So any step can
be started at, and neither the number of processes nor that of workers changes a byte.
Grain runs the workers and the read-ahead.
"""

import functools
import gc
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64, UInt8

from fisher_jax.data.batches import batch_indices, steps_per_epoch
from fisher_jax.data.crops import NUM_WORDS, crop_pixels, needs_words
from fisher_jax.data.errors import DataError
from fisher_jax.data.image_set import ImageSet
from fisher_jax.data.label_noise import add_label_noise
from fisher_jax.data.random_bits import random_bits, random_words
from fisher_jax.data.records import (
    Example,
    Shard,
    check_label,
    keep_image_memory,
    open_image,
    read_one,
)
from fisher_jax.data.tfds_prepared import open_prepared
from fisher_jax.errors import one_line

_KEPT = -1
_FILLER = -1
# Images that a worker decodes at a time: few enough that all workers have part in the
# first batch, many enough that handing them over costs nothing.
_ROWS_PER_CHUNK = 16
# Bytes from which on an array goes from a worker process through shared memory.
_SMALLEST_SHARED = 2**16
# batch_indices keeps an epoch's order, but threads that come to a new epoch together
# would each compute it.
_order_lock = threading.Lock()


class StreamSplit(NamedTuple):
    """One split on disk; an example's id is its place in TFDS's order.

    Attributes:
        shards: Its files.
        ends: int64, for each file the number of examples up to its end.
        num_channels: 1, 3 or 4.
        num_classes: Number of classes C.
    """

    shards: tuple[Shard, ...]
    ends: Int64[np.ndarray, "s"]
    num_channels: int
    num_classes: int


class Stream(NamedTuple):
    """A prepared set whose files were found whole; `Source` for sets on disk.

    Attributes:
        name: The name it was asked for by.
        train: The training split, before any subset, validation split or label noise.
        test: The test split (the validation split where none with labels is published).
        num_classes: Number of classes C.
        label_names: C names, in the order of the labels.
    """

    name: str
    train: StreamSplit
    test: StreamSplit
    num_classes: int
    label_names: tuple[str, ...]


class Batch(NamedTuple):
    """This process's rows of a batch, in host memory.

    Attributes:
        images: uint8 [B, H, W, C]; zeros where not valid.
        labels: int32 [B], label noise included; 0 where not valid.
        is_noisy: bool [B], whether the label differs from the true class.
        is_valid: bool [B]; false for rows that only fill up the last batch of an
            evaluation.
        ids: int64 [B], example ids; -1 where not valid.
    """

    images: UInt8[np.ndarray, "b h w c"]
    labels: Int32[np.ndarray, "b"]
    is_noisy: Bool[np.ndarray, "b"]
    is_valid: Bool[np.ndarray, "b"]
    ids: Int64[np.ndarray, "b"]


class ImageSize(NamedTuple):
    """Pixels: the shorter side is resized to ``resize``, the centre ``crop`` kept."""

    resize: int = 256
    crop: int = 224


class Share(NamedTuple):
    """The part of every batch that this process decodes: rows in one piece.

    Attributes:
        process_index: This process's number, as ``jax.process_index()``.
        process_count: Number of processes, as ``jax.process_count()``.
    """

    process_index: int = 0
    process_count: int = 1


class Reading(NamedTuple):
    """How reading is done; changes its speed and memory, never its result.

    Attributes:
        num_threads: Decoding threads in this process; 0: one for each core that the
            process may run on.
        num_workers: Processes that decode instead of these threads; 0: none. Threads
            share an interpreter, which takes a few percent of the time, so beyond some
            16 cores processes are faster. They need as much room as the read-ahead in
            /dev/shm.
        read_ahead: Batches to have ready or under way, at least 1.
    """

    num_threads: int = 0
    num_workers: int = 0
    read_ahead: int = 2


class _Plan(NamedTuple):
    """All that decides what each batch holds; goes to worker processes."""

    split: StreamSplit
    ids: Int64[np.ndarray, "n"]
    drawn_labels: Int32[np.ndarray, "n"] | None
    seed: int | None  # None: in the order of ids, once
    augment: str
    size: ImageSize
    batch_size: int
    share: Share
    first_step: int
    last_step: int

    @property
    def local_size(self) -> int:
        return self.batch_size // self.share.process_count

    @property
    def chunks_per_step(self) -> int:
        return -(-self.local_size // _ROWS_PER_CHUNK)


def open_stream(name: str, prepared_dir: Path) -> Stream:
    """Opens a prepared TFDS image-classification set for reading by index.

    Args:
        name: The set's name, for messages and the result.
        prepared_dir: Its folder: data_dir/name[/config]/version.

    Raises:
        DataError: As `fisher_jax.data.tfds_prepared.open_prepared`.
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


def draw_labels(
    seed: int, ids: Int[np.ndarray, "n"], num_classes: int, rate: float
) -> Int32[np.ndarray, "n"]:
    """Draws label noise before any label is known.

    Args:
        seed: Selects the draw.
        ids: [N] example ids.
        num_classes: Number of classes.
        rate: Probability in [0, 1].

    Returns:
        int32 [N]: the label that `add_label_noise` gives the example, or -1 where it
        leaves the true one.

    Raises:
        DataError: Where the rate is outside [0, 1].
    """
    unknown = np.full(len(ids), _KEPT, np.int32)
    return add_label_noise(seed, ids, unknown, num_classes, rate).labels


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
    size: ImageSize = ImageSize(),  # noqa: B008  immutable
    share: Share = Share(),  # noqa: B008
    reading: Reading = Reading(),  # noqa: B008
) -> Generator[Batch, None, None]:
    """Yields the batches of the steps from ``start_step`` on.

    Row r of step s holds example ``ids[batch_indices(seed, s, N, batch_size)[r]]``,
    augmented by draws that are a function of (seed, s, r).

    Args:
        split: The training split.
        ids: [N] examples to train on, in the order of `split_examples`.
        seed: Selects orders and augmentation.
        batch_size: Of the global batch, over all processes.
        start_step: The first step, counted from 0 over the whole run.
        stop_step: One past the last step.
        augment: "none", "flip" or "standard"; see `fisher_jax.data.crops.crop_pixels`.
        drawn_labels: [N] as from `draw_labels`; None leaves all labels.
        size: Pixels of the result.
        share: This process's part of each batch.
        reading: Threads, processes, read-ahead.

    Yields:
        Batch of ``batch_size / share.process_count`` rows. Closing the iterator ends
        its threads and processes.

    Raises:
        DataError: At once where an argument does not fit; from the iterator where a
            file is missing or damaged, a record cannot be decoded or has no valid
            label, or a worker process has died. The message names file and record.
    """
    steps_per_epoch(len(ids), batch_size)
    _check_batch_size("train.batch_size", batch_size, share)
    needs_words(augment)
    plan = _Plan(
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
    return _batches(plan, reading)


def evaluation_batches(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"] | None = None,
    *,
    batch_size: int,
    drawn_labels: Int32[np.ndarray, "n"] | None = None,
    size: ImageSize = ImageSize(),  # noqa: B008  immutable
    share: Share = Share(),  # noqa: B008
    reading: Reading = Reading(),  # noqa: B008
) -> Generator[Batch, None, None]:
    """Yields every example once, in order, not augmented.

    All batches have one size, also on every process; rows that fill up the last one
    are not valid and cost nothing.

    Args:
        split: The split.
        ids: [N] examples; None takes all.
        batch_size: Of the global batch, over all processes.
        drawn_labels: [N] as from `draw_labels`; None leaves all labels.
        size: Pixels of the result.
        share: This process's part of each batch.
        reading: Threads, processes, read-ahead.

    Yields:
        Batch, ceil(N / batch_size) times.

    Raises:
        DataError: As `stream_batches`.
    """
    _check_batch_size("measure.batch_size", batch_size, share)
    ids = np.arange(split_size(split)) if ids is None else np.asarray(ids, np.int64)
    plan = _Plan(
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
    return _batches(plan, reading)


def read_images(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"],
    *,
    drawn_labels: Int32[np.ndarray, "n"] | None = None,
    size: ImageSize = ImageSize(),  # noqa: B008  immutable
    reading: Reading = Reading(),  # noqa: B008
) -> ImageSet:
    """Reads examples into memory, not augmented: for fixed probes of Tr(F) and Tr(H).

    Args:
        split: The split.
        ids: [N] examples, at least one.
        drawn_labels: [N] as from `draw_labels`; None leaves all labels.
        size: Pixels of the result.
        reading: Threads, processes, read-ahead.

    Raises:
        DataError: As `stream_batches`.
    """
    images = np.empty((len(ids), size.crop, size.crop, split.num_channels), np.uint8)
    labels = np.empty(len(ids), np.int32)
    start = 0
    for batch in evaluation_batches(
        split,
        ids,
        batch_size=min(len(ids), 4 * _ROWS_PER_CHUNK),
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
    reading: Reading = Reading(),  # noqa: B008  immutable
) -> Int32[np.ndarray, "n"]:
    """Returns the true labels of some examples; no image is decoded.

    The whole records are read all the same, because a label stands inside of one.

    Args:
        split: The split.
        ids: [N] examples.
        reading: Its threads are used.

    Raises:
        DataError: Where a file is missing or damaged or a record has no valid label.
    """

    def label_of(example_id: int) -> int:
        return check_label(_example(split, example_id), split.num_classes)

    with ThreadPoolExecutor(_num_threads(reading)) as pool:
        labels = list(pool.map(label_of, np.asarray(ids).tolist()))
    return np.array(labels, np.int32)


def stream_statistics(
    split: StreamSplit,
    ids: Int[np.ndarray, "n"],
    *,
    num_images: int = 1000,
    size: ImageSize = ImageSize(),  # noqa: B008  immutable
    reading: Reading = Reading(),  # noqa: B008
) -> tuple[Float32[np.ndarray, "c"], Float32[np.ndarray, "c"]]:
    """Returns each channel's mean and standard deviation over a sample of images.

    Args:
        split: The training split.
        ids: [N] examples to train on.
        num_images: How many of them make the sample, a function of N alone.
        size: Pixels.
        reading: Threads, processes, read-ahead.

    Returns:
        (mean, std) as from `channel_statistics`.

    Raises:
        DataError: As `stream_batches`.
    """
    # This imports jax, which worker processes and readers of this file do without.
    from fisher_jax.data.augment import channel_statistics

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
            f"{count}; the nearest that is: {nearest}"
        )


def _batches(plan: _Plan, reading: Reading) -> Generator[Batch, None, None]:
    """Yields the plan's batches, put together from chunks that Grain reads ahead."""
    chunks = _start_reading(plan, reading)
    try:
        for _ in range(plan.first_step, plan.last_step):
            yield _joined(plan, chunks)
    finally:
        chunks.close()
        del chunks
        # Grain's iterator refers to itself and holds the last shared memory, which the
        # interpreter would complain of at its end.
        if reading.num_workers:
            gc.collect()


def _start_reading(plan: _Plan, reading: Reading) -> Any:
    """Returns Grain's iterator over the chunks of all steps, in order."""
    import grain
    from absl import flags

    num_chunks = (plan.last_step - plan.first_step) * plan.chunks_per_step
    num_ahead = max(1, reading.read_ahead) * plan.chunks_per_step
    num_threads = _num_threads(reading)
    keep_image_memory(num_threads)
    chunks = grain.MapDataset.range(num_chunks).map(functools.partial(_chunk, plan))
    if not reading.num_workers:
        options = grain.ReadOptions(num_threads, max(num_ahead, num_threads))
        return iter(chunks.to_iter_dataset(options))
    # Grain reads flags of its own, which outside of absl's app nobody parses.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    per_worker = -(-num_ahead // reading.num_workers)
    workers = grain.MultiprocessingOptions(reading.num_workers, per_worker)
    # A worker does one thing at a time; its results wait in its queue.
    in_order = grain.experimental.WithOptionsIterDataset(
        chunks.to_iter_dataset(grain.ReadOptions(0, 0)),
        grain.experimental.DatasetOptions(min_shm_size=_SMALLEST_SHARED),
    )
    return iter(in_order.mp_prefetch(workers, _start_worker))


def _num_threads(reading: Reading) -> int:
    """Returns the threads to start: by default one for each core we may run on."""
    if reading.num_threads:
        return reading.num_threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker(index: int, count: int) -> None:
    """Sets up a worker process, which lives and dies by its parent alone."""
    import multiprocessing

    keep_image_memory(1)
    # Slurm and terminals send signals to every process; the parent still needs batches
    # while it saves its state.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)

    def die_with_parent() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()


def _joined(plan: _Plan, chunks: Any) -> Batch:
    """Returns the next batch."""
    shape = (plan.local_size, plan.size.crop, plan.size.crop, plan.split.num_channels)
    batch = Batch(
        images=np.empty(shape, np.uint8),
        labels=np.empty(plan.local_size, np.int32),
        is_noisy=np.empty(plan.local_size, bool),
        is_valid=np.empty(plan.local_size, bool),
        ids=np.empty(plan.local_size, np.int64),
    )
    start = 0
    for _ in range(plan.chunks_per_step):
        try:
            chunk = next(chunks)
        except DataError:
            raise
        # Grain's word for a worker process that has died.
        except RuntimeError as error:
            raise DataError(
                f"a process that decodes images has died ({one_line(error)}); if "
                "memory ran out, use fewer of them or less read-ahead"
            ) from error
        stop = start + len(chunk.ids)
        for whole, part in zip(batch, chunk, strict=True):
            whole[start:stop] = part
        start = stop
    return batch


def _chunk(plan: _Plan, index: int) -> Batch:
    """Returns some neighbouring rows of a batch, decoded; runs in the workers."""
    step, part = divmod(index, plan.chunks_per_step)
    step += plan.first_step
    first = part * _ROWS_PER_CHUNK
    last = min(first + _ROWS_PER_CHUNK, plan.local_size)
    # Rows of the global batch, so that draws do not depend on the processes.
    rows = np.arange(first, last) + plan.share.process_index * plan.local_size
    places = _places(plan, step, rows)
    shape = (len(rows), plan.size.crop, plan.size.crop, plan.split.num_channels)
    images = np.zeros(shape, np.uint8)
    true_labels = np.zeros(len(rows), np.int32)
    is_valid = places != _FILLER
    for i in np.flatnonzero(is_valid):
        example = _example(plan.split, int(plan.ids[places[i]]))
        true_labels[i] = check_label(example, plan.split.num_classes)
        images[i] = _pixels(plan, example, step, int(rows[i]))
    labels = true_labels
    if plan.drawn_labels is not None:
        drawn = np.where(is_valid, plan.drawn_labels[places], _KEPT)
        labels = np.where(drawn == _KEPT, true_labels, drawn)
    return Batch(
        images=images,
        labels=labels,
        is_noisy=labels != true_labels,
        is_valid=is_valid,
        ids=np.where(is_valid, plan.ids[places], _FILLER),
    )


def _places(
    plan: _Plan, step: int, rows: Int64[np.ndarray, "r"]
) -> Int64[np.ndarray, "r"]:
    """Returns where in ``plan.ids`` each row's example is; -1 for a filler."""
    if plan.seed is None:
        places = step * plan.batch_size + rows
        return np.where(places < len(plan.ids), places, _FILLER)
    with _order_lock:
        indices = batch_indices(plan.seed, step, len(plan.ids), plan.batch_size)
    return indices[rows].astype(np.int64)


def _example(split: StreamSplit, example_id: int) -> Example:
    """Returns an example, still encoded."""
    file = int(np.searchsorted(split.ends, example_id, side="right"))
    shard = split.shards[file]
    before = int(split.ends[file - 1]) if file else 0
    return read_one(shard, shard.start + example_id - before)


def _pixels(
    plan: _Plan, example: Example, step: int, row: int
) -> UInt8[np.ndarray, "crop crop c"]:
    """Returns what the network sees of an example in this row of this step."""
    image = open_image(example, plan.split.num_channels)
    words = None
    if plan.seed is not None and needs_words(plan.augment):
        words = random_words(plan.seed, "crop and flip", NUM_WORDS, step=step, row=row)
    return crop_pixels(
        image, plan.augment, words, resize=plan.size.resize, crop=plan.size.crop
    )
