"""Checkpoints read back, checked and never trusted: damaged ones are passed over.

Orbax notices missing and cut files; a checksum notices any flipped bit.
"""

import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jaxtyping import PyTree

from fisher_jax import parallel
from fisher_jax.errors import UserError, one_line
from fisher_jax.host.paths import local_path
from fisher_jax.train.checkpoints import (
    Manager,
    Snapshot,
    as_tree,
    checksum,
    from_tree,
    with_checksum,
)
from fisher_jax.train.step import TrainState

DAMAGED = "damaged_checkpoints"


def restore_latest(
    manager: Manager, like: Snapshot, warn: Callable[[str], None]
) -> Snapshot | None:
    """Returns the newest checkpoint that reads back intact, or None if there is none.

    Damaged newer ones are moved to ``damaged_checkpoints`` beside the folder, once an
    older one has been found intact. Which are damaged is what the first process finds.

    Args:
        like: a snapshot with the structure, shapes and shardings to restore.
        warn: takes one line that names what is damaged.

    Raises:
        UserError: there are checkpoints and none of them can be used, or one cannot be
            read now, for want of memory or by a fault of the disk; nothing is moved.
    """
    orbax = manager.orbax
    directory = Path(orbax.directory)
    expected = with_checksum(as_tree(like))
    damaged: dict[int, str] = {}
    for step in sorted(orbax.all_steps(), reverse=True):
        try:
            tree = _read(orbax, step, expected)
        except DamagedError as error:
            damaged[step] = str(error)
            continue
        if damaged:
            parallel.from_first(lambda: _set_aside(directory, list(damaged)))
            orbax.reload()
            warn(
                f"{'; '.join(damaged.values())}; continuing from step {step}; what "
                f"was damaged is now in {directory.parent / DAMAGED}"
            )
        return from_tree(tree, like)
    if not damaged:
        return None
    if all(_is_of_another_version(orbax, step, expected) for step in damaged):
        raise UserError(
            f"the checkpoints in {directory} were written by another version of "
            "fisher_jax, with a different training state; nothing was changed. "
            "Continue with that version, or choose another workdir"
        )
    steps = ", ".join(map(str, sorted(damaged)))
    raise UserError(
        f"all checkpoints in {directory} are damaged (steps {steps}); nothing was "
        "deleted. Restore one from a backup, or remove the folder to start over"
    )


def _set_aside(directory: Path, steps: Sequence[int]) -> None:
    """Moves these checkpoints to the folder of the damaged ones."""
    for step in steps:
        target = directory.parent / DAMAGED / str(step)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        shutil.move(directory / str(step), target)


def read_newest(run_directory: Path) -> dict[str, Any]:
    """Returns what the newest intact checkpoint of a run holds, in host memory.

    Whatever devices the run was on. Nothing is written, moved or locked, so that the
    run may be going on.

    Returns:
        A snapshot as nested dicts of NumPy arrays, by the names of its parts.

    Raises:
        UserError: there is no checkpoint, or none that is intact, or one cannot be read
            now.
    """
    directory = run_directory / "checkpoints"
    if not directory.is_dir():
        raise UserError(f"{run_directory} has no checkpoints folder")
    # Named, as only a manager that has written or read knows what is in its folder.
    handler = ocp.StandardCheckpointHandler()
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, save_interval_steps=0
    )
    with (
        _without_warnings(),
        ocp.CheckpointManager(
            directory.absolute(), item_handlers=handler, options=options
        ) as orbax,
    ):
        steps = sorted(orbax.all_steps(), reverse=True)
        for step in steps:
            # A damaged one is passed over, as when the run itself goes on.
            with suppress(DamagedError):
                return _read(orbax, step)
    if not steps:
        raise UserError(f"no checkpoint in {directory}: the run has not saved one yet")
    raise UserError(f"no intact checkpoint in {directory}")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps to itself that Orbax will not write to what it only reads."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


