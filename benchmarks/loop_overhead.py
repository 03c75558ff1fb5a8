"""What the training loop adds to the compiled step: ``make bench-loop``.

For each setting, one run of the real loop (batches, finiteness check, progress, no
measuring in between) is timed step by step, and the same compiled step is called alone
on one fixed batch, in alternating blocks; the medians are compared.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from fisher_jax import parallel
from fisher_jax.train import assemble, checkpoints, loop
from fisher_jax.train.config import load_config
from fisher_jax.train.progress import Display
from fisher_jax.train.signals import StopSignals
from fisher_jax.train.trackers import TensorBoard, TrackedRun

ROOT = Path(__file__).parents[1]


def time_alone(
    plan: loop.Plan, state: object, steps: int
) -> tuple[list[float], object]:
    """Seconds of each of ``steps`` plain steps on one batch, each waited for."""
    with plan.feed.open_batches(0, 1) as batch_of:
        batch = batch_of(range(1))
    jax.block_until_ready(batch)
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        state, metrics = plan.step(state, batch, renew=False)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
    return seconds, state


class TimedDisplay(Display):
    """Notes when each step is shown."""

    def __init__(self, *arguments: object):
        """Starts with no moments."""
        super().__init__(*arguments)
        self.moments: list[float] = []

    def show_step(self, steps_done: int) -> None:
        """Shows it as ever, and notes the time."""
        super().show_step(steps_done)
        self.moments.append(time.perf_counter())


def time_in_the_loop(
    plan: loop.Plan, snapshot: checkpoints.Snapshot, directory: Path
) -> tuple[list[float], checkpoints.Snapshot]:
    """Seconds between steps of the real loop, over the plan's epochs."""
    schedule = plan.schedule
    display = TimedDisplay(
        Console(quiet=True), schedule.total_steps, schedule.steps_per_epoch
    )
    tracker = TensorBoard(TrackedRun(directory, {}, [], 0))
    with checkpoints.open_manager(directory / "checkpoints", keep=1) as manager:
        session = loop.Session(
            directory / "metrics.jsonl", [], manager, tracker, display, StopSignals()
        )
        snapshot = loop.train(plan, snapshot, session)
    tracker.close()
    return list(np.diff(display.moments)), snapshot


def compare(name: str, config_path: str, overrides: list[tuple[str, str]]) -> None:
    """Prints the two medians and their ratio, from five alternating blocks."""
    config = load_config(config_path, overrides)
    mesh = parallel.make_mesh()
    data = assemble.load_data(config)
    alone: list[float] = []
    inside: list[float] = []
    plan, first = assemble.build(config, data, mesh)
    time_alone(plan, first.state, 3)  # compiles
    for _ in range(5):
        # The loop starts from step 0 each time; build is cheap and shares the compile.
        snapshot = first._replace(state=assemble.build(config, data, mesh)[1].state)
        with tempfile.TemporaryDirectory() as directory:
            seconds, snapshot = time_in_the_loop(plan, snapshot, Path(directory))
        inside += seconds[1:]
        seconds, _ = time_alone(plan, snapshot.state, len(seconds))
        alone += seconds[1:]
    a, b = statistics.median(alone), statistics.median(inside)
    print(
        f"{name}: step alone {1e3 * a:.2f} ms, in the loop {1e3 * b:.2f} ms, "
        f"ratio {b / a:.3f} (medians of {len(alone)} and {len(inside)} steps)"
    )


def main(data_dir: str | None) -> None:
    """Digits always, CIFAR-10 where a prepared folder is given."""
    quiet = [
        ("measure.every_epochs", "1000"),
        ("measure.fisher_examples", "0"),
        ("measure.gradient_examples", "0"),
        ("measure.train_examples", "128"),
    ]
    digits = [*quiet, ("train.num_epochs", "12")]
    compare("digits", str(ROOT / "experiments/digits_fp.py:baseline"), digits)
    if data_dir is None:
        print("CIFAR-10: left out, no folder given (DATA_DIR=...)")
        return
    cifar10 = [
        *quiet,
        ("dataset.data_dir", data_dir),
        ("dataset.num_train", "1536"),
        ("dataset.num_validation", "0"),
        ("train.num_epochs", "1"),
    ]
    path = str(ROOT / "experiments/cifar10_simplecnn_fp.py:baseline")
    compare("CIFAR-10", path, cifar10)


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] and sys.argv[1] else None)
