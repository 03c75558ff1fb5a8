"""A sweep's folder: its definition, its runs' folders, and how each run stands.

    OUT/sweep.json       the definition; one in which a run has changed is refused
    OUT/selection.json   what the searches chose, with every candidate's score
    OUT/NAME/            a run directory, with run.json and attempts.json beside
    OUT/NAME.log         what the run printed
    OUT/superseded/      runs with a value that a grown search no longer chooses

How a run stands is read from its files alone, so a sweep can be stopped in any way.
"""

import fnmatch
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from fisher_jax.errors import UserError, one_line
from fisher_jax.host.files import write_whole
from fisher_jax.host.locks import hold
from fisher_jax.host.output import clock
from fisher_jax.host.paths import check_name
from fisher_jax.run_files import DIVERGED, parse_records, read_json

QUEUED, WAITING, RUNNING = "queued", "waiting", "running"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
ENDED = (DONE, DIVERGED)
# Preempted or interrupted after saving, or asked to end before there was anything to
# save (SIGTERM, SIGINT, SIGUSR1 while Python starts): no failures.
_STOPPED = (75, 130, -15, -2, -10)
# Bytes at the end of metrics.jsonl that surely hold its last record.
_TAIL = 16_384
# Major and minor number of the device, and inode.
LockedFile = tuple[tuple[int, int], int]


class RunState(NamedTuple):
    """How a run stands.

    Attributes:
        state: one of the words above.
        epoch: of its last record.
        fisher_trace: Tr(F), the last one recorded.
        failures: how often it has ended with an error.
        reason: of the last failure.
        job: the Slurm job that was last submitted for it.
        num_epochs: of the whole run; None before its first record and after its end.
        seconds_left: at the pace of its latest records.
    """

    state: str
    epoch: float | None = None
    fisher_trace: float | None = None
    failures: int = 0
    reason: str = ""
    job: str = ""
    num_epochs: float | None = None
    seconds_left: float | None = None

    @property
    def progress(self) -> str:
        """Returns "epoch 12/60, 3:20 left", or as much of it as is known."""
        if self.epoch is None:
            return "starting"
        of = "" if self.num_epochs is None else f"/{self.num_epochs:g}"
        left = self.seconds_left
        return f"epoch {self.epoch:g}{of}" + (f", {clock(left)} left" if left else "")


class Attempts(NamedTuple):
    """What is remembered of a run's starts, beside what main.py writes."""

    failures: int = 0
    exit_code: int | None = None
    reason: str = ""
    job: str = ""


def open_folder(out: Path, definition: Mapping[str, Any] | None) -> dict[str, Any]:
    """Makes or reads a sweep's folder; returns its sweep.json.

    Args:
        definition: to be stored if there is none yet; None only reads.

    Raises:
        UserError: it cannot be read or written, or holds something else.
    """
    path = out / "sweep.json"
    if definition is not None:
        check_name(out, "--out")
    try:
        if definition is None and not out.is_dir():
            raise UserError(f"no sweep in {out}: no such folder")
        if definition is not None:
            out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            content = json.loads(path.read_text())
            if not isinstance(content, dict) or "runs" not in content:
                raise UserError(f"{path} does not belong to a sweep")
            return content
        if definition is None:
            raise UserError(f"no sweep in {out}: it has no sweep.json")
        if (out / "config.json").exists() or (out / "metrics.jsonl").exists():
            raise UserError(f"{out} is a single run's folder; choose another --out")
        write_json(path, definition)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot use the folder {out}: {one_line(error)}") from error
    return dict(definition)


def lock(out: Path, warn: Callable[[str], None]) -> IO[str]:
    """Locks the sweep for this process, until what is returned is closed.

    Args:
        warn: takes a line where the file system has no locks.

    Raises:
        UserError: another process works on this sweep.
    """
    busy = f"another process runs the sweep in {out}; --status shows it"
    return hold(out, f"the folder {out}", busy, warn)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def supersede(directory: Path) -> None:
    """Moves a run that has to be made again, and its log, out of the sweep's way.

    Raises:
        OSError: it cannot be moved.
    """
    aside = directory.parent / "superseded"
    aside.mkdir(exist_ok=True)
    place, number = aside / directory.name, 1
    while place.exists():
        number += 1
        place = aside / f"{directory.name}.{number}"
    if log_path(directory).exists():
        log_path(directory).rename(log_path(place))
    directory.rename(place)


def read_attempts(directory: Path) -> Attempts:
    """Returns what is remembered of a run's starts."""
    content = read_json(directory / "attempts.json")
    return Attempts(**{k: v for k, v in content.items() if k in Attempts._fields})


