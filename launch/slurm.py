"""Runs a sweep on a Slurm cluster: job arrays by submitit, requeued when preempted.

Each run is one task of an array. Shortly before its time limit, or when it is to make
room, Slurm signals it; main.py saves and exits with 75, and the job asks to be queued
again. The sweep's own process only submits and watches: it can end at any time, the
jobs go on, and the same command watches them again.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live

from fisher_jax.errors import UserError, one_line
from launch import folder
from launch.definition import PlannedRun
from launch.folder import RunState
from launch.processes import ROOT
from launch.table import running_line, runs_table, summary
from launch.work import Work

# One controller serves a whole cluster, and asks of its users not to poll it.
_POLL_SECONDS = 15.0
# Before the time limit, to save in; main.py takes SIGUSR1 for "save and end".
_NOTICE_SECONDS = 90
_PREEMPTED = 75


class SlurmOptions(NamedTuple):
    """What each job asks for; None leaves it to the cluster's default.

    Attributes:
        mem: as sbatch takes it, "32G".
        time: in minutes.
        setup: shell lines before the run, as "module load cuda".
        at_a_time: how many jobs of the array run side by side.
        requeue: whether preempted runs go on by themselves.
        poll_seconds: between two looks at the queue.
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    mem: str | None = None
    time: int = 1440
    cpus_per_task: int = 4
    setup: Sequence[str] = ()
    at_a_time: int | None = None
    requeue: bool = True
    poll_seconds: float = _POLL_SECONDS


def run_on_slurm(work: Work, options: SlurmOptions, console: Console) -> None:
    """Submits what can run and watches until nothing is queued or running.

    A run whose job was cancelled is not submitted again before the next start.

    Raises:
        UserError: Slurm refuses a job.
        KeyboardInterrupt: after Ctrl-C; the jobs go on.
    """
    submitted: dict[str, int] = {}
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while _round(work, options, submitted, console, live):
                time.sleep(options.poll_seconds)
    except KeyboardInterrupt:
        jobs = sorted({s.job.partition("_")[0] for s in work.states.values() if s.job})
        console.print(
            "Queued and running jobs continue; to cancel them: scancel "
            f"{' '.join(jobs)}"
        )
        raise


def _round(
    work: Work,
    options: SlurmOptions,
    submitted: dict[str, int],
    console: Console,
    live: Live,
) -> bool:
    """Looks, submits, shows; returns whether to go on."""
    work.refresh()
    queue = read_queue()
    if queue is None:  # the controller does not answer; nothing is known
        return True
    active = {name for name, s in work.states.items() if s.job in queue}
    fresh = [
        run
        for run in work.ready()
        if run.name not in active and _may_submit(work, run.name, submitted)
    ]
    if fresh:
        jobs = submit(work, fresh, options)
        submitted.update((run.name, work.states[run.name].failures) for run in fresh)
        if not console.is_terminal:
            console.print(f"submitted {len(fresh)} runs: {jobs[0]} to {jobs[-1]}")
    shown = with_queue(work.states, queue)
    if console.is_terminal:
        rows = max(3, console.size.height - 8)
        live.update(runs_table(work.names, shown, rows), refresh=True)
    elif fresh:
        console.print(summary(work.names, shown))
    elif line := running_line(shown):
        console.print(line)
    return bool(fresh or active)


def _may_submit(work: Work, name: str, submitted: Mapping[str, int]) -> bool:
    """Once in this process, and once more after each failure but bad input."""
    if name not in submitted:
        return True
    attempts = folder.read_attempts(work.out / name)
    return attempts.failures > submitted[name] and attempts.exit_code != 2


def submit(work: Work, runs: Sequence[PlannedRun], options: SlurmOptions) -> list[str]:
    """Submits the runs as one array; returns their job ids.

    Raises:
        UserError: Slurm refuses.
    """
    import submitit

    executor = submitit.SlurmExecutor(work.out / "slurm")
    executor.update_parameters(**_parameters(work.out, options))
    commands = [work.prepare(run) for run in runs]
    directories = [str((work.out / run.name).absolute()) for run in runs]
    asks = [options.requeue] * len(runs)
    try:
        jobs = executor.map_array(run_in_job, commands, directories, asks)
    except (submitit.core.utils.FailedJobError, OSError) as error:
        raise UserError(f"Slurm refused the jobs: {_last_line(error)}") from error
    for run, job in zip(runs, jobs, strict=True):
        directory = work.out / run.name
        attempts = folder.read_attempts(directory)
        folder.write_attempts(directory, attempts._replace(job=job.job_id))
    work.update([run.name for run in runs])
    return [job.job_id for job in jobs]


