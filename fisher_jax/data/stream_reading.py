"""The reading of batches from disk: Grain runs threads or processes that decode ahead.

A plan decides all that each batch holds; how it is read changes speed and memory only.
"""

import functools
import gc
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from fisher_jax.data.batches import batch_indices
from fisher_jax.data.crops import NUM_WORDS, crop_pixels, needs_words
from fisher_jax.data.random_bits import random_words
from fisher_jax.data.record_files import (
    Example,
    Shard,
    check_label,
    keep_image_memory,
    open_image,
    read_one,
)
from fisher_jax.errors import DataError, one_line
from fisher_jax.host.machine import count_cores

KEPT = -1  # in place of a drawn label: the true one stays
FILLER = -1  # in place of an example's id: nothing is read
# Images that a worker decodes at a time: few enough that all workers have part in the
# first batch, many enough that handing them over costs nothing.
ROWS_PER_CHUNK = 16
# Bytes from which on an array goes from a worker process through shared memory.
_SMALLEST_SHARED = 2**16
# batch_indices keeps an epoch's order, but threads that come to a new epoch together
# would each compute it.
_order_lock = threading.Lock()


class StreamSplit(NamedTuple):
    """One split on disk; an example's id is its place in TFDS's order.

    Attributes:
        shards: its files.
        ends: int64, for each file the number of examples up to its end.
        num_channels: 1, 3 or 4.
        num_classes: number of classes C.
    """

    shards: tuple[Shard, ...]
    ends: Int64[np.ndarray, "s"]
    num_channels: int
    num_classes: int


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
        process_index: this process's number, as ``jax.process_index()``.
        process_count: number of processes, as ``jax.process_count()``.
    """

    process_index: int = 0
    process_count: int = 1


class Reading(NamedTuple):
    """How reading is done; changes its speed and memory, never its result.

    Attributes:
        num_threads: decoding threads in this process; 0: one for each core that the
            process may run on.
        num_workers: processes that decode instead of these threads; 0: none. Threads
            share an interpreter, which takes a few percent of the time, so beyond some
            16 cores processes are faster. They need as much room as the read-ahead in
            /dev/shm.
        read_ahead: batches to have ready or under way, at least 1.
    """

    num_threads: int = 0
    num_workers: int = 0
    read_ahead: int = 2


class ReadingPlan(NamedTuple):
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
        """Rows that this process reads."""
        return self.batch_size // self.share.process_count

    @property
    def chunks_per_step(self) -> int:
        """Pieces that these rows are read in."""
        return -(-self.local_size // ROWS_PER_CHUNK)


def read_batches(plan: ReadingPlan, reading: Reading) -> Generator[Batch, None, None]:
    """Yields the plan's batches, the next one put together while one is used.

    All of Grain runs in one thread of its own: an exception that a signal raises in the
    main thread would leave its threads and processes half started.
    """
    reader = _Reader(plan, reading)
    thread = ThreadPoolExecutor(1, thread_name_prefix="grain-batches")
    try:
        steps = range(plan.first_step, plan.last_step)
        following = thread.submit(reader.next_batch) if steps else None
        for step in steps:
            assert following is not None
            batch = following.result()
            if step + 1 < plan.last_step:
                following = thread.submit(reader.next_batch)
            yield batch
    finally:
        thread.submit(reader.close).result()
        thread.shutdown()


class _Reader:
    """A plan's batches in order; nothing is started before the first one."""

    def __init__(self, plan: ReadingPlan, reading: Reading) -> None:
        self._plan, self._reading = plan, reading
        self._chunks: Any = None

    def next_batch(self) -> Batch:
        if self._chunks is None:
            self._chunks = _start_reading(self._plan, self._reading)
        return _joined(self._plan, self._chunks)

    def close(self) -> None:
        if self._chunks is None:
            return
        self._chunks.close()
        self._chunks = None
        # Grain's iterator refers to itself and holds the last shared memory, which the
        # interpreter would complain of at its end.
        if self._reading.num_workers:
            gc.collect()


def _start_reading(plan: ReadingPlan, reading: Reading) -> Any:
    """Returns Grain's iterator over the chunks of all steps, in order."""
    import grain
    from absl import flags

    num_chunks = (plan.last_step - plan.first_step) * plan.chunks_per_step
    num_ahead = max(1, reading.read_ahead) * plan.chunks_per_step
    num_threads = count_threads(reading)
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


def count_threads(reading: Reading) -> int:
    """Returns the threads to start: by default one for each core we may run on."""
    return reading.num_threads or count_cores()


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


def _joined(plan: ReadingPlan, chunks: Any) -> Batch:
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
                "memory ran out, lower dataset.num_workers or dataset.read_ahead"
            ) from error
        stop = start + len(chunk.ids)
        for whole, part in zip(batch, chunk, strict=True):
            whole[start:stop] = part
        start = stop
    return batch


def _chunk(plan: ReadingPlan, index: int) -> Batch:
    """Returns some neighbouring rows of a batch, decoded; runs in the workers."""
    step, part = divmod(index, plan.chunks_per_step)
    step += plan.first_step
    first = part * ROWS_PER_CHUNK
    last = min(first + ROWS_PER_CHUNK, plan.local_size)
    # Rows of the global batch, so that draws do not depend on the processes.
    rows = np.arange(first, last) + plan.share.process_index * plan.local_size
    places = _places(plan, step, rows)
    shape = (len(rows), plan.size.crop, plan.size.crop, plan.split.num_channels)
    images = np.zeros(shape, np.uint8)
    true_labels = np.zeros(len(rows), np.int32)
    is_valid = places != FILLER
    for i in np.flatnonzero(is_valid):
        example = example_at(plan.split, int(plan.ids[places[i]]))
        true_labels[i] = check_label(example, plan.split.num_classes)
        images[i] = _pixels(plan, example, step, int(rows[i]))
    labels = true_labels
    if plan.drawn_labels is not None:
        drawn = np.where(is_valid, plan.drawn_labels[places], KEPT)
        labels = np.where(drawn == KEPT, true_labels, drawn)
    return Batch(
        images=images,
        labels=labels,
        is_noisy=labels != true_labels,
        is_valid=is_valid,
        ids=np.where(is_valid, plan.ids[places], FILLER),
    )


def _places(
    plan: ReadingPlan, step: int, rows: Int64[np.ndarray, "r"]
) -> Int64[np.ndarray, "r"]:
    """Returns where in ``plan.ids`` each row's example is; -1 for a filler."""
    if plan.seed is None:
        places = step * plan.batch_size + rows
        return np.where(places < len(plan.ids), places, FILLER)
    with _order_lock:
        indices = batch_indices(plan.seed, step, len(plan.ids), plan.batch_size)
    return indices[rows].astype(np.int64)


def example_at(split: StreamSplit, example_id: int) -> Example:
    """Returns an example, still encoded."""
    file = int(np.searchsorted(split.ends, example_id, side="right"))
    shard = split.shards[file]
    before = int(split.ends[file - 1]) if file else 0
    return read_one(shard, shard.start + example_id - before)


def _pixels(
    plan: ReadingPlan, example: Example, step: int, row: int
) -> UInt8[np.ndarray, "crop crop c"]:
    """Returns what the network sees of an example in this row of this step."""
    image = open_image(example, plan.split.num_channels)
    words = None
    if plan.seed is not None and needs_words(plan.augment):
        words = random_words(plan.seed, "crop and flip", NUM_WORDS, step=step, row=row)
    return crop_pixels(
        image, plan.augment, words, resize=plan.size.resize, crop=plan.size.crop
    )
