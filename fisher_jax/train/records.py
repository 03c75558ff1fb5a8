"""The files of a run directory: config.json, metrics.jsonl, result.json, the lock."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fisher_jax.errors import UserError, one_line
from fisher_jax.host.files import write_whole
from fisher_jax.host.locks import LOCK, hold
from fisher_jax.host.paths import check_name
from fisher_jax.run_files import flatten

Record = dict[str, float | int | None]


@contextmanager
def open_workdir(directory: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Makes the run directory and locks it for this process while the context lasts.

    A run that is refused before it wrote anything leaves neither folder nor lock.

    Args:
        directory: the run's, its workdir.
        warn: takes a line where the file system has no locks.

    Raises:
        UserError: it cannot be made or written, another process runs in it, it is a
            sweep's, or its name would break checkpoints.
    """
    what = f"workdir {str(directory)!r}"
    check_name(directory, "workdir")
    if (directory / "sweep.json").exists():
        raise UserError(f"{what} is a sweep's folder; choose another --workdir")
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {what}: {error}") from error
    busy = f"another process is running in {what}"
    with ExitStack() as at_end:
        # In the reverse order: NFS keeps a deleted file for as long as it is open.
        at_end.callback(_remove_empty, made)
        at_end.enter_context(hold(directory, what, busy, warn))
        at_end.callback(_remove_lone_lock, directory)
        yield


def _remove_lone_lock(directory: Path) -> None:
    with suppress(OSError):
        if [path.name for path in directory.iterdir()] == [LOCK]:
            (directory / LOCK).unlink()


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        UserError: it cannot be written; a file that was there before stays as it was.
    """
    text = json.dumps(content, indent=2, default=str, allow_nan=False) + "\n"
    _write(path, text.encode())


def require_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is not one.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"cannot read {path}: not a JSON object")
    return content


def check_same_config(
    directory: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> bool:
    """Returns whether a run of this configuration has been here before.

    Args:
        config: flat, as JSON holds it.
        defaults: what that run had of keys that are younger than it.

    Raises:
        UserError: another configuration's run is here, or files of a run without its
            config.json.
    """
    path = directory / "config.json"
    if not path.exists():
        left = [n for n in ("metrics.jsonl", "checkpoints") if (directory / n).exists()]
        if left:
            raise UserError(
                f"workdir {directory} holds {' and '.join(left)} but no config.json; "
                "choose another workdir"
            )
        return False
    recorded = require_json(path).get("config", {})
    if not isinstance(recorded, dict):
        raise UserError(f"{path} is damaged: its config is no object")
    earlier = {**defaults, **flatten(recorded)}
    changes = [
        f"{key} {_shown(earlier, key)} there, {_shown(config, key)} here"
        for key in sorted(earlier.keys() | config.keys())
        if _shown(earlier, key) != _shown(config, key)
    ]
    if changes:
        raise UserError(
            f"workdir {directory} belongs to a run with another configuration: "
            f"{'; '.join(changes)}. Choose another workdir"
        )
    return True


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "absent"


def keep_records(path: Path, last_step: int) -> list[Record]:
    """Cuts metrics.jsonl back to what a checkpoint of ``last_step`` knows.

    Later lines and a half-written last one are recomputed by the continued run, bit
    for bit. The file is replaced atomically.

    Returns:
        The records that stay, in order.

    Raises:
        UserError: the file cannot be read or written, or a line before the last is
            not a record.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    kept: list[bytes] = []
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            step = int(record["step"])
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise UserError(f"{path} line {number} is not a record") from error
        if step > last_step:
            break
        kept.append(line if line.endswith(b"\n") else line + b"\n")
        records.append(record)
    _write(path, b"".join(kept))
    return records


def append_record(path: Path, record: Record) -> None:
    """Appends one line, whole.

    Raises:
        UserError: it cannot be written; no part of the line stays.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab", buffering=0) as file:
            written = file.write(line.encode())
            if written != len(line.encode()):
                raise OSError("no space left on the device")
    except OSError as error:
        if path.exists():
            os.truncate(path, size)
        raise UserError(
            f"cannot write {path}: {error}; free some space and run the same command "
            "again"
        ) from error


def finite_or_none(record: Record) -> Record:
    """Replaces numbers that are not finite by None: JSON has no word for them."""
    return {
        name: None if value is None or not math.isfinite(value) else value
        for name, value in record.items()
    }


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
