import contextlib
import functools
import gc
import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_images import (
    encode,
    image_feature,
    label_feature,
    serialise,
    write_description,
    write_photographs,
    write_set,
    write_shards,
)
from fisher_jax.data import record_files
from fisher_jax.data.batches import batch_indices
from fisher_jax.data.device import channel_statistics
from fisher_jax.data.selection import add_label_noise, draw_labels, split_examples
from fisher_jax.data.sources import find_stream
from fisher_jax.data.stream import (
    Batch,
    ImageSize,
    Reading,
    Share,
    evaluation_batches,
    open_stream,
    read_images,
    split_size,
    stream_batches,
    stream_statistics,
)
from fisher_jax.errors import DataError

pytest.importorskip("grain", reason="SKIPPED LOUDLY: streaming needs grain")

NUM_IMAGES = 53
SIZE = ImageSize(resize=36, crop=32)
SIZES = ((50, 40), (40, 56), (36, 36), (90, 45))
LABELS = np.arange(NUM_IMAGES) % 10


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photographs(folder, NUM_IMAGES, num_files=5, num_test=11, sizes=SIZES)
    return folder


@pytest.fixture(scope="module")
def stream(data_dir):
    return open_stream("photos", data_dir / "photos" / "1.0.0")


@pytest.fixture(scope="module")
def all_images(stream):
    return read_images(stream.train, np.arange(NUM_IMAGES), size=SIZE)


def batches(stream, ids=None, start=0, stop=9, **options) -> list[Batch]:
    ids = np.arange(NUM_IMAGES) if ids is None else ids
    defaults = {"seed": 3, "batch_size": 20, "size": SIZE}
    return list(
        stream_batches(
            stream.train, ids, start_step=start, stop_step=stop, **defaults | options
        )
    )


def check_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for batch, expected in zip(one, other, strict=True):
        for array, expected_array in zip(batch, expected, strict=True):
            assert array.dtype == expected_array.dtype
            np.testing.assert_array_equal(array, expected_array)


# --- What a batch holds ---------------------------------------------------------------


def test_a_set_of_photographs_is_streamed_and_others_are_not(data_dir, tmp_path):
    found = find_stream("photos", str(data_dir))
    assert (found.name, found.num_classes) == ("photos", 10)
    assert split_size(found.train) == NUM_IMAGES
    assert split_size(found.test) == 11
    assert found.label_names == tuple(str(i) for i in range(10))
    write_set(tmp_path)
    assert find_stream("tiny", str(tmp_path)) is None
    assert find_stream("digits", None) is None
    with pytest.raises(DataError, match="cifar100 is not prepared in"):
        find_stream("cifar100", str(tmp_path))


def test_batches_hold_the_examples_that_sets_in_memory_would_give(stream, all_images):
    train_ids, validation_ids = split_examples(3, NUM_IMAGES, 9, None)
    streamed = batches(stream, train_ids)
    for step, batch in enumerate(streamed):
        ids = train_ids[batch_indices(3, step, len(train_ids), 20)]
        np.testing.assert_array_equal(batch.ids, ids)
        np.testing.assert_array_equal(batch.labels, LABELS[ids])
        np.testing.assert_array_equal(batch.images, all_images.images[ids])
        assert batch.is_valid.all()
        assert not batch.is_noisy.any()
        assert not set(batch.ids) & set(validation_ids)


@pytest.mark.parametrize("augment", ["none", "flip", "standard"])
def test_any_step_can_be_started_at(stream, augment):
    whole = batches(stream, augment=augment)
    for start in (1, 2, 5, 8):
        check_equal(batches(stream, start=start, augment=augment), whole[start:])
    assert batches(stream, start=9) == []


@pytest.mark.parametrize(
    "reading", [Reading(1, 0, 1), Reading(5, 0, 3), Reading(2, read_ahead=0)]
)
def test_threads_and_read_ahead_change_nothing(stream, reading):
    expected = batches(stream, augment="standard")
    check_equal(batches(stream, augment="standard", reading=reading), expected)


@pytest.mark.parametrize("count", [1, 2, 4, 20])
def test_processes_hold_the_rows_of_one_batch(stream, count):
    whole = batches(stream, stop=4, augment="standard")
    parts = [
        batches(stream, stop=4, augment="standard", share=Share(i, count))
        for i in range(count)
    ]
    joined = [
        Batch(*(np.concatenate(arrays) for arrays in zip(*of_step, strict=True)))
        for of_step in zip(*parts, strict=True)
    ]
    check_equal(joined, whole)


def test_augmentation_is_drawn_anew_for_each_step_and_seed(stream, all_images):
    """Of two epochs and two seeds, the same example never looks the same."""
    seen = {}
    for seed in (1, 2):
        for batch in batches(stream, seed=seed, stop=4, augment="standard"):
            for example_id, image in zip(batch.ids, batch.images, strict=True):
                seen.setdefault(int(example_id), []).append(image.tobytes())
    assert max(len(images) for images in seen.values()) > 2
    assert all(len(set(images)) == len(images) for images in seen.values())


