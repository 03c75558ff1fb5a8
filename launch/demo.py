"""``make demo``: the Fisher Penalty against memorising wrong labels, on real images.

Trains the same network on scikit-learn's digits with 25% of the labels replaced:
without a penalty, with both forms of the Fisher Penalty and with mixup. Then prints a
table and draws a figure. A second call shows the finished runs again.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fisher_jax.errors import UserError, needs_extra, one_line
from fisher_jax.host.machine import count_cores
from fisher_jax.host.output import clock, keep_writing
from fisher_jax.host.paths import path_argument
from launch import folder
from launch.parser import Parser
from launch.processes import Job, StopRequested, main_command, run_side_by_side

with needs_extra("train"):
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from fisher_jax.report.compare import Metric, draw_runs, save_figure
    from fisher_jax.run_files import RunFiles, read_run
    from launch.local import count_accelerators, environments
    from launch.table import running_line

CONFIG = "experiments/digits_fp.py"
# Measuring each of the short epochs would take almost as long as training them.
_EVERY = "--config.measure.every_epochs=3"
_LINE_SECONDS = 10.0  # between two lines on what runs, where there is no live table
VARIANTS = {
    "baseline": "no penalty",
    "fp": "FP (paper)",
    "rfp": "RFP (ours)",
    "mixup": "mixup",
}
METRICS = (
    Metric("trace/fisher", "Tr(F), trace of the Fisher matrix", "log"),
    Metric("test/accuracy", "test accuracy, %", factor=100),
    Metric("train/noisy_accuracy", "wrong labels memorised, %", factor=100),
)


def main(directory: Path) -> int:
    """Runs the methods, side by side, and shows what came out."""
    console = Console()
    console.print(
        "Four methods, each with the same CNN, learning rate and 1000 handwritten "
        "digits, a quarter of their labels replaced at random; 150 epochs.\n"
        f"Runs and logs: {directory}\n"
    )
    jobs = {
        name: Job(
            main_command(f"{CONFIG}:{name}", directory / name, _EVERY),
            directory / f"{name}.log",
        )
        for name in VARIANTS
    }
    has_accelerators = count_accelerators()[1] > 0
    at_a_time = None if has_accelerators else min(len(VARIANTS), count_cores())
    next_line = time.monotonic() + _LINE_SECONDS
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def watch(states: dict[str, str]) -> None:
            nonlocal next_line
            if console.is_terminal:
                live.update(progress_table(directory, states), refresh=True)
            elif time.monotonic() >= next_line:
                locked = folder.locked_files()
                runs = {n: folder.read_state(directory / n, locked) for n in states}
                if line := running_line(runs):
                    console.print(line, soft_wrap=True)
                next_line = time.monotonic() + _LINE_SECONDS

        codes = run_side_by_side(jobs, environments(at_a_time), watch)
    failed = [name for name, code in codes.items() if code]
    for name in failed:
        log = jobs[name].log
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        console.print(f"error: {name} failed: {''.join(last)} (see {log})")
    runs = {name: read_run(directory / name) for name in VARIANTS if name not in failed}
    if runs:
        console.print(result_table(runs))
        figure_path = directory / "demo.png"
        shown = {VARIANTS[name]: [run] for name, run in runs.items()}
        title = "Digits with 25% of the training labels replaced at random"
        if (figure := draw_runs(shown, METRICS, title)) is not None:
            save_figure(figure, figure_path)
            console.print(f"Figure: {figure_path}")
        console.print(
            "For tables, figures and a page of these or any other runs, beside the "
            "paper's numbers:\n  " + report_command(directory),
            soft_wrap=True,
        )
    return 1 if failed else 0


def report_command(directory: Path) -> str:
    """The command line that makes the report of these runs, to be copied."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    out = directory.with_name(directory.name + "_report")
    words = [str(python), "-m", "fisher_jax.report", str(directory), f"--out={out}"]
    return shlex.join(words)


def progress_table(directory: Path, states: dict[str, str]) -> Table:
    """The runs as they stand."""
    table = Table("method", "state", "epoch", "left", "test %", "memorised %", "Tr(F)")
    locked = folder.locked_files()
    for name, state in states.items():
        records = read_run(directory / name).records
        latest = records[-1] if records else {}
        left = folder.read_state(directory / name, locked).seconds_left
        table.add_row(
            VARIANTS[name],
            state,
            _number(latest.get("epoch"), "g"),
            "" if left is None else clock(left),
            _percent(latest.get("test/accuracy")),
            _percent(latest.get("train/noisy_accuracy")),
            _number(latest.get("trace/fisher"), ".4g"),
        )
    return table


def result_table(runs: dict[str, RunFiles]) -> Table:
    """The demo's result: what each method remembered and what it learnt."""
    table = Table(title="After 150 epochs, accuracies in %")
    for heading in (
        "method",
        "test",
        "true labels learnt",
        "wrong ones memorised",
        "peak Tr(F)",
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, run in runs.items():
        result = run.result
        seconds = run.records[-1]["time"] if run.records else None
        table.add_row(
            VARIANTS[name],
            _percent(result.get("test_accuracy")),
            _percent(result.get("final_train_clean_accuracy")),
            _percent(result.get("final_train_noisy_accuracy")),
            _number(result.get("max_fisher_trace"), ".0f"),
            _number(seconds, ".0f"),
        )
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def directory_of(argv: Sequence[str]) -> Path:
    """Returns the folder that the command line names."""
    parser = Parser("python -m launch.demo", __doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=path_argument,
        default=Path("runs/demo"),
        help="where the runs go (default: runs/demo)",
    )
    folder: Path = parser.parse_args(argv).folder
    return folder


if __name__ == "__main__":
    keep_writing()
    try:
        sys.exit(main(directory_of(sys.argv[1:])))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped; the same command continues.")
        sys.exit(130)
    except StopRequested:
        print("\nStopped by a signal; the same command continues.")
        sys.exit(75)