def write_attempts(directory: Path, attempts: Attempts) -> None:
    """Remembers a run's starts."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "attempts.json", attempts._asdict())


def log_path(directory: Path) -> Path:
    """Returns where a run's output goes: beside its folder."""
    return directory.with_name(directory.name + ".log")


def note_end(directory: Path, code: int) -> None:
    """Remembers how a start of the run ended, an error with its last line.

    Having been asked to stop is no failure, nor is divergence (3), which is a result.
    """
    attempts = read_attempts(directory)
    is_failure = code not in (0, 3, *_STOPPED)
    write_attempts(
        directory,
        attempts._replace(
            exit_code=code,
            failures=attempts.failures + is_failure,
            reason=_reason(directory, code) if is_failure else "",
        ),
    )


def wanted(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Returns the names that match one of the patterns; all without patterns.

    Raises:
        UserError: none does.
    """
    chosen = [
        name
        for name in names
        if not only or any(fnmatch.fnmatch(name, pattern) for pattern in only)
    ]
    if not chosen:
        raise UserError(
            f"no run matches {' '.join(only)!r}; their names look like {names[0]!r}"
        )
    return chosen


def read_state(directory: Path, locked: frozenset[LockedFile]) -> RunState:
    """Returns how a run stands, from its files.

    Args:
        locked: of ``locked_files()``.
    """
    attempts = read_attempts(directory)
    result = read_json(directory / "result.json")
    records = last_records(directory / "metrics.jsonl")
    record = records[-1] if records else {}
    if result:
        state = DIVERGED if result.get("status") == DIVERGED else DONE
    elif is_locked(directory, locked):
        state = RUNNING
    elif attempts.failures and attempts.exit_code not in _STOPPED:
        state = FAILED
    elif record:
        state = INTERRUPTED
    else:
        state = QUEUED
    num_epochs = None
    if record and state not in ENDED:
        config = read_json(directory / "config.json").get("config", {})
        num_epochs = config.get("train", {}).get("num_epochs")
    return RunState(
        state,
        record.get("epoch"),
        record.get("trace/fisher"),
        attempts.failures,
        attempts.reason,
        attempts.job,
        num_epochs,
        _seconds_left(records, num_epochs),
    )


def _seconds_left(
    records: Sequence[dict[str, Any]], num_epochs: float | None
) -> float | None:
    """The rest of a run at the pace of its latest records; None: not known yet."""
    timed = [(r["epoch"], r["time"]) for r in records if {"epoch", "time"} <= r.keys()]
    if num_epochs is None or len(timed) < 2:
        return None
    (first, start), (last, end) = timed[0], timed[-1]
    return (
        (num_epochs - last) * (end - start) / (last - first) if last > first else None
    )


def last_records(path: Path) -> list[dict[str, Any]]:
    """Returns the last whole records of metrics.jsonl without reading all of it."""
    return parse_records(_tail(path))[0]


def _tail(path: Path) -> str:
    """The end of a file; nothing of one that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def locked_files() -> frozenset[LockedFile]:
    """Returns the device and inode of every file that is locked on this machine.

    The kernel's list is read, because trying a lock could keep a run from starting.
    """
    fields = (line.split() for line in _lines(Path("/proc/locks")))
    places = [field[5].split(":") for field in fields if field[1] == "FLOCK"]
    return frozenset(
        ((int(major, 16), int(minor, 16)), int(inode)) for major, minor, inode in places
    )


def is_locked(directory: Path, locked: frozenset[LockedFile]) -> bool:
    """Whether a process runs in this run directory."""
    try:
        with (directory / ".lock").open() as file:
            inode = os.fstat(file.fileno()).st_ino
            if not any(inode == other for _, other in locked):
                return False
            return (_device(file.fileno()), inode) in locked
    except OSError:
        return False


def _device(descriptor: int) -> tuple[int, int]:
    """The device of an open file as the kernel's list of locks has it.

    That is the mounted file system's, which ``stat`` does not tell on Btrfs.
    """
    for line in _lines(Path(f"/proc/self/fdinfo/{descriptor}")):
        if line.startswith("mnt_id:"):
            for mount in _lines(Path("/proc/self/mountinfo")):
                number, _, device = mount.split()[:3]
                if number == line.split()[1]:
                    major, minor = device.split(":")
                    return int(major), int(minor)
    device_number = os.fstat(descriptor).st_dev
    return os.major(device_number), os.minor(device_number)


def _lines(path: Path) -> list[str]:
    """Of a file of the kernel's; none where there is no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _reason(directory: Path, code: int) -> str:
    """The run's last error in a few words."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = _tail(log_path(directory)).strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    if not errors:
        return f"exit code {code}"
    return " ".join(errors[-1].removeprefix("error: ").split())