def test_rows_of_a_step_have_draws_of_their_own(stream):
    ids = np.zeros(20, np.int64)
    (batch,) = batches(stream, ids, stop=1, augment="standard")
    assert len({image.tobytes() for image in batch.images}) == 20


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_label_noise_is_that_of_sets_in_memory(stream, rate):
    ids, _ = split_examples(5, NUM_IMAGES, 10, None)
    expected = add_label_noise(5, ids, LABELS[ids], 10, rate)
    drawn = draw_labels(5, ids, 10, rate)
    row = {int(example_id): i for i, example_id in enumerate(ids)}
    for batch in batches(stream, ids, drawn_labels=drawn):
        rows = [row[int(example_id)] for example_id in batch.ids]
        np.testing.assert_array_equal(batch.labels, expected.labels[rows])
        np.testing.assert_array_equal(batch.is_noisy, expected.is_noisy[rows])


# --- Evaluation -----------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "count"), [(20, 1), (53, 1), (60, 2), (8, 4)])
def test_evaluation_gives_every_example_once(stream, all_images, batch_size, count):
    of_processes = [
        list(
            evaluation_batches(
                stream.train, batch_size=batch_size, size=SIZE, share=Share(i, count)
            )
        )
        for i in range(count)
    ]
    assert {len(part) for part in of_processes} == {-(-NUM_IMAGES // batch_size)}
    ids = []
    for batch in itertools.chain(*of_processes):
        assert len(batch.ids) == batch_size // count
        valid = batch.ids[batch.is_valid]
        np.testing.assert_array_equal(
            batch.images[batch.is_valid], all_images.images[valid]
        )
        np.testing.assert_array_equal(batch.labels[batch.is_valid], LABELS[valid])
        assert (batch.ids[~batch.is_valid] == -1).all()
        assert not batch.images[~batch.is_valid].any()
        assert not batch.is_noisy.any()
        ids.extend(valid.tolist())
    assert sorted(ids) == list(range(NUM_IMAGES))


def test_evaluation_of_chosen_examples_with_noise(stream):
    ids = np.array([50, 2, 17, 31, 4])
    noisy = add_label_noise(1, ids, LABELS[ids], 10, 0.9)
    drawn = draw_labels(1, ids, 10, 0.9)
    first, second = evaluation_batches(
        stream.train, ids, batch_size=3, drawn_labels=drawn, size=SIZE
    )
    assert [*first.ids, *second.ids] == [*ids, -1]
    assert [*first.labels, *second.labels[:2]] == noisy.labels.tolist()
    assert [*first.is_noisy, *second.is_noisy] == [*noisy.is_noisy, False]
    images = read_images(stream.train, ids, drawn_labels=drawn, size=SIZE)
    np.testing.assert_array_equal(images.labels, noisy.labels)


def test_statistics_are_those_of_a_fixed_sample(stream, all_images):
    ids = np.arange(NUM_IMAGES)
    every = stream_statistics(stream.train, ids, size=SIZE)
    for values, expected in zip(every, channel_statistics(all_images[0]), strict=True):
        np.testing.assert_array_equal(values, expected)
    some = stream_statistics(stream.train, ids, num_images=20, size=SIZE)
    np.testing.assert_allclose(some[0], every[0], atol=0.1)
    assert not np.array_equal(some[0], every[0])


def test_grey_images(tmp_path):
    folder = tmp_path / "photos" / "1.0.0"
    folder.mkdir(parents=True)
    images = [np.full((30 + i, 40, 1), 20 * i, np.uint8) for i in range(6)]
    splits = {"train": [[serialise(encode(im), i) for i, im in enumerate(images)]]}
    splits["validation"] = splits["train"]
    # ImageNet's test split is published without labels.
    splits["test"] = [[serialise(encode(images[0]), -1)]]
    for split, shards in splits.items():
        write_shards(folder, "photos", split, shards)
    features = {"image": image_feature((-1, -1, 1)), "label": label_feature(6)}
    write_description(folder, "photos", splits, features)
    stream = open_stream("photos", folder)
    assert split_size(stream.test) == 6
    read = read_images(stream.test, np.arange(6), size=SIZE)
    assert read.images.shape == (6, 32, 32, 1)
    assert [np.unique(im).tolist() for im in read.images] == [
        [20 * i] for i in range(6)
    ]


# --- Arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 54}, "train.batch_size=54 must be between 1 and 53"),
        ({"batch_size": 0}, "train.batch_size=0 must be between 1 and 53"),
        (
            {"share": Share(0, 3)},
            "train.batch_size=20 is not a multiple of the number of processes, 3; the "
            "nearest multiple: 18",
        ),
        ({"augment": "flop"}, "dataset.augment='flop' must be one of none, flip"),
    ],
)
def test_bad_arguments_are_refused_at_once(stream, options, message):
    defaults = {"seed": 0, "batch_size": 20, "start_step": 0, "stop_step": 1}
    with pytest.raises(DataError, match=message):
        stream_batches(stream.train, np.arange(NUM_IMAGES), **defaults | options)


