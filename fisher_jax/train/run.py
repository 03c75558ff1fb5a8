"""A run from configuration to result: ``run`` is what main.py calls."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from rich.console import Console
from tensorboardX import SummaryWriter

from fisher_jax import parallel
from fisher_jax.data.cache import default_cache_dir
from fisher_jax.train import checkpoints, loop, records
from fisher_jax.train.assemble import build, load_data
from fisher_jax.train.checkpoints import Snapshot
from fisher_jax.train.config import flat_config
from fisher_jax.train.progress import Display, print_header
from fisher_jax.train.provenance import config_json, facts_of
from fisher_jax.train.signals import StopSignals

EXIT_FINISHED, EXIT_DIVERGED = 0, 3


def run(config: ConfigDict, workdir: str, argv: Sequence[str]) -> int:
    """Runs or continues ``config`` in ``workdir`` and returns the exit code.

    Args:
        config: checked by ``load_config``.
        argv: the command line, for the record.

    Raises:
        UserError: anything that the user has to change; nothing computed is lost.
    """
    stop = StopSignals()
    stop.install()
    console = Console(soft_wrap=True, markup=False, highlight=False)
    directory, lock = records.open_workdir(workdir)
    with lock:
        is_known = records.check_same_config(directory, flat_config(config))
        if (directory / "result.json").exists():
            return _report_earlier_end(console, directory)
        parallel.start_compilation_cache(default_cache_dir().parent / "xla")
        mesh = parallel.make_mesh()
        parallel.check_divides("train.batch_size", config.train.batch_size, mesh)
        data = load_data(config)
        plan, snapshot = build(config, data, mesh)
        facts = facts_of(data, plan, snapshot.state)
        if not is_known:
            content = config_json(config, argv, facts)
            records.write_json(directory / "config.json", content)
        print_header(console, flat_config(config), facts)
        return _run_to_end(config, plan, snapshot, directory, console, stop)


def _report_earlier_end(console: Console, directory: Path) -> int:
    result = records.read_json(directory / "result.json")
    diverged = result.get("status") == records.DIVERGED
    console.print(
        f"This run has {'diverged' if diverged else 'finished'} before; its result is "
        f"{directory / 'result.json'} (remove that file to run again)."
    )
    return EXIT_DIVERGED if diverged else EXIT_FINISHED


def _run_to_end(
    config: ConfigDict,
    plan: loop.Run,
    snapshot: Snapshot,
    directory: Path,
    console: Console,
    stop: StopSignals,
) -> int:
    """Continues from the newest intact checkpoint and writes the result."""
    schedule = plan.schedule
    manager = checkpoints.open_manager(
        directory / "checkpoints", config.checkpoint.keep
    )
    restored = checkpoints.restore_latest(manager, snapshot, _warner(console))
    start = -1 if restored is None else int(restored.state.step)
    kept = records.keep_records(directory / "metrics.jsonl", start)
    if restored is not None:
        epoch = start / schedule.steps_per_epoch
        console.print(f"Continuing from step {start} (epoch {epoch:g}).")
    display = Display(console, schedule.total_steps, schedule.steps_per_epoch)
    writer = SummaryWriter(str(directory / "tensorboard"), purge_step=start + 1)
    session = loop.Session(
        directory / "metrics.jsonl", kept, manager, writer, display, stop
    )
    status, steps = records.FINISHED, schedule.total_steps
    stop.start_noting()
    with manager, writer, display:
        try:
            loop.train(plan, restored or snapshot, session)
        except loop.Diverged as error:
            status, steps = records.DIVERGED, int(kept[-1]["step"] or 0)
            _print_divergence(console, error, manager)
        except loop.Stopped as stopped:
            console.print(
                f"Saved at step {stopped.step}; the same command continues from there."
            )
            return stop.exit_code
    result = records.summarise(
        kept, status, steps, schedule.steps_per_epoch, config.measure.early_loss
    )
    records.write_json(directory / "result.json", result)
    _print_result(console, result, directory)
    return EXIT_FINISHED if status == records.FINISHED else EXIT_DIVERGED


def _print_divergence(
    console: Console, error: loop.Diverged, manager: ocp.CheckpointManager
) -> None:
    manager.wait_until_finished()
    step = manager.latest_step()
    left = "No checkpoint." if step is None else f"Last good checkpoint: {step}."
    console.print(f"Diverged: {error}. {left}")


def _warner(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(f"Warning: {text}", style="yellow")


def _print_result(console: Console, result: dict[str, Any], directory: Path) -> None:
    shown = {k: v for k, v in result.items() if v is not None}
    text = "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )
    console.print(f"{text}\nResult: {directory / 'result.json'}")
