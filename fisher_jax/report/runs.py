"""Finds and reads run directories, as they are: finished, running or broken off.

Plain JSON and nothing else, so that a live table of many runs starts at once; what
computes with runs turns them into pandas in ``collect.py``.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fisher_jax.errors import UserError

# Folders of a run that hold no runs but may hold very many files.
_NOT_RUNS = {"checkpoints", "tensorboard", "wandb", "mlruns", "__pycache__"}


class RunFiles(NamedTuple):
    """What a run directory holds; what is missing or unreadable is empty."""

    directory: Path
    config: dict[str, Any]
    records: list[dict[str, Any]]
    result: dict[str, Any]
    unreadable_lines: int
    place: Mapping[str, Any] = MappingProxyType(
        {}
    )  # run.json: the run's place in a sweep
    unreadable_files: tuple[str, ...] = ()


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Returns the run directories in and below the folders, each once, in order.

    A run directory is one that holds config.json or metrics.jsonl; none is looked for
    inside another.

    Raises:
        UserError: a folder does not exist, or none of them holds a run.
    """
    found: dict[Path, Path] = {}
    seen: set[Path] = set()  # a link may lead back up
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            kind = "is not a folder" if folder.exists() else "does not exist"
            raise UserError(f"{str(folder)!r} {kind}")
        for here, subfolders, files in os.walk(folder, followlinks=True):
            if {"config.json", "metrics.jsonl"} & set(files):
                subfolders.clear()
                found.setdefault(Path(here).resolve(), Path(here))
                continue
            if Path(here).resolve() in seen:
                subfolders.clear()
                continue
            seen.add(Path(here).resolve())
            subfolders[:] = sorted(set(subfolders) - _NOT_RUNS)
    if not found:
        named = ", ".join(repr(str(folder)) for folder in folders)
        raise UserError(
            f"no runs in {named}: a run's folder holds config.json and metrics.jsonl"
        )
    return list(found.values())


def read_run(directory: Path) -> RunFiles:
    """Reads config.json, metrics.jsonl, result.json and run.json of one run."""
    records, unreadable_lines = _records(_text(directory / "metrics.jsonl"))
    contents, unreadable_files = {}, []
    for name in ("config.json", "result.json", "run.json"):
        contents[name], is_readable = _json(directory / name)
        if not is_readable:
            unreadable_files.append(name)
    return RunFiles(
        directory=directory,
        config=contents["config.json"],
        records=records,
        result=contents["result.json"],
        unreadable_lines=unreadable_lines,
        place=contents["run.json"],
        unreadable_files=tuple(unreadable_files),
    )


def series(run: RunFiles, name: str) -> tuple[list[float], list[float]]:
    """Returns the epochs and values of one metric, where it was recorded."""
    points = [
        (record["epoch"], record[name])
        for record in run.records
        if record.get(name) is not None
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def command_line(run: RunFiles) -> Sequence[str]:
    """Returns the run's recorded command line, or nothing."""
    argv = run.config.get("argv")
    return [str(word) for word in argv] if isinstance(argv, list) else []


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} for {"a": {"b": value}}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _records(text: str) -> tuple[list[dict[str, Any]], int]:
    """The records of metrics.jsonl, and how many lines are none."""
    records, unreadable = [], 0
    # Not splitlines: it would also break at U+2028 and its like inside a string.
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and _is_number(record.get("epoch")):
            records.append(record)
        else:
            unreadable += 1
    return records, unreadable


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> tuple[dict[str, Any], bool]:
    """The object in a file, and False where a file is there but holds none."""
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}, not path.exists()
    return (content, True) if isinstance(content, dict) else ({}, False)