def test_a_bad_batch_size_of_an_evaluation(stream):
    with pytest.raises(DataError, match=r"measure.batch_size=5 is not a multiple of"):
        evaluation_batches(stream.train, batch_size=5, share=Share(0, 2))
    with pytest.raises(DataError, match=r"measure.batch_size=0"):
        evaluation_batches(stream.train, batch_size=0)


# --- Damage ---------------------------------------------------------------------------


@pytest.fixture
def copied_set(tmp_path) -> Path:
    """A set of its own, to be damaged: 6 files of 4 images."""
    sizes = {"train": (4,) * 6, "test": (2,)}
    write_set(tmp_path, shape=(40, 40, 3), sizes=sizes, image_format="JPEG")
    return tmp_path / "tiny" / "1.0.0"


def file_of(folder: Path, number: int) -> Path:
    return folder / f"tiny-train.array_record-{number:05d}-of-00006"


def in_order(folder: Path, **options):
    """The training images one by one, with as little read ahead as there can be."""
    stream = open_stream("tiny", folder)
    return evaluation_batches(
        stream.train, batch_size=1, size=SIZE, reading=Reading(1, 0, 1), **options
    )


def check_fails(iterator, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(iterator)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(70000)])
def test_a_file_that_is_missing_or_truncated_at_the_start(copied_set, content):
    path = file_of(copied_set, 3)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    what = "missing" if content is None else "truncated or damaged"
    with pytest.raises(DataError, match=f"{path} is {what}"):
        in_order(copied_set)


def test_a_file_that_vanishes_on_the_way(copied_set):
    iterator = in_order(copied_set)
    next(iterator)
    file_of(copied_set, 5).unlink()
    check_fails(iterator, f"{file_of(copied_set, 5)} is missing; delete the folder")


def test_a_file_that_vanishes_while_it_is_open(copied_set):
    """The system keeps it until it is closed, so nothing is lost."""
    iterator = in_order(copied_set)
    next(iterator)
    time.sleep(0.2)
    file_of(copied_set, 0).unlink()
    assert len(list(iterator)) == 23


@pytest.mark.parametrize("length", [0, 100])
def test_a_file_that_is_truncated_on_the_way(copied_set, length):
    iterator = in_order(copied_set)
    next(iterator)
    os.truncate(file_of(copied_set, 5), length)
    check_fails(iterator, f"{file_of(copied_set, 5)}( is damaged at|: ) ?record 0")


def test_a_file_that_may_not_be_read_on_the_way(public_dir, unprivileged):
    write_set(public_dir, sizes={"train": (4,) * 6, "test": (2,)})
    folder = public_dir / "tiny" / "1.0.0"
    with unprivileged():
        iterator = in_order(folder)
        next(iterator)
    file_of(folder, 5).chmod(0)
    with unprivileged():
        check_fails(iterator, f"{file_of(folder, 5)}")


def test_flipped_bytes_are_found_by_their_record(copied_set):
    path = file_of(copied_set, 4)
    content = bytearray(path.read_bytes())
    record = record_files.read_one(open_stream("tiny", copied_set).train.shards[4], 2)
    start = content.find(record.encoded[900:930])
    assert start > 0
    content[start : start + 5] = bytes(5)
    path.write_bytes(content)
    check_fails(in_order(copied_set), f"{path} is damaged at record 2 ")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (serialise(b"no image", 1), "record 2 cannot be decoded as an image"),
        (b"", "record 2 has no image and label"),
        (b"no example", "record 2 has no image and label"),
        (
            serialise(encode(np.zeros((40, 40, 3), np.uint8), "JPEG")[:300], 1),
            "record 2 cannot be decoded as an image",
        ),
        (
            serialise(encode(np.zeros((4, 4, 3), np.uint8)), 5),
            "record 2 has label 5, not one of the 5 classes",
        ),
    ],
    ids=["no image", "empty", "no example", "half an image", "wrong label"],
)
def test_a_record_that_is_no_example(tmp_path, record, message):
    folder = tmp_path / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    sound = serialise(encode(np.zeros((4, 4, 3), np.uint8)), 1)
    splits = {"train": [[sound, sound, record]], "test": [[sound]]}
    for split, shards in splits.items():
        write_shards(folder, "tiny", split, shards)
    features = {"image": image_feature((-1, -1, 3)), "label": label_feature(5)}
    write_description(folder, "tiny", splits, features)
    path = folder / "tiny-train.array_record-00000-of-00001"
    check_fails(in_order(folder), f"{path}: {message}")


