"""Checkpoints of a run with Orbax, written while it goes on; ``restoring`` reads them.

A step's checkpoint holds the whole state, the best parameters so far by validation
accuracy, and a checksum over both, because Orbax notices missing and cut files but
not every flipped bit.
"""

import dataclasses
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from flax import serialization
from jaxtyping import Array, Float, Int, PyTree, UInt32

from fisher_jax.errors import UserError, one_line
from fisher_jax.train.step import StepMetrics, TrainState


class Best(NamedTuple):
    """The parameters at the epoch of the best validation accuracy so far."""

    accuracy: Float[Array, ""]  # in [0, 1]; -1 before the first epoch
    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree


class PenaltySum(NamedTuple):
    """The penalty's values since the last record: sum, sum of squares, number."""

    total: Float[Array, ""]
    squares: Float[Array, ""]
    updates: Int[Array, ""]


class Snapshot(NamedTuple):
    """What a checkpoint holds: all from which a run goes on.

    Attributes:
        metrics: of the latest step, whose record may still be due.
        penalties: of the penalty's updates that no record has seen yet.
        best: None for a run without validation.
    """

    state: TrainState
    metrics: StepMetrics
    penalties: PenaltySum
    best: Best | None


@dataclasses.dataclass
class Manager:
    """Orbax's manager, and the thread that calls it while training goes on.

    Attributes:
        orbax: not to be called while something is pending.
        thread: None with several processes, whose calls of Orbax wait for each other
            by collectives that must not come between those of training.
        pending: the call of ``orbax.save`` that is under way, or has failed unheard.
    """

    orbax: ocp.CheckpointManager
    thread: ThreadPoolExecutor | None
    pending: Future[Any] | None = None


@jax.jit
def checksum(tree: PyTree) -> UInt32[Array, " leaves"]:
    """Returns sum_i (2i + 1) bits_i mod 2^32 per leaf, over its 32-bit words.

    The weights are odd, so that any single flipped bit changes the sum.
    """
    sums = []
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.dtype == jnp.bool_:
            leaf = leaf.astype(jnp.uint8)
        width = min(32, 8 * leaf.dtype.itemsize)
        words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{width}"))
        words = words.astype(jnp.uint32).reshape(-1)
        weights = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        sums.append(jnp.sum(words * weights, dtype=jnp.uint32))
    return jnp.stack(sums)


@contextmanager
def open_manager(directory: Path, keep: int) -> Iterator[Manager]:
    """The checkpoints in ``directory``, of which the last ``keep`` are kept.

    Raises:
        UserError: at the end, a write failed and nobody has heard of it yet.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=True,
        # What a killed run left half-written; the run's lock says nobody writes now.
        cleanup_tmp_directories=True,
    )
    # Named, or Orbax takes it from the newest checkpoint, which may be an empty folder.
    orbax = ocp.CheckpointManager(
        directory.absolute(),
        item_handlers=ocp.StandardCheckpointHandler(),
        options=options,
    )
    thread = ThreadPoolExecutor(1) if jax.process_count() == 1 else None
    manager = Manager(orbax, thread)
    with _without_stack_traces():
        try:
            yield manager
        except BaseException:
            # A failed write fails again here; what is on its way says it already.
            with suppress(Exception):
                _close(manager)
            raise
        with _told_in_one_line(manager):
            _close(manager)


def _close(manager: Manager) -> None:
    """Waits for what is under way; raises what failed, with everything closed."""
    try:
        _join(manager)
    finally:
        if manager.thread is not None:
            manager.thread.shutdown()
        manager.orbax.close()


def _join(manager: Manager) -> None:
    """Waits until Orbax has taken what it was given last; raises if that failed."""
    pending, manager.pending = manager.pending, None
    if pending is not None:
        pending.result()


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Keeps to itself what Orbax's threads print of a failed write.

    It logs a trace for each array and leaves futures behind whose event loop is gone,
    some until Python itself ends; ``save`` and ``finish`` raise the same failure once.
    """
    before, handler = sys.unraisablehook, absl_logging.get_absl_handler()
    has_failed = False

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if not has_failed and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    def is_ours(record: logging.LogRecord) -> bool:
        is_orbaxs = "orbax" in record.pathname or record.name == "asyncio"
        return not is_orbaxs or record.levelno < logging.ERROR

    sys.unraisablehook = report
    handler.addFilter(is_ours)
    try:
        yield
    except UserError:
        has_failed = True  # the program ends, and the last futures with it
        raise
    finally:
        if not has_failed:
            sys.unraisablehook = before
            handler.removeFilter(is_ours)


@contextmanager
def _told_in_one_line(manager: Manager) -> Iterator[None]:
    """Turns whatever Orbax raises of a failed write into a UserError."""
    try:
        yield
    except jax.errors.JaxRuntimeError:
        raise  # of a device or another process, not of a disk
    except Exception as error:
        where = manager.orbax.directory
        raise UserError(
            f"cannot write a checkpoint to {where}: {one_line(error)}; earlier "
            "checkpoints are kept, and the same command continues the run"
        ) from error


def save(manager: Manager, snapshot: Snapshot, step: int) -> None:
    """Starts writing; returns at once, the caller may donate the snapshot.

    The device holds a copy of it until that is on the host.

    Raises:
        UserError: this or an earlier write failed, for instance on a full disk.
    """
    tree = _copy(as_tree(snapshot))
    with _told_in_one_line(manager):
        _join(manager)
        if manager.thread is None:
            _write(manager.orbax, tree, step)
        else:
            manager.pending = manager.thread.submit(_write, manager.orbax, tree, step)


def _write(orbax: ocp.CheckpointManager, tree: dict[str, Any], step: int) -> None:
    """Gives Orbax the tree and its checksum; returns once both are on the host."""
    orbax.save(step, args=ocp.args.StandardSave(with_checksum(tree)))


def finish(manager: Manager) -> None:
    """Waits until what was saved is on disk.

    Raises:
        UserError: a write failed.
    """
    with _told_in_one_line(manager):
        _join(manager)
        manager.orbax.wait_until_finished()


def latest_step(manager: Manager) -> int | None:
    """Returns the step of the newest checkpoint, one on its way included.

    Raises:
        UserError: a write failed.
    """
    with _told_in_one_line(manager):
        _join(manager)
    return manager.orbax.latest_step()


def as_tree(snapshot: Snapshot) -> dict[str, Any]:
    """Returns the snapshot as nested dicts of arrays, in an order no reader changes."""
    tree: dict[str, Any] = serialization.to_state_dict(_with_key_data(snapshot))
    return tree if snapshot.best is not None else {**tree, "best": {}}


def _with_key_data(snapshot: Snapshot) -> Snapshot:
    """With the key's words in place of the key."""
    state = snapshot.state
    words = jax.random.key_data(state.key)
    return snapshot._replace(state=state.replace(key=words))


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def with_checksum(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint holds: the tree of a snapshot and its checksum."""
    return {**tree, "checksum": checksum(tree)}


def from_tree(tree: dict[str, Any], like: Snapshot) -> Snapshot:
    """Returns the snapshot that ``as_tree`` took apart."""
    if like.best is None:
        tree = {**tree, "best": None}
    found: Snapshot = serialization.from_state_dict(_with_key_data(like), tree)
    key = jax.random.wrap_key_data(found.state.key)
    return found._replace(state=found.state.replace(key=key))
