"""Runs commands side by side, each with its output in a file."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """A command and where its standard output and error go."""

    command: Sequence[str]
    log: Path


def main_command(config: str, workdir: Path, *overrides: str) -> list[str]:
    """Returns the command line of one run."""
    root = Path(__file__).parents[1]
    return [
        sys.executable,
        str(root / "main.py"),
        f"--config={root / config}",
        f"--workdir={workdir}",
        *overrides,
    ]


def run_side_by_side(
    jobs: Mapping[str, Job], at_a_time: int, watch: Callable[[dict[str, str]], None]
) -> dict[str, int]:
    """Runs every job, ``at_a_time`` at once, in order; returns exit codes by name.

    Args:
        watch: called a few times a second with each job's state: queued, running, done
            or failed.

    On Ctrl-C the running jobs get it too (they are in the same process group), are
    waited for, and KeyboardInterrupt goes on.
    """
    queue = list(jobs)
    running: dict[str, subprocess.Popen[bytes]] = {}
    codes: dict[str, int] = {}
    try:
        while queue or running:
            while queue and len(running) < at_a_time:
                name = queue.pop(0)
                running[name] = _start(jobs[name])
            for name, process in list(running.items()):
                if process.poll() is not None:
                    codes[name] = running.pop(name).returncode
            watch({name: _state(name, running, codes) for name in jobs})
            time.sleep(0.2)
    except KeyboardInterrupt:
        for process in running.values():
            process.wait()
        raise
    return codes


def _start(job: Job) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )


def _state(name: str, running: Mapping[str, object], codes: Mapping[str, int]) -> str:
    if name in running:
        return "running"
    if name not in codes:
        return "queued"
    return "done" if codes[name] == 0 else "failed"
