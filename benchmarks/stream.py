"""How fast photographs are streamed: ``python -m benchmarks.stream [DIR]``.

Images a second of the stream beside those of Pillow alone on the same cores, in rounds
that take turns, so that whatever else the machine does meets all alike; and the memory
of the process over an epoch. DIR keeps the generated set for the next time.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.synthetic_images import write_photographs
from fisher_jax.data.stream import Batch, Reading, open_stream, stream_batches

NUM_IMAGES = 384
NUM_EPOCHS = 3
BATCH_SIZE = 64
CORES = len(os.sched_getaffinity(0))


def decode(encoded: bytes) -> np.ndarray:
    """Pillow alone: what the stream is measured against."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image)


def decode_resize_crop(encoded: bytes) -> np.ndarray:
    """As it is usually written: all is resized, then most of it kept."""
    with Image.open(io.BytesIO(encoded)) as image:
        shorter = min(image.size)
        width, height = (256 * side // shorter for side in image.size)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def take(batches: Iterator[Batch], steps: int) -> int:
    """Takes some batches; returns the number of images."""
    return sum(len(next(batches).labels) for _ in range(steps))


def resident_megabytes() -> float:
    """What the process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Measured:
    """Seconds of the clock and of the processors that a way of reading took."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self.wall = self.cpu = 0.0
        self.images = 0

    def add(self, work: Callable[[], int]) -> None:
        """Does some work, which returns its number of images."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        self.images += work()
        self.wall += time.perf_counter() - wall
        self.cpu += cpu_seconds() - cpu

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.wall

    @property
    def cpu_rate(self) -> float:
        """Images a second of processor time."""
        return self.images / self.cpu


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    times = os.times()
    return times.user + times.system


def measure(data_dir: Path, rounds: int, num_workers: int = 0) -> dict[str, Measured]:
    """Times all ways of reading the set in ``data_dir``, in turns."""
    if not (data_dir / "photos").exists():
        write_photographs(data_dir, NUM_IMAGES)
    stream = open_stream("photos", data_dir / "photos" / "1.0.0")
    encoded = _encoded(stream)
    measured = {name: Measured() for name in ("decode", "decode+crop", "stream")}

    def of_pillow(function: Callable[[bytes], np.ndarray]) -> int:
        with ThreadPoolExecutor(CORES) as pool:
            return sum(1 for _ in pool.map(function, encoded))

    # The first round is not counted: it imports, and reads the files from the disk.
    for number in range(-1, rounds):
        if number == 0:
            measured = {name: Measured() for name in measured}
        measured["decode"].add(lambda: of_pillow(decode))
        measured["decode+crop"].add(lambda: of_pillow(decode_resize_crop))
        # A stream of its own, so that nothing is read ahead while others are timed.
        batches = stream_batches(
            stream.train,
            np.arange(NUM_IMAGES),
            seed=number,
            batch_size=BATCH_SIZE,
            start_step=0,
            stop_step=NUM_EPOCHS * NUM_IMAGES // BATCH_SIZE,
            reading=Reading(CORES, num_workers),
        )
        if num_workers:
            # Starting processes takes seconds, once in a run.
            next(batches)
        steps = NUM_EPOCHS * NUM_IMAGES // BATCH_SIZE - bool(num_workers)
        measured["stream"].add(lambda b=batches, n=steps: take(b, n))
        batches.close()
    return measured


def measure_memory(data_dir: Path, num_epochs: int) -> tuple[float, float]:
    """Returns the megabytes that the process holds after one epoch and at the end."""
    stream = open_stream("photos", data_dir / "photos" / "1.0.0")
    steps = NUM_IMAGES // BATCH_SIZE
    batches = stream_batches(
        stream.train,
        np.arange(NUM_IMAGES),
        seed=0,
        batch_size=BATCH_SIZE,
        start_step=0,
        stop_step=num_epochs * steps,
    )
    take(batches, steps)
    first = resident_megabytes()
    take(batches, (num_epochs - 1) * steps)
    return first, resident_megabytes()


def _encoded(stream) -> list[bytes]:
    from fisher_jax.data.record_files import read_in_order

    return [
        example.encoded
        for shard in stream.train.shards
        for examples in read_in_order(shard)
        for example in examples
    ]


def report(data_dir: Path, rounds: int) -> None:
    """Prints rates with threads and with processes, and memory."""
    for num_workers in (0, CORES):
        kind = f"{num_workers} processes" if num_workers else f"{CORES} threads"
        measured = measure(data_dir, rounds, num_workers)
        stream = measured["stream"]
        for name, other in measured.items():
            ratio = stream.rate / other.rate
            line = f"{kind:12} {name:12} {other.rate:6.0f} images/s, stream/this "
            # What other processes take is not known while they run.
            by_cpu = f" (processor time {stream.cpu_rate / other.cpu_rate:.2f})"
            print(f"{line}{ratio:.2f}{'' if num_workers else by_cpu}")
        if not num_workers:
            first, last = measure_memory(data_dir, num_epochs=20)
            print(f"memory: {first:.0f} MB after one epoch, {last:.0f} MB after 20")


def main() -> None:
    """Measures in the folder given, or in a temporary one."""
    if len(sys.argv) > 1:
        report(Path(sys.argv[1]), rounds=4)
        return
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), rounds=4)


if __name__ == "__main__":
    main()
