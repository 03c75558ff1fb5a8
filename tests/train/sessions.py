"""One process's part of a run, here in the tests' own process, and its traces."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from fisher_jax import parallel
from fisher_jax.train import assemble, checkpoints, loop, records, restoring
from fisher_jax.train.checkpoints import Snapshot
from fisher_jax.train.keys import Config
from fisher_jax.train.progress import Display
from fisher_jax.train.signals import StopSignals
from fisher_jax.train.trackers import TensorBoard, TrackedRun

# A run's functions, and one that returns the initial snapshot.
Plan = tuple[loop.Plan, Callable[[], Snapshot]]


class StopAfter(StopSignals):
    """Behaves as if a signal came during step ``step``."""

    def __init__(self, display, step):
        super().__init__()
        show = display.show_step

        def show_and_stop(done):
            show(done)
            if done == step:
                self.received.append(15)

        display.show_step = show_and_stop


def make_plan(config: Config) -> Plan:
    """The run's functions, built once, and what makes a fresh initial snapshot."""
    mesh = parallel.make_mesh()
    functions, initial = assemble.build(config, assemble.load_data(config), mesh)
    # Steps donate their state. Of the same network and optimizer, whose steps, once
    # compiled, are everyone's.
    return functions, lambda: jax.tree.map(jnp.copy, initial)


def go_on(plan: Plan, directory: Path, stop_after: int | None = None) -> Snapshot:
    """Runs or continues a run, as run.py does it."""
    functions, fresh = plan
    display = Display(
        Console(quiet=True),
        functions.schedule.total_steps,
        functions.schedule.steps_per_epoch,
    )
    stop = StopAfter(display, stop_after)
    path = directory / "metrics.jsonl"
    with checkpoints.open_manager(directory / "checkpoints", keep=2) as manager:
        snapshot = fresh()
        restored = restoring.restore_latest(manager, snapshot, pytest.fail)
        start = -1 if restored is None else int(restored.state.step)
        kept = records.keep_records(path, start)
        tracker = TensorBoard(TrackedRun(directory, {}, kept, start + 1))
        session = loop.Session(path, kept, manager, tracker, display, stop)
        try:
            return loop.train(functions, restored or snapshot, session)
        finally:
            tracker.close()


def without_time(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]


def assert_same_end(
    snapshot: Snapshot, directory: Path, undisturbed: tuple[Snapshot, Path]
) -> None:
    expected, expected_directory = undisturbed
    for a, b in zip(
        jax.tree.leaves(checkpoints.as_tree(snapshot)),
        jax.tree.leaves(checkpoints.as_tree(expected)),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert without_time(directory / "metrics.jsonl") == without_time(
        expected_directory / "metrics.jsonl"
    )
