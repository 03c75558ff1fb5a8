"""What a run reads, on the devices: training batches, scored splits, the probe.

A set in memory lies on the devices, which gather and augment. Of a set on disk this
process decodes, crops and augments its share of each batch, and what is left to the
devices is normalising. Either way a batch is a function of (seed, step).
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from fisher_jax import parallel
from fisher_jax.data.batches import batch_indices, fresh_indices
from fisher_jax.data.device import (
    Augmentation,
    DeviceSplit,
    ScoredBatch,
    ScoredBatches,
    TrainingBatch,
    UngatheredBatches,
    as_rows,
    channel_statistics,
    normalised,
    scored_batches,
    training_batch,
)
from fisher_jax.data.image_set import Source
from fisher_jax.data.selection import Selection
from fisher_jax.data.stream import (
    Stream,
    evaluation_batches,
    read_images,
    split_size,
    stream_batches,
    stream_statistics,
)
from fisher_jax.data.stream_reading import Batch, Share, StreamSplit
from fisher_jax.measure import Probe, Splits

# From the steps of a call of the compiled step to what it takes. Several steps, which a
# set on disk has not, take ungathered batches.
BatchOf = Callable[[range], TrainingBatch | UngatheredBatches]


class FeedSettings(NamedTuple):
    """What a run is to read.

    Attributes:
        seed: selects the order of the examples.
        batch_size: of the global batch.
        augmentation: of training batches.
        augment_key: of a set in memory, the step is folded into it; a set on disk is
            augmented by draws of the seed.
        scored_rows: of the training examples, to be scored.
        scored_batch_size: examples that are scored at a time.
        probe: rows of the training examples.
    """

    seed: int
    batch_size: int
    augmentation: Augmentation
    augment_key: Key[Array, ""]
    scored_rows: Int[np.ndarray, " K"]
    scored_batch_size: int
    probe: Probe


class Feed(NamedTuple):
    """All that a run reads.

    Attributes:
        open_batches: from the first step and the one behind the last to their batches,
            which are asked for in order; closing it ends what reads ahead.
        splits: what is scored.
        probe_examples: the training examples, or those that the probe needs.
        probe: rows of ``probe_examples``.
        fresh_examples: from a step to examples that are drawn anew at each, as many as
            the probe has for Tr(F), and their rows in what is returned.
    """

    open_batches: Callable[[int, int], AbstractContextManager[BatchOf]]
    splits: Splits
    probe_examples: DeviceSplit
    probe: Probe
    fresh_examples: Callable[[int], tuple[DeviceSplit, Int[np.ndarray, " F"]]]


def gather_program(augmentation: Augmentation, mesh: Mesh) -> jax.stages.Wrapped:
    """`training_batch`, compiled: from a split on every device to a batch over them."""
    sharding = parallel.split_over_devices(mesh)
    program = partial(training_batch, augmentation=augmentation)
    return jax.jit(program, out_shardings=(sharding, sharding))


def make_feed(data: Selection, mesh: Mesh, settings: FeedSettings) -> Feed:
    """Puts a set in memory on the devices, or opens one on disk.

    Args:
        mesh: batches are split over it, everything else is on every device.

    Raises:
        DataError: a set on disk is damaged; the iterators raise it too.
        UserError: it is on disk, and the devices do not divide ``scored_batch_size``.
    """
    if isinstance(data.source, Stream):
        return _from_stream(data.source, data, mesh, settings)
    return _from_memory(data.source, data, mesh, settings)


def _from_memory(
    source: Source, data: Selection, mesh: Mesh, settings: FeedSettings
) -> Feed:
    seed, probe = settings.seed, settings.probe
    train_images = source.train.images[data.train_ids]
    statistics = channel_statistics(train_images)

    def put(images: np.ndarray, labels: np.ndarray, noisy: np.ndarray) -> DeviceSplit:
        values = (as_rows(images), labels, noisy, *statistics)
        placed = parallel.place(values, parallel.replicated(mesh))
        return DeviceSplit(*placed, image_shape=images.shape[1:])

    place_rows = partial(parallel.place_rows, mesh=mesh)
    scored = partial(
        scored_batches,
        batch_size=settings.scored_batch_size,
        num_devices=mesh.size,
        place_rows=place_rows,
    )

    def scored_clean(images: np.ndarray, labels: np.ndarray) -> ScoredBatches:
        return partial(scored, put(images, labels, np.zeros(len(labels), bool)))

    train = put(train_images, data.labels, data.is_noisy)
    gather = gather_program(settings.augmentation, mesh)

    def batch_rows(step: int) -> Int[np.ndarray, " B"]:
        return batch_indices(seed, step, len(data.labels), settings.batch_size)

    def batch_of(steps: range) -> TrainingBatch | UngatheredBatches:
        key, step = settings.augment_key, steps.start
        if len(steps) == 1:
            return gather(train, place_rows(batch_rows(step)), key, np.int32(step))
        table = np.stack([*map(batch_rows, steps)])
        rows = parallel.place(table, parallel.split_over_devices(mesh, 1))
        return UngatheredBatches(train, rows, key)

    def fresh_examples(step: int) -> tuple[DeviceSplit, Int[np.ndarray, " F"]]:
        count = probe.fisher_ids.size
        return train, fresh_indices(seed, step, len(data.labels), count)

    validating = (array[data.validation_ids] for array in source.train)
    splits = Splits(
        train=partial(scored, train, settings.scored_rows),
        validation=scored_clean(*validating) if data.validation_ids.size else None,
        test=scored_clean(*source.test),
    )
    return Feed(
        lambda start, stop: nullcontext(batch_of), splits, train, probe, fresh_examples
    )


def _from_stream(
    stream: Stream, data: Selection, mesh: Mesh, settings: FeedSettings
) -> Feed:
    """The probe's examples are read at once, all else as it is needed.

    Every process reads its share of the batches, and all of the probe.
    """
    parallel.check_divides("measure.batch_size", settings.scored_batch_size, mesh)
    statistics = stream_statistics(
        stream.train, data.train_ids, size=data.size, reading=data.reading
    )
    statistics = parallel.place(statistics, parallel.replicated(mesh))
    put = partial(_put_batch, mesh=mesh, statistics=statistics)
    normalise = jax.jit(normalised, out_shardings=parallel.split_over_devices(mesh))
    scored = partial(_scored, data, put, settings.scored_batch_size, mesh.size)
    shown = settings.scored_rows
    rows, probe = _gathered(settings.probe)
    read = partial(_read_training_examples, stream, data, mesh, statistics)

    @contextmanager
    def open_batches(start: int, stop: int) -> Iterator[BatchOf]:
        batches = stream_batches(
            stream.train,
            data.train_ids,
            seed=settings.seed,
            batch_size=settings.batch_size,
            start_step=start,
            stop_step=stop,
            augment=settings.augmentation.mode,
            drawn_labels=data.labels,
            size=data.size,
            share=_share(),
            reading=data.reading,
        )

        def batch_of(steps: range) -> TrainingBatch:
            assert len(steps) == 1
            examples = put(next(batches))
            return normalise(examples), examples.labels

        with closing(batches):
            yield batch_of

    def fresh_examples(step: int) -> tuple[DeviceSplit, Int[np.ndarray, " F"]]:
        count = probe.fisher_ids.size
        drawn = fresh_indices(settings.seed, step, len(data.labels), count)
        return read(drawn), np.arange(count, dtype=np.int32)

    return Feed(
        open_batches=open_batches,
        splits=Splits(
            train=partial(
                scored, stream.train, data.train_ids[shown], data.labels[shown]
            ),
            validation=(
                partial(scored, stream.train, data.validation_ids, None)
                if data.validation_ids.size
                else None
            ),
            test=partial(scored, stream.test, np.arange(split_size(stream.test)), None),
        ),
        probe_examples=read(rows),
        probe=probe,
        fresh_examples=fresh_examples,
    )


def _scored(
    data: Selection,
    put: Callable[[Batch], DeviceSplit],
    batch_size: int,
    num_devices: int,
    split: StreamSplit,
    ids: Int[np.ndarray, " K"],
    drawn_labels: Int[np.ndarray, " K"] | None,
) -> Generator[ScoredBatch, None, None]:
    """Yields examples of a stream; this process decodes its share of each batch."""
    # Not more rows than examples, rounded up to what the devices divide.
    size = min(batch_size, -(-len(ids) // num_devices) * num_devices)
    batches = evaluation_batches(
        split,
        ids,
        batch_size=size,
        drawn_labels=drawn_labels,
        size=data.size,
        share=_share(),
        reading=data.reading,
    )
    with closing(batches):
        for number, batch in enumerate(batches):
            yield ScoredBatch(put(batch), min(size, len(ids) - number * size))


def _read_training_examples(
    stream: Stream,
    data: Selection,
    mesh: Mesh,
    statistics: tuple[Array, Array],
    rows: Int[np.ndarray, " R"],
) -> DeviceSplit:
    """Reads some of the training examples onto every device."""
    images = read_images(
        stream.train,
        data.train_ids[rows],
        drawn_labels=data.labels[rows],
        size=data.size,
        reading=data.reading,
    )
    values = (as_rows(images.images), images.labels, data.is_noisy[rows], *statistics)
    placed = parallel.place(values, parallel.replicated(mesh))
    return DeviceSplit(*placed, image_shape=images.images.shape[1:])


def _share() -> Share:
    return Share(jax.process_index(), jax.process_count())


def _put_batch(
    batch: Batch, mesh: Mesh, statistics: tuple[Array, Array]
) -> DeviceSplit:
    """Puts this process's rows on its devices, as a part of the global batch."""
    sharding = parallel.split_over_devices(mesh)
    pixels, labels, is_noisy = (
        jax.make_array_from_process_local_data(sharding, rows)
        for rows in (batch.images, batch.labels, batch.is_noisy)
    )
    shape = batch.images.shape[1:]
    return DeviceSplit(pixels, labels, is_noisy, *statistics, image_shape=shape)


def _gathered(probe: Probe) -> tuple[Int[np.ndarray, " R"], Probe]:
    """Returns all rows that a probe needs, and the probe as places among them."""
    rows = np.unique(np.concatenate(probe))
    if not rows.size:
        rows = np.zeros(1, np.int32)
    places = (np.searchsorted(rows, ids).astype(np.int32) for ids in probe)
    return rows, Probe(*places)
