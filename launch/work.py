"""A sweep under way: which runs there are by now, and which can start."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fisher_jax.errors import UserError
from fisher_jax.run_files import FINISHED, flatten, read_json
from fisher_jax.train.config import split_path
from launch import folder, winners
from launch.definition import Definition, PlannedRun
from launch.folder import RunState
from launch.processes import main_command

# Exit code of main.py for a bad configuration or missing data: the same again.
_BAD_INPUT = 2


class Work:
    """What a sweep has defined, chosen and left to do; both executors ask it."""

    def __init__(
        self,
        definition: Definition,
        out: Path,
        *,
        given: Mapping[str, Mapping[str, Any]] | None = None,
        only: Sequence[str] = (),
        max_failures: int = 3,
    ):
        """Reads where the sweep stands.

        Args:
            given: entries of another sweep's selection.json, taken as chosen here.
            only: patterns of run names; others are left alone. Empty: all.
            max_failures: a run that has failed so often is not started again.

        Raises:
            UserError: no run matches ``only``.
        """
        self.definition, self.out = definition, out
        self.max_failures = max_failures
        self.selection: dict[str, Any] = {
            **(given or {}),
            **read_json(out / "selection.json"),
        }
        self.problems: dict[str, str] = {}  # of searches, by name
        self.changes: list[str] = []  # what grown searches have changed, in words
        self._outgrown: dict[str, Any] = {}  # their earlier entries
        self.states: dict[str, RunState] = {}
        self._not_again: set[str] = set()
        self._only = only
        self.names = [run.name for run in matching(definition.plan(None), only)]
        self.runs: dict[str, PlannedRun] = {}
        self._forget_outgrown()
        self._plan()
        self.refresh()

    def refresh(self) -> None:
        """Chooses in searches that have ended and reads the other runs' states."""
        while self._choose():
            self._plan()
        self.update(name for name in self.names if not self._has_ended(name))

    def update(self, names: Any) -> None:
        """Reads how these runs stand."""
        locked = folder.locked_files()
        for name in names:
            state = folder.read_state(self.out / name, locked)
            run = self.runs.get(name)
            is_waiting = run is None or (
                run.waits_for is not None and not self._is_done(run.waits_for)
            )
            if state.state == folder.QUEUED and is_waiting:
                state = state._replace(state=folder.WAITING)
            self.states[name] = state

    def ready(self) -> list[PlannedRun]:
        """Returns the runs that can start now, in order."""
        return [
            run
            for name, run in self.runs.items()
            if self.states[name].state
            in (folder.QUEUED, folder.INTERRUPTED, folder.FAILED)
            and self.states[name].failures < self.max_failures
            and name not in self._not_again
            and (run.waits_for is None or self._is_done(run.waits_for))
        ]

    def prepare(self, run: PlannedRun) -> list[str]:
        """Makes the run's folder with run.json; returns the command that runs it."""
        directory = self.out / run.name
        directory.mkdir(exist_ok=True)
        folder.write_json(directory / "run.json", run.labels)
        return command_of(self.definition, run, self.out)

    def note_end(self, name: str, code: int) -> None:
        """Remembers how a start of a run ended."""
        folder.note_end(self.out / name, code)
        if code == _BAD_INPUT:
            self._not_again.add(name)
        self.update([name])

    def _plan(self) -> None:
        """Asks the definition for the runs that the winners allow."""
        planned = self.definition.plan(winners.winners_of(self.selection))
        self._searches = winners.searches(planned)
        self.runs = {run.name: run for run in matching(planned, self._only)}
        self.names += [name for name in self.runs if name not in self.names]

    def _forget_outgrown(self) -> None:
        """Takes back what searches chose whose grid has grown since."""
        candidates = winners.searches(self.definition.plan(None))
        for name, runs in candidates.items():
            entry = self.selection.get(name, {})
            known = {one.get("run") for one in entry.get("candidates", [])}
            if known and any(run.name not in known for run in runs):
                self._outgrown[name] = self.selection.pop(name)

    def _supersede(self, name: str) -> None:
        """Says what a grown search chooses now; moves runs with another value aside."""
        before, now = self._outgrown.pop(name), self.selection[name]
        what = f"{name}: the grid grew to {len(now['candidates'])} values"
        if before["value"] == now["value"]:
            kept = f"{now['key']}={now['value']:g} still wins"
            self.changes.append(f"{what}; {kept}")
            return
        moved: list[str] = []
        for run in self.definition.plan(winners.winners_of(self.selection)):
            directory = self.out / run.name
            if not (directory / "config.json").exists() or run.search is not None:
                continue
            if run.waits_for in moved or _is_other(directory, run, now["key"]):
                folder.supersede(directory)
                self.states.pop(run.name, None)
                moved.append(run.name)
        said = f"{now['key']} is {now['value']:g}, no longer {before['value']:g}"
        again = f"; made again: {', '.join(moved)}" if moved else ""
        self.changes.append(f"{what}; {said}{again}")

    def _choose(self) -> bool:
        """Chooses in each search that has just ended; returns whether one had."""
        has_chosen = False
        for name, candidates in self._searches.items():
            if name in self.selection or name in self.problems:
                continue
            results = winners.read_results(self.out, candidates)
            if results is None:
                continue
            try:
                self.selection[name] = winners.choose(candidates, results)
            except UserError as error:
                self.problems[name] = str(error)
                continue
            has_chosen = True
            if name in self._outgrown:
                self._supersede(name)
        if has_chosen:
            folder.write_json(self.out / "selection.json", self.selection)
        return has_chosen

    def _has_ended(self, name: str) -> bool:
        return name in self.states and self.states[name].state in folder.ENDED

    def _is_done(self, name: str) -> bool:
        return read_json(self.out / name / "result.json").get("status") == FINISHED


def _is_other(directory: Path, run: PlannedRun, key: str) -> bool:
    """Whether a run was made with another value of ``key`` than is planned now."""
    recorded = flatten(read_json(directory / "config.json").get("config", {}))
    return key in run.overrides and recorded.get(key) != run.overrides[key]


def matching(runs: Sequence[PlannedRun], only: Sequence[str]) -> list[PlannedRun]:
    """Returns the runs that ``folder.wanted`` names."""
    names = set(folder.wanted([run.name for run in runs], only))
    return [run for run in runs if run.name in names]


def command_of(definition: Definition, run: PlannedRun, out: Path) -> list[str]:
    """Returns the command line of one run: the file, what it changes, the caller's."""
    changes = {
        key: f"{out.absolute()}/{run.waits_for}"
        if key == "train.init_from" and run.waits_for
        else _as_text(value)
        for key, value in run.overrides.items()
    }
    texts = {**changes, **dict(definition.command_line)}
    flags = [f"--config.{key}={text}" for key, text in texts.items()]
    file, arg = split_path(definition.path)
    path = f"{Path(file).absolute()}:{arg}" if arg else str(Path(file).absolute())
    return main_command(path, out.absolute() / run.name, *flags)


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"({','.join(map(str, value))})"
    return str(value)
