"""Reads run directories, as they are: finished, still running, or broken off."""

import json
from pathlib import Path
from typing import Any, NamedTuple


class RunFiles(NamedTuple):
    """What a run directory holds; what is missing or unreadable is empty."""

    directory: Path
    config: dict[str, Any]
    records: list[dict[str, Any]]
    result: dict[str, Any]
    unreadable_lines: int


def read_run(directory: Path) -> RunFiles:
    """Reads config.json, metrics.jsonl and result.json of one run."""
    records, unreadable_lines = [], 0
    for line in _text(directory / "metrics.jsonl").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            unreadable_lines += 1
    return RunFiles(
        directory=directory,
        config=_json(directory / "config.json"),
        records=records,
        result=_json(directory / "result.json"),
        unreadable_lines=unreadable_lines,
    )


def series(run: RunFiles, name: str) -> tuple[list[float], list[float]]:
    """Returns the epochs and values of one metric, where it was recorded."""
    points = [
        (record["epoch"], record[name])
        for record in run.records
        if record.get(name) is not None
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
