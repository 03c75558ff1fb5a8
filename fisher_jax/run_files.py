"""What run directories hold, finished, running or broken off, and a run's quantities.

Plain JSON and nothing else: the trainer, live tables and the report share it.
"""

import gzip
import json
import math
import os
import statistics
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fisher_jax.errors import UserError

Record = Mapping[str, Any]

METRICS, PACKED_METRICS = "metrics.jsonl", "metrics.jsonl.gz"  # the latter archived

FORMS = "small", "medium"  # of the paper's experiments, below its scale
FINISHED, DIVERGED = "finished", "diverged"  # the status in result.json

# Folders of a run that hold no runs but may hold very many files, and a sweep's runs
# that others have replaced.
_NOT_RUNS = {"checkpoints", "tensorboard", "wandb", "mlruns", "__pycache__"}
_NOT_RUNS |= {"superseded"}


class RunFiles(NamedTuple):
    """What a run directory holds; what is missing or unreadable is empty."""

    directory: Path
    config: dict[str, Any]
    records: list[dict[str, Any]]
    result: dict[str, Any]
    unreadable_lines: int
    sweep: Mapping[str, Any] = MappingProxyType({})  # run.json: its place in a sweep
    unreadable_files: tuple[str, ...] = ()


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Returns the run directories in and below the folders, each once, in order.

    A run directory is one that holds config.json or records; none is looked for
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
            if {"config.json", METRICS, PACKED_METRICS} & set(files):
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
    """Reads config.json, the records, result.json and run.json of one run."""
    records, unreadable_lines = parse_records(_text(metrics_file(directory)))
    contents, unreadable_files = {}, []
    for name in ("config.json", "result.json", "run.json"):
        contents[name] = read_json(directory / name)
        if not contents[name] and (directory / name).exists():
            unreadable_files.append(name)
    return RunFiles(
        directory=directory,
        config=contents["config.json"],
        records=records,
        result=contents["result.json"],
        unreadable_lines=unreadable_lines,
        sweep=contents["run.json"],
        unreadable_files=tuple(unreadable_files),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; empty where there is none."""
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


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


def numeric_records(run: RunFiles) -> list[dict[str, float]]:
    """Returns the finite numbers of each record, in order of steps.

    Of a repeated step, as after a restart, the last record counts.
    """
    records = [
        {name: value for name, value in record.items() if _is_finite(value)}
        for record in run.records
    ]
    by_step = {record.get("step", -1 - i): record for i, record in enumerate(records)}
    kept = by_step.values()
    is_stepped = all("step" in record for record in kept)
    return sorted(kept, key=lambda record: record["step" if is_stepped else "epoch"])


def quantities(
    records: Sequence[Record],
    *,
    early_loss: float | None,
    steps_per_epoch: float | None,
) -> dict[str, float | None]:
    """Returns what result.json and the report say of a run; None where not recorded.

    ``best_*`` are the largest values, ``*_at_best_*`` taken at the first record that
    has the largest, among those that hold both. ``max_fisher_trace`` is the largest
    Tr(F) from the end of epoch 1 on: with batch norm Tr(F) explodes at initialisation
    (appendix A.2). ``early_fisher_trace`` is Tr(F_i), at the first epoch whose training
    loss is below ``early_loss`` (the paper's epsilon). ``seconds_per_epoch`` is from
    the median speed.

    Args:
        records: in the order of steps.
    """
    after_epoch_1 = [record for record in records if (record["epoch"] or 0) >= 1]
    speeds = list(_values(records, "time/steps_per_second"))
    early = next((r for r in records if _is_below(r.get("train/loss"), early_loss)), {})
    return {
        "test_accuracy": _last(records, "test/accuracy"),
        "best_test_accuracy": _largest(records, "test/accuracy"),
        "best_train_accuracy": _largest(records, "train/accuracy"),
        "best_validation_accuracy": _largest(records, "validation/accuracy"),
        "test_accuracy_at_best_validation": _value_at_best(
            records, "test/accuracy", by="validation/accuracy"
        ),
        "final_train_accuracy": _last(records, "train/accuracy"),
        "final_train_clean_accuracy": _last(records, "train/clean_accuracy"),
        "final_train_noisy_accuracy": _last(records, "train/noisy_accuracy"),
        "max_fisher_trace": _largest(after_epoch_1, "trace/fisher"),
        "early_fisher_trace": early.get("trace/fisher"),
        "hessian_trace_at_best_test": _value_at_best(
            records, "trace/hessian", by="test/accuracy"
        ),
        "seconds_per_epoch": (
            steps_per_epoch / statistics.median(speeds)
            if speeds and steps_per_epoch
            else None
        ),
    }


def _values(records: Iterable[Record], name: str) -> Iterator[float]:
    return (v for record in records if (v := record.get(name)) is not None)


def _last(records: Sequence[Record], name: str) -> float | None:
    return next(_values(reversed(records), name), None)


def _largest(records: Sequence[Record], name: str) -> float | None:
    return max(_values(records, name), default=None)


def _value_at_best(records: Sequence[Record], name: str, by: str) -> float | None:
    both = [r for r in records if r.get(name) is not None and r.get(by) is not None]
    return max(both, key=lambda record: record[by])[name] if both else None


def _is_below(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value < bound


def parse_records(text: str) -> tuple[list[dict[str, Any]], int]:
    """Returns the records of metrics.jsonl, and how many lines are none."""
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


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def metrics_file(directory: Path) -> Path:
    """Returns the file with a run's records, packed where nothing else is there."""
    plain, packed = directory / METRICS, directory / PACKED_METRICS
    return packed if packed.exists() and not plain.exists() else plain


def read_bytes(path: Path) -> bytes:
    """Returns what is in a file, unpacked where its name ends in .gz.

    Raises:
        OSError: it cannot be read, or unpacked.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error) as error:
        raise OSError(f"{path} is damaged: {error}") from error


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode(errors="replace")
    except OSError:
        return ""