def test_a_set_prepared_again_is_read_anew(tmp_path):
    """Files that stay open must not stand for their replacements."""
    for value in (10, 200):
        folder = tmp_path / "tiny" / "1.0.0"
        folder.mkdir(parents=True, exist_ok=True)
        sound = serialise(encode(np.full((4, 4, 3), value, np.uint8)), 1)
        splits = {"train": [[sound] * 2], "test": [[sound]]}
        for split, shards in splits.items():
            write_shards(folder, "tiny", split, shards)
        features = {"image": image_feature((-1, -1, 3)), "label": label_feature(5)}
        write_description(folder, "tiny", splits, features)
        assert all((batch.images == value).all() for batch in in_order(folder))


# --- Resources ------------------------------------------------------------------------


def test_more_files_than_are_kept_open(copied_set, monkeypatch):
    monkeypatch.setattr(
        record_files,
        "_shared_reader",
        functools.lru_cache(maxsize=2)(record_files._shared_reader.__wrapped__),
    )
    stream = open_stream("tiny", copied_set)
    ids = np.random.default_rng(0).permutation(24)
    images = read_images(stream.train, ids, size=SIZE)
    in_turn = read_images(stream.train, np.arange(24), size=SIZE)
    np.testing.assert_array_equal(images.images, in_turn.images[ids])
    assert record_files._shared_reader.cache_info().currsize == 2


def grain_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if "grain" in t.name]


def test_closing_ends_the_threads(stream):
    iterator = stream_batches(
        stream.train,
        np.arange(NUM_IMAGES),
        seed=0,
        batch_size=20,
        start_step=0,
        stop_step=10**6,
        size=SIZE,
    )
    next(iterator)
    assert grain_threads()
    iterator.close()
    for _ in range(100):
        if not grain_threads():
            return
        time.sleep(0.05)
    raise AssertionError(grain_threads())


@pytest.mark.slow
def test_worker_processes_give_the_same_and_report_damage(stream, copied_set):
    reading = Reading(num_workers=2)
    whole = batches(stream, stop=4, augment="standard")
    check_equal(
        batches(stream, start=1, stop=4, augment="standard", reading=reading), whole[1:]
    )
    damaged = open_stream("tiny", copied_set)
    file_of(copied_set, 5).unlink()
    iterator = evaluation_batches(
        damaged.train, batch_size=4, size=SIZE, reading=Reading(num_workers=1)
    )
    check_fails(iterator, f"{file_of(copied_set, 5)} is missing")


def worker_ids() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    found = [int(pid) for t in tasks for pid in (t / "children").read_text().split()]
    return [
        pid
        for pid in found
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.slow
def test_worker_processes_and_signals(stream):
    """They outlive what is sent to a whole job, and their death is reported."""
    iterator = stream_batches(
        stream.train,
        np.arange(NUM_IMAGES),
        seed=0,
        batch_size=20,
        start_step=0,
        stop_step=10**6,
        size=SIZE,
        reading=Reading(num_workers=2),
    )
    for _ in range(3):
        next(iterator)
    workers = worker_ids()
    assert len(workers) == 2
    for pid in workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(pid, number)
    for _ in range(20):
        next(iterator)
    os.kill(workers[0], signal.SIGKILL)
    check_fails(iterator, "a process that decodes images has died")
    assert not worker_ids()


class Interruption(BaseException):
    """What a signal raises in the main thread, wherever that is."""


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_interruption_at_any_moment(stream, delay, num_workers):
    """Also while workers start: nothing is left half started, nothing complains."""

    def interrupt(number, frame):
        raise Interruption

    def read_again_and_again():
        signal.setitimer(signal.ITIMER_REAL, delay)
        while True:
            iterator = evaluation_batches(
                stream.train, batch_size=8, size=SIZE, reading=reading
            )
            with contextlib.closing(iterator):
                for _ in iterator:
                    time.sleep(0.01)

    before = signal.signal(signal.SIGALRM, interrupt)
    reading = Reading(num_workers=num_workers)
    complaints = []
    sys.unraisablehook, hook = complaints.append, sys.unraisablehook
    try:
        with pytest.raises(Interruption):
            read_again_and_again()
        gc.collect()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
    assert not complaints
    assert not worker_ids()


@pytest.mark.slow
def test_throughput_and_memory(tmp_path):
    """At least 0.8 of Pillow's rate of decoding alone, by processor time."""
    from benchmarks import stream

    measured = stream.measure(tmp_path, rounds=2)
    assert measured["stream"].cpu_rate > 0.8 * measured["decode"].cpu_rate
    first, last = stream.measure_memory(tmp_path, num_epochs=5)
    assert last < first * 1.05
