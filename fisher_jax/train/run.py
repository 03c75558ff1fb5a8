"""A run from configuration to result: ``run`` is what main.py calls."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import jax
from rich.console import Console

from fisher_jax import parallel, startup
from fisher_jax.data.cache import default_cache_dir
from fisher_jax.errors import UserError, one_line
from fisher_jax.liveness import watch_processes
from fisher_jax.run_files import DIVERGED, FINISHED, quantities
from fisher_jax.train import checkpoints, loop, records, restoring
from fisher_jax.train.assemble import build, load_data
from fisher_jax.train.checkpoints import Snapshot
from fisher_jax.train.command_line import CommandLine
from fisher_jax.train.config import flat_config
from fisher_jax.train.keys import Config
from fisher_jax.train.progress import Display, print_header
from fisher_jax.train.provenance import (
    changes,
    check_same_settings,
    config_json,
    facts_of,
    numeric_settings,
)
from fisher_jax.train.signals import EXIT_PREEMPTED, StopSignals
from fisher_jax.train.speed import StepTrace
from fisher_jax.train.surroundings import check_mesh
from fisher_jax.train.trackers import TrackedRun, open_tracker, require_tracker

EXIT_FINISHED, EXIT_DIVERGED = 0, 3


def run(config: Config, command: CommandLine) -> int:
    """Runs or continues ``config`` in the command's workdir; returns the exit code.

    Args:
        config: checked by ``load_config``.
        command: the command line: workdir, processes, and all of it for the record.

    Raises:
        UserError: anything that the user has to change; nothing computed is lost.
    """
    settings = numeric_settings()
    if config.train.deterministic:
        startup.require_determinism()
    startup.keep_convolutions_off_ynnpack()
    startup.start_processes(*command.processes)
    startup.initialise_devices()
    liveness = watch_processes(_leave_after_loss)
    stop = StopSignals()
    stop.install()
    try:
        return _run_in_workdir(config, command, settings, stop)
    except UserError as error:
        if jax.process_count() == 1:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        parallel.leave(2)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        if liveness is not None:
            liveness.end()
        _leave_after_loss(one_line(error)[:200])
    finally:
        if liveness is not None:
            liveness.end()


def _leave_after_loss(why: str) -> NoReturn:
    print(
        "error: lost the connection to another process of this run; start all "
        f"processes again to continue from the last checkpoint ({why})",
        file=sys.stderr,
    )
    parallel.leave(EXIT_PREEMPTED)


def _run_in_workdir(
    config: Config,
    command: CommandLine,
    settings: Mapping[str, Any],
    stop: StopSignals,
) -> int:
    """Starts or continues what the workdir holds, if it has not ended before."""
    console = Console(
        soft_wrap=True, markup=False, highlight=False, quiet=not parallel.is_first()
    )
    directory = Path(command.workdir)
    if dict(settings) != parallel.from_first(lambda: dict(settings)):
        raise UserError(
            "this process and the first have different JAX or XLA settings; start "
            "all processes in the same environment"
        )
    if command.has_default_workdir:
        console.print(f"Run directory: {directory} (--workdir=DIR chooses another).")
    with ExitStack() as lock:
        is_known, has_ended = parallel.from_first(
            lambda: _enter(directory, config, settings, lock, _warner(console))
        )
        if has_ended:
            return _report_earlier_end(console, directory)
        plan, snapshot = _prepare(config, command, settings, console, is_known)
        opened = _session(config, command, plan, snapshot, console, stop)
        with opened as (session, snapshot):
            try:
                loop.train(plan, snapshot, session)
                status, steps = FINISHED, plan.schedule.total_steps
            except loop.Stopped as stopped:
                console.print(
                    f"Saved at step {stopped.step}; the same command continues from "
                    "there."
                )
                return stop.exit_code
            except loop.Diverged as error:
                _print_divergence(console, error, session.manager)
                status, steps = DIVERGED, 0
                if session.records:
                    steps = int(session.records[-1]["step"] or 0)
            if session.tracker is not None:
                session.tracker.end(status)
        if parallel.is_first():
            measured = quantities(
                session.records,
                early_loss=config.measure.early_loss,
                steps_per_epoch=plan.schedule.steps_per_epoch,
            )
            result = {"status": status, **measured, "steps": steps}
            records.write_json(directory / "result.json", result)
            _print_result(console, result, directory)
    return EXIT_FINISHED if status == FINISHED else EXIT_DIVERGED


def _enter(
    directory: Path,
    config: Config,
    settings: Mapping[str, Any],
    lock: ExitStack,
    warn: Callable[[str], None],
) -> tuple[bool, bool]:
    """Locks the workdir; returns whether this run has been here, and has ended."""
    lock.enter_context(records.open_workdir(directory, warn))
    is_known = records.check_same_config(
        directory, flat_config(config), flat_config(Config())
    )
    has_ended = (directory / "result.json").exists()
    if not has_ended:
        if is_known:
            check_same_settings(directory, settings)
        require_tracker(config.tracker)
    return is_known, has_ended


def _prepare(
    config: Config,
    command: CommandLine,
    settings: Mapping[str, Any],
    console: Console,
    is_known: bool,
) -> tuple[loop.Plan, Snapshot]:
    """Loads the data and builds the run; writes config.json or compares with it."""
    startup.start_compilation_cache(default_cache_dir().parent / "xla")
    mesh = parallel.make_mesh()
    check_mesh(config, mesh)  # before the data, which may take long to load
    data = load_data(config)
    plan, snapshot = build(config, data, mesh)
    facts = facts_of(data, plan, snapshot.state)
    if parallel.is_first():
        content = config_json(config, command.argv, settings, facts)
        path = Path(command.workdir) / "config.json"
        if not is_known:
            records.write_json(path, content)
        elif lines := changes(records.require_json(path), content):
            _warner(console)(
                "from here on the numbers may differ from a run without this "
                "restart: " + "; ".join(lines)
            )
    print_header(console, flat_config(config), facts)
    return plan, snapshot


@contextmanager
def _session(
    config: Config,
    command: CommandLine,
    plan: loop.Plan,
    snapshot: Snapshot,
    console: Console,
    stop: StopSignals,
) -> Iterator[tuple[loop.Session, Snapshot]]:
    """What surrounds the loop, and the newest intact checkpoint or the snapshot."""
    directory, schedule = Path(command.workdir), plan.schedule
    is_first = parallel.is_first()
    with ExitStack() as files:
        manager = files.enter_context(
            checkpoints.open_manager(directory / "checkpoints", config.checkpoint.keep)
        )
        restored = restoring.restore_latest(manager, snapshot, _warner(console))
        start = -1 if restored is None else int(restored.state.step)
        kept = _keep_records(directory / "metrics.jsonl", start)
        if restored is not None:
            epoch = start / schedule.steps_per_epoch
            console.print(f"Continuing from step {start} (epoch {epoch:g}).")
        work = loop.work_of_a_step(plan, snapshot.state) if is_first else None
        display = Display(console, schedule.total_steps, schedule.steps_per_epoch, work)
        trace = StepTrace(command.profile_steps, directory / "tensorboard")
        files.callback(trace.end)
        tracker = None
        if is_first:
            tracked = TrackedRun(directory, flat_config(config), kept, start + 1)
            tracker = open_tracker(config.tracker, tracked)
            files.callback(tracker.close)
        session = loop.Session(
            metrics_path=directory / "metrics.jsonl" if is_first else None,
            records=kept,
            manager=manager,
            tracker=tracker,
            display=files.enter_context(display),
            stop=stop,
            trace=trace,
        )
        is_alone = jax.process_count() == 1
        any_wants = None if is_alone else parallel.Agreement(plan.mesh).any_wants
        stop.start_noting(any_wants)
        yield session, restored or snapshot


def _report_earlier_end(console: Console, directory: Path) -> int:
    result = records.require_json(directory / "result.json")
    diverged = result.get("status") == DIVERGED
    console.print(
        f"This run has already {'diverged' if diverged else 'finished'}; its result is "
        f"{directory / 'result.json'} (to run again, remove that folder or choose "
        "another --workdir)."
    )
    return EXIT_DIVERGED if diverged else EXIT_FINISHED


def _keep_records(path: Path, last_step: int) -> list[records.Record]:
    """The records that stay: all on the first process, the last one on the others."""
    kept: list[records.Record] = []

    def keep_and_tell_the_last() -> list[records.Record]:
        kept.extend(records.keep_records(path, last_step))
        return kept[-1:]

    last = parallel.from_first(keep_and_tell_the_last)
    return kept or last


def _print_divergence(
    console: Console, error: loop.Diverged, manager: checkpoints.Manager
) -> None:
    checkpoints.finish(manager)
    step = checkpoints.latest_step(manager)
    console.print(f"Diverged: {error}. Last good checkpoint: {step or 'none'}.")


def _warner(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(f"Warning: {text}", style="yellow")


def _print_result(console: Console, result: dict[str, Any], directory: Path) -> None:
    shown = {k: v for k, v in result.items() if v is not None}
    text = "  ".join(
        f"{k.replace('_', ' ')} " + (f"{v:.4g}" if isinstance(v, float) else str(v))
        for k, v in shown.items()
    )
    console.print(f"{text}\nResult: {directory / 'result.json'}")