def start_from(run_directory: str, state: TrainState) -> TrainState:
    """Returns the state with another run's final parameters: ``train.init_from``.

    Batch norm's running statistics come with them; optimizer and step do not.

    Raises:
        UserError: no run, no checkpoint, all damaged, or another model.
    """
    run = local_path(run_directory, "train.init_from")
    try:
        found = read_newest(run)["state"]
    except UserError as error:
        raise UserError(f"train.init_from: {error}") from error
    own = {"params": state.params, "batch_stats": state.batch_stats}
    other = {name: found.get(name) or {} for name in own}
    if jax.tree.map(jnp.shape, other) != jax.tree.map(jnp.shape, own):
        raise UserError(
            f"train.init_from: the run in {run_directory} has another model"
        )
    placed = jax.tree.map(
        lambda value, target: parallel.place(
            np.asarray(value, target.dtype), target.sharding
        ),
        other,
        own,
    )
    return state.replace(**placed)


class DamagedError(Exception):
    """A checkpoint's files do not hold what was written; says which and why."""


def _read(
    orbax: ocp.CheckpointManager, step: int, like: PyTree | None = None
) -> dict[str, Any]:
    """Returns a checkpoint's tree without its checksum, which is checked.

    Every process reads, and all go by what the first one finds.

    Args:
        like: arrays with the shapes and shardings to restore; None: what was saved, in
            host memory.

    Raises:
        DamagedError: the first process finds it damaged.
        UserError: it cannot be read now.
    """
    where = f"checkpoint {Path(orbax.directory) / str(step)}"
    tree: dict[str, Any] | None = None
    damage, failure = "", ""
    try:
        tree = _restore(orbax, step, like)
        expected = tree.pop("checksum")
        if not jnp.array_equal(checksum(tree), expected):
            damage = "its checksum does not match"
    except Exception as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
            raise  # another process is lost
        logging.debug("%s", where, exc_info=True)
        if _is_damage(error):
            damage = _told(error)
        else:
            failure = _told(error)

    def cannot_read() -> UserError:
        return UserError(
            f"cannot read {where}: {failure}; nothing was changed; the same command "
            "tries again"
        )

    def verdict() -> str:
        if failure:
            raise cannot_read()
        return damage

    found_by_first = parallel.from_first(verdict)
    if found_by_first:
        raise DamagedError(f"{where} is damaged ({found_by_first})")
    if tree is None or damage:
        failure = failure or damage
        raise cannot_read()
    return tree


def _restore(
    orbax: ocp.CheckpointManager, step: int, like: PyTree | None
) -> dict[str, Any]:
    if like is None:
        saved: Any = orbax.item_metadata(step)
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved.tree)
    else:
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=leaf.sharding
            ),
            like,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree: dict[str, Any] = orbax.restore(
            step, args=ocp.args.StandardRestore(target)
        )
    return tree


# What TensorStore calls files that are cut, changed or missing; it calls faults of
# disks, networks, permissions and memory something else.
DAMAGE = (
    "DATA_LOSS",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
)


# Of Python's own, what Orbax raises of JSON that is not as it wrote it, and of files
# that are not there.
WRONG_CONTENT = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
)


def _is_damage(error: BaseException) -> bool:
    """Whether reading failed because of what is in the files."""
    root = _root(error)
    status = re.match(r"([A-Z_]+): ", str(root))
    if status is not None:
        return status[1] in DAMAGE
    return isinstance(root, WRONG_CONTENT)


def _root(error: BaseException) -> BaseException:
    """What Orbax wraps: it adds where it was, not what it is."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _told(error: BaseException) -> str:
    """A reason in one line, without TensorStore's account of what it was opening."""
    root = _root(error)
    text = re.sub(r" \[tensorstore_spec.*?='.*?\}'\]", "", one_line(root))
    if len(text) > 300:
        text = f"{text[:60]} ... {text[-230:]}"
    return f"{type(root).__name__}: {text}"


def _is_of_another_version(
    orbax: ocp.CheckpointManager, step: int, expected: PyTree
) -> bool:
    """Whether an intact checkpoint would have had other parts than ours."""
    try:
        saved: Any = orbax.item_metadata(step)
    except WRONG_CONTENT:
        return False
    names: list[Any] = [jax.tree.structure(tree) for tree in (saved.tree, expected)]
    return names[0] != names[1]
