"""Runs commands side by side, each with its output in a file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class StopRequested(BaseException):
    """SIGTERM or SIGHUP: end as on Ctrl-C, everything resumable."""


class Job(NamedTuple):
    """A command and where its standard output and error go."""

    command: Sequence[str]
    log: Path


def main_command(config: str, workdir: Path, *overrides: str) -> list[str]:
    """Returns the command line of one run."""
    return [
        sys.executable,
        str(ROOT / "main.py"),
        f"--config={ROOT / config}",
        f"--workdir={workdir}",
        *overrides,
    ]


class Pool:
    """At most so many commands at a time, each in an environment of its own."""

    def __init__(self, environments: Sequence[Mapping[str, str]]):
        """Starts nothing yet.

        Args:
            environments: what to add to the environment, one for each command that
                may run at the same time: which accelerator is its own.
        """
        self._free = list(environments)
        self._running: dict[str, tuple[subprocess.Popen[bytes], Mapping[str, str]]] = {}

    @property
    def has_room(self) -> bool:
        """Whether another command can start."""
        return bool(self._free)

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the commands that run."""
        return tuple(self._running)

    def start(self, name: str, job: Job) -> None:
        """Starts a command; there must be room."""
        environment = self._free.pop(0)
        self._running[name] = (_start(job, environment), environment)

    def ended(self) -> dict[str, int]:
        """Returns the exit codes of the commands that have ended since last asked."""
        codes = {}
        for name, (process, environment) in list(self._running.items()):
            if process.poll() is not None:
                codes[name] = process.returncode
                self._free.insert(0, environment)
                del self._running[name]
        return codes

    def stop(self) -> dict[str, int]:
        """Asks every command to save and end (SIGTERM), waits; returns exit codes."""
        for process, _ in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in self._running.values():
            process.wait()
        return self.ended()


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise StopRequested in the main thread.

    What the program was told to ignore when it started, as ``nohup`` does with SIGHUP,
    it ignores.
    """
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, _request_stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _request_stop(number: int, frame: FrameType | None) -> None:
    raise StopRequested


def run_side_by_side(
    jobs: Mapping[str, Job],
    environments: Sequence[Mapping[str, str]],
    watch: Callable[[dict[str, str]], None],
) -> dict[str, int]:
    """Runs every job, in order, as many at once as there are environments.

    Args:
        jobs: by name.
        watch: called a few times a second with each job's state: queued, running, done
            or failed.

    Returns:
        Exit codes by name.

    On Ctrl-C, SIGTERM and SIGHUP the running jobs are asked to end too and are waited
    for; KeyboardInterrupt or StopRequested goes on.
    """
    queue = list(jobs)
    pool = Pool(environments)
    codes: dict[str, int] = {}
    try:
        with stopping_on_signals():
            while queue or pool.running:
                while queue and pool.has_room:
                    name = queue.pop(0)
                    pool.start(name, jobs[name])
                codes |= pool.ended()
                watch({name: _state(name, pool.running, codes) for name in jobs})
                time.sleep(0.2)
    except BaseException:  # whatever it is: no job is left behind
        pool.stop()
        raise
    return codes


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )


def _state(name: str, running: Sequence[str], codes: Mapping[str, int]) -> str:
    if name in running:
        return "running"
    if name not in codes:
        return "queued"
    return "done" if codes[name] == 0 else "failed"