def _parameters(out: Path, options: SlurmOptions) -> dict[str, Any]:
    """What submitit is told; what is None is left to the cluster."""
    asked = {
        name: getattr(options, name)
        for name in ("account", "partition", "qos", "constraint", "gres", "mem")
        if getattr(options, name) is not None
    }
    return asked | {
        "job_name": out.name,
        "time": options.time,
        "cpus_per_task": options.cpus_per_task,
        "setup": list(options.setup),
        "array_parallelism": options.at_a_time or 256,
        "signal_delay_s": _NOTICE_SECONDS,
        "stderr_to_stdout": True,
        # From Slurm 22.05 a step no longer takes them over from its job.
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}"],
        "additional_parameters": {
            "requeue" if options.requeue else "no-requeue": True,
            "chdir": str(ROOT),
        },
    }


def submission(out: Path, options: SlurmOptions, num_runs: int) -> str:
    """Returns the text that sbatch would get for an array of so many runs.

    Raises:
        UserError: submitit is missing.
    """
    _check_submitit()
    from submitit.slurm import slurm

    text: str = slurm._make_sbatch_string(
        command=f"{sys.executable} -u -m submitit.core._submit {out / 'slurm'}",
        folder=out / "slurm",
        map_count=num_runs,
        **_parameters(out, options),
    )
    return text


def run_in_job(command: Sequence[str], directory: str, requeue: bool) -> int:
    """Runs one run inside its job; returns main.py's exit code.

    Signals are passed on. After exit code 75 the job is queued again, unless Slurm has
    already done so, or cancels it.
    """
    run_directory = Path(directory)
    with folder.log_path(run_directory).open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.send_signal(signal.SIGTERM)

        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, pass_on)
        code = process.wait()
    folder.note_end(run_directory, code)
    if code == _PREEMPTED and requeue:
        _requeue_own_job()
    return code


def _requeue_own_job() -> None:
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    found = _output(["squeue", "-h", "-j", job, "-o", "%T"]) or ""
    if found.strip() == "RUNNING":
        subprocess.run(["scontrol", "requeue", job], check=False)


def read_queue() -> dict[str, str] | None:
    """Returns the state of each of the user's jobs by id; None if Slurm is silent."""
    listed = _output(
        ["squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%F %K %i %T"]
    )
    if listed is None:
        return None
    queue = {}
    for line in listed.splitlines():
        array, task, job, state = line.split()
        queue[job if task == "N/A" else f"{array}_{task}"] = state
    return queue


def with_queue(
    states: Mapping[str, RunState], queue: Mapping[str, str] | None = None
) -> dict[str, RunState]:
    """Returns the states with what Slurm knows of the jobs.

    Args:
        queue: of ``read_queue``; None reads it.
    """
    if queue is None:
        queue = (read_queue() or {}) if shutil.which("squeue") else {}
    shown = {}
    for name, state in states.items():
        if state.state not in folder.ENDED and state.job in queue:
            runs = queue[state.job] in ("RUNNING", "COMPLETING")
            state = state._replace(state=folder.RUNNING if runs else folder.QUEUED)
        shown[name] = state
    return shown


def check_slurm() -> None:
    """Checks that jobs can be submitted from here.

    Raises:
        UserError: Slurm or submitit is missing, or Slurm does not answer.
    """
    if not shutil.which("sbatch") or not shutil.which("squeue"):
        raise UserError(
            "Slurm is not available here (no sbatch); --executor=local runs on this "
            "machine"
        )
    _check_submitit()
    if read_queue() is None:
        raise UserError("Slurm does not answer (squeue failed)")


def _check_submitit() -> None:
    # What Slurm sends before the time limit; submitit reads it when it is imported.
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(
            "submitit is not installed; pip install -e '.[launch]' in a clone"
        ) from error


def _output(command: Sequence[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if "error" in line.lower()] or lines
    return one_line(Exception(wanted[-1])) if wanted else type(error).__name__
