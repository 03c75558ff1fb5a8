"""A sweep's runs as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from fisher_jax.host.output import clock
from fisher_jax.run_files import DIVERGED
from launch import folder
from launch.folder import RunState

_STYLES = {
    folder.DONE: "green",
    folder.RUNNING: "bold",
    folder.FAILED: "red",
    DIVERGED: "yellow",
    folder.INTERRUPTED: "yellow",
}
# Where a screen is too small, runs in these states are shown first.
_FIRST = (folder.RUNNING, folder.FAILED, DIVERGED, folder.INTERRUPTED)


def runs_table(
    names: Sequence[str], states: Mapping[str, RunState], rows: int | None = None
) -> Table:
    """Returns a row for each run: state, epoch, time left, Tr(F), why it failed.

    Args:
        rows: at most so many, those that need attention first; None: all.
    """
    table = Table(
        "run",
        "state",
        "epoch",
        "left",
        "Tr(F)",
        "error",
        caption=summary(names, states),
    )
    shown = set(names)
    if rows is not None and len(names) > rows:
        urgent = [name for name in names if states[name].state in _FIRST]
        queued = [n for n in names if states[n].state == folder.QUEUED]
        done = [n for n in reversed(names) if states[n].state == folder.DONE]
        shown = set([*urgent, *queued[:3], *done, *queued[3:]][:rows])
    for name in names:
        if name in shown:
            table.add_row(*_row(name, states[name]))
    return table


def running_line(states: Mapping[str, RunState]) -> str:
    """Returns "a: epoch 12/60, 3:20 left; b: starting" for what runs; at most four."""
    running = [(n, s) for n, s in states.items() if s.state == folder.RUNNING]
    parts = [f"{name}: {state.progress}" for name, state in running[:4]]
    more = [f"and {len(running) - 4} more"] if len(running) > 4 else []
    return "; ".join([*parts, *more])


def summary(names: Sequence[str], states: Mapping[str, RunState]) -> str:
    """Returns "24 runs: 3 done, 2 running, 19 queued"."""
    counts = Counter(states[name].state for name in names)
    parts = [f"{number} {state}" for state, number in sorted(counts.items())]
    return f"{len(names)} runs: {', '.join(parts)}"


def _row(name: str, state: RunState) -> tuple[str, Text, str, str, str, str]:
    reason = state.reason if state.state == folder.FAILED else ""
    if reason and state.failures > 1:
        reason += f" ({state.failures} times)"
    of = "" if state.num_epochs is None else f"/{state.num_epochs:g}"
    is_known = state.state == folder.RUNNING and state.seconds_left is not None
    left = clock(state.seconds_left or 0) if is_known else ""
    return (
        name,
        Text(state.state, style=_STYLES.get(state.state, "")),
        "–" if state.epoch is None else f"{state.epoch:g}{of}",
        left,
        "–" if state.fisher_trace is None else f"{state.fisher_trace:.4g}",
        reason,
    )
