"""Runs a sweep on this machine: so many runs at a time, each on devices of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live

from fisher_jax.host import launcher
from fisher_jax.host.machine import count_cores
from launch import folder
from launch.folder import log_path
from launch.processes import Job, Pool, stopping_on_signals
from launch.table import running_line, runs_table, summary
from launch.work import Work

_POLL_SECONDS = 0.05
_SHOW_SECONDS = 0.5
# Between two lines on what runs, where there is no live table.
LINE_SECONDS = 30.0
# Without it each process takes three quarters of a GPU's memory.
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"


def count_accelerators() -> tuple[str, int]:
    """Returns the kind (cuda, tpu, cpu) and number of accelerators, without jax."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return "cpu", 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        number = len([device for device in visible.split(",") if device])
        return ("cuda", number) if number else ("cpu", 0)
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=False
        )
        number = sum(line.startswith("GPU") for line in listed.stdout.splitlines())
        if number:
            return "cuda", number
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return ("tpu", len(chips)) if chips else ("cpu", 0)


def environments(at_a_time: int | None) -> list[Mapping[str, str]]:
    """Returns what each of the runs that go side by side adds to its environment.

    Args:
        at_a_time: how many; None: one for each accelerator, without any one for every
            two cores.
    """
    kind, number = count_accelerators()
    # Inside an allocation of several tasks each run is still a process of its own.
    alone = launcher.alone()
    if kind == "cpu":
        return [alone] * (at_a_time or max(1, count_cores() // 2))
    at_a_time = at_a_time or number
    share = {}
    if at_a_time > number and _MEMORY not in os.environ:
        share = {_MEMORY: f"{0.9 / -(-at_a_time // number):.3f}"}
    names = (os.environ.get("CUDA_VISIBLE_DEVICES") or "").split(",")
    devices = names if names != [""] else [str(index) for index in range(number)]
    return [
        {**_device(kind, devices[index % number]), **share, **alone}
        for index in range(at_a_time)
    ]


def run_locally(work: Work, pool: Pool, console: Console) -> None:
    """Runs all that can run; whatever ends it lets all runs save and end first.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        StopRequested: after SIGTERM or SIGHUP.
        OSError: the sweep's folder cannot be written.
    """
    try:
        with (
            stopping_on_signals(),
            Live(console=console, auto_refresh=False, transient=True) as live,
        ):
            _loop(work, pool, console, live)
    # Whatever it is, as a full disk: no run is left behind.
    except BaseException:
        codes = pool.stop()
        with suppress(OSError):
            for name, code in codes.items():
                work.note_end(name, code)
        raise


def _loop(work: Work, pool: Pool, console: Console, live: Live) -> None:
    next_show = 0.0
    next_line = time.monotonic() + LINE_SECONDS
    while True:
        ended = pool.ended()
        for name, code in ended.items():
            work.note_end(name, code)
            _say(console, f"{work.states[name].state}: {name} {_why(work, name)}")
        if ended:
            work.refresh()
        for run in work.ready():
            if not pool.has_room:
                break
            if run.name in pool.running:
                continue
            command = work.prepare(run)
            pool.start(run.name, Job(command, log_path(work.out / run.name)))
            _say(console, f"started: {run.name}")
        if time.monotonic() >= next_show:
            _look(work, pool)
            _show(work, console, live)
            next_show = time.monotonic() + _SHOW_SECONDS
        if time.monotonic() >= next_line:
            if line := running_line(work.states):
                _say(console, line)
            next_line = time.monotonic() + LINE_SECONDS
        elsewhere = any(s.state == folder.RUNNING for s in work.states.values())
        if not pool.running and not work.ready() and not elsewhere:
            return
        time.sleep(_POLL_SECONDS)


def _look(work: Work, pool: Pool) -> None:
    """Reads the running runs' records; those of another process may have ended."""
    running = [n for n, s in work.states.items() if s.state == folder.RUNNING]
    foreign = [name for name in running if name not in pool.running]
    work.update([*running, *pool.running])
    if any(work.states[name].state != folder.RUNNING for name in foreign):
        work.refresh()
    for name in pool.running:
        work.states[name] = work.states[name]._replace(state=folder.RUNNING)


def _show(work: Work, console: Console, live: Live) -> None:
    if console.is_terminal:
        rows = max(3, console.size.height - 8)
        live.update(runs_table(work.names, work.states, rows), refresh=True)


def _say(console: Console, text: str) -> None:
    """A line where there is no live table."""
    if not console.is_terminal:
        console.print(text, highlight=False, soft_wrap=True, markup=False)


def _why(work: Work, name: str) -> str:
    state = work.states[name]
    if state.state == folder.FAILED:
        return f"({state.reason}; see {log_path(work.out / name)})"
    return f"({summary(work.names, work.states)})"


def _device(kind: str, name: str) -> dict[str, str]:
    if kind == "cuda":
        return {"CUDA_VISIBLE_DEVICES": name}
    return {
        "TPU_VISIBLE_CHIPS": name,
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }
