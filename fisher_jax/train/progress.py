"""What a person sees while a run goes on: a bar on a terminal, lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from fisher_jax.host.output import clock
from fisher_jax.train.records import Record
from fisher_jax.train.speed import StepWork


def print_header(
    console: Console, config: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Prints the configuration, a row per section, and what follows from it.

    Args:
        config: flat, {"section.key": value}.
    """
    sections: dict[str, dict[str, Any]] = {}
    for name, value in config.items():
        section, _, key = name.rpartition(".")
        sections.setdefault(section or key, {})[key] = value
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for section, content in {**sections, "run": facts}.items():
        cell = Text()
        for key, value in content.items():
            shown = "–" if value is None or value == [] else str(value)
            cell.append(shown if key == section else f"{key} ", style="dim")
            cell.append("" if key == section else f"{shown}  ")
        table.add_row(section, cell)
    console.print(table)


class _LatestColumn(ProgressColumn):
    """The latest record on one line, cut where the terminal ends.

    Rich narrows columns that may wrap before any other, so this column may and its
    text may not.
    """

    def render(self, task: Task) -> Text:
        return Text(task.fields["latest"], no_wrap=True, overflow="ellipsis")


class Display:
    """Shows steps and records; use as a context manager around the loop."""

    def __init__(
        self,
        console: Console,
        total_steps: int,
        steps_per_epoch: int,
        work: StepWork | None = None,
    ):
        """Shows nothing yet.

        Args:
            console: where to write; a bar if it is a terminal, else plain lines.
            total_steps: of the whole run, steps before a resume included.
            steps_per_epoch: to show epochs.
            work: of one step, to show examples and operations a second.
        """
        self._work = work
        self._console = console
        self._total = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._latest = "waiting for the first step"
        self._recorded_speed: float | None = None
        self._started = time.monotonic()
        self._first_step: int | None = None
        self._next_refresh = 0.0
        self._progress = Progress(
            # Where the terminal is narrow only the latest record is cut.
            TextColumn("epoch {task.fields[epoch]:>5}", table_column=_fixed(11)),
            BarColumn(bar_width=10, table_column=_fixed(10)),
            TextColumn("{task.percentage:>3.0f}%", table_column=_fixed(4)),
            TextColumn("{task.fields[speed]:>13}", table_column=_fixed(13)),
            TimeRemainingColumn(
                compact=True, elapsed_when_finished=True, table_column=_fixed(5)
            ),
            _LatestColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(
            "", total=total_steps, epoch="0", latest=self._latest, speed=""
        )

    def __enter__(self) -> Self:
        """Starts the bar."""
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the bar as it stands."""
        if self._console.is_terminal:
            self._progress.stop()

    def show_step(self, steps_done: int) -> None:
        """Moves the bar; drawn at most ten times a second."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = steps_done, now
        if not self._console.is_terminal or now < self._next_refresh:
            return
        self._next_refresh = now + 0.1
        self._refresh(steps_done)

    def show_record(self, record: Record) -> None:
        """Shows the numbers of a record: in the bar, or as a line."""
        self._latest = describe(record)
        speed = record.get("time/steps_per_second")
        self._recorded_speed = speed
        if self._work is not None and speed:
            self._latest += f"  {self._work.describe(speed)}"
        steps_done = int(record["step"] or 0)
        if self._console.is_terminal:
            self._refresh(steps_done)
            return
        left = self._seconds_left(steps_done)
        ending = f"  {clock(left)} left" if left is not None else ""
        epochs = self._total // self._steps_per_epoch
        self._console.print(
            f"epoch {record['epoch']:g}/{epochs}  {self._latest}"
            f"  {self._speed(steps_done)}{ending}",
            soft_wrap=True,
            highlight=False,
        )

    def _refresh(self, steps_done: int) -> None:
        self._progress.update(
            self._task,
            completed=steps_done,
            epoch=f"{steps_done / self._steps_per_epoch:.1f}",
            latest=self._latest,
            speed=self._speed(steps_done),
        )
        self._progress.refresh()

    def _speed(self, steps_done: int) -> str:
        """That of the latest record, which is without measuring; before, of all."""
        if self._recorded_speed:
            return f"{self._recorded_speed:.1f} steps/s"
        if self._first_step is None or steps_done <= self._first_step:
            return ""
        seconds = time.monotonic() - self._started
        return f"{(steps_done - self._first_step) / seconds:.1f} steps/s"

    def _seconds_left(self, steps_done: int) -> float | None:
        if self._first_step is None or steps_done <= self._first_step:
            return None
        seconds = time.monotonic() - self._started
        pace = seconds / (steps_done - self._first_step)
        return pace * (self._total - steps_done)


def _fixed(width: int) -> Column:
    return Column(no_wrap=True, min_width=width)


def describe(record: Record) -> str:
    """Returns "loss 0.41  train 88.1%  test 85.0%  Tr(F) 812 ± 9" for a record."""
    parts = []
    for name, label in (("train/loss", "loss"), ("minibatch/loss", "batch loss")):
        value = record.get(name)
        if value is not None:
            parts.append(f"{label} {value:.3g}")
            break
    for name in ("train", "validation", "test"):
        value = record.get(f"{name}/accuracy")
        if value is not None:
            parts.append(f"{name} {100 * value:.1f}%")
    noisy = record.get("train/noisy_accuracy")
    if noisy is not None:
        parts.append(f"noisy {100 * noisy:.0f}%")
    for name, label in (("trace/fisher", "Tr(F)"), ("trace/hessian", "Tr(H)")):
        value, error = record.get(name), record.get(f"{name}_sem")
        if value is not None:
            parts.append(f"{label} {value:.4g}" + (f" ± {error:.2g}" if error else ""))
    return "  ".join(parts)
