"""What a sweep consists of: read from an experiment file, checked before any run.

``experiments/sweeps.py`` says what a file may define.
"""

import importlib.util
import inspect
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments.sweeps import Search, SweepRun, Winners, differences
from fisher_jax.errors import UserError, one_line
from fisher_jax.report.names import method_of
from fisher_jax.run_files import FORMS, flatten
from fisher_jax.train.config import (
    check_config,
    flat_config,
    load_config,
    parse_value,
    split_path,
)
from fisher_jax.train.keys import Config


class NoSweepError(UserError):
    """A file without a sweep."""


class PlannedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: its folder below the sweep's.
        overrides: {"section.key": value} against the file's get_config(arg).
        labels: what run.json holds.
        search: the search of which it is a candidate.
        value: the candidate's value of the search's key.
        waits_for: the run whose parameters start this one.
    """

    name: str
    overrides: Mapping[str, Any]
    labels: Mapping[str, Any]
    search: Search | None = None
    value: float | None = None
    waits_for: str | None = None


class Definition(NamedTuple):
    """A sweep as its file defines it.

    Attributes:
        path: of the file, with ``:arg`` if there is one.
        command_line: pairs (key, text) that the caller sets for every run.
        base: get_config(arg) with them, flat, as JSON holds it.
        plan: from the winners so far (None: every documented reading) to the runs.
    """

    path: str
    command_line: tuple[tuple[str, str], ...]
    base: Mapping[str, Any]
    plan: Callable[[Winners | None], list[PlannedRun]]


def load_definition(
    path: str, command_line: Sequence[tuple[str, str]] = ()
) -> Definition:
    """Reads ``FILE.py[:arg]`` and checks every run that it can define.

    Raises:
        UserError: no such file, no sweep in it, or a run whose configuration cannot
            be used.
    """
    file, arg = split_path(path)
    config = load_config(path, command_line)
    module = _load(file)
    set_for_all = {key: parse_value(key, text) for key, text in command_line}
    experiment = Path(file).stem

    def plan(winners: Winners | None) -> list[PlannedRun]:
        base = _call(module.get_config, file, arg)
        if hasattr(module, "get_runs"):
            runs = [
                _planned(experiment, arg, run, differences(base, run.config))
                for run in _call(module.get_runs, file, arg, winners)
            ]
        else:
            runs = [
                _unlabelled(experiment, arg, flatten(base.to_dict()), changes)
                for changes in _call(module.get_sweep, file, arg)
            ]
        return _checked(runs, flatten(base.to_dict()), set_for_all, path)

    if not plan(None):
        raise UserError(f"the sweep of {path} is empty")
    return Definition(path, tuple(command_line), flat_config(config), plan)


def fingerprint(definition: Definition) -> dict[str, Any]:
    """Returns what two sweeps must agree in to share a folder, as JSON holds it."""
    runs = {run.name: dict(run.overrides) for run in definition.plan(None)}
    content = {
        "config": definition.path,
        "base": dict(definition.base),
        "command_line": [list(pair) for pair in definition.command_line],
        "runs": runs,
    }
    return json.loads(json.dumps(content))


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Returns what keeps two fingerprints from sharing a folder, in words, or None.

    A sweep may have grown or shrunk; the runs that both have must be the same.
    """
    here, there = _resolved(ours), _resolved(theirs)
    common = [name for name in here if name in there]
    if not common:
        return "the two have no run in common"
    found = [
        (name, key, there[name].get(key), here[name].get(key))
        for name in common
        for key in sorted(here[name].keys() | there[name].keys())
        if here[name].get(key) != there[name].get(key)
    ]
    if not found:
        return None
    name, *change = found[0]
    is_everywhere = sum(other == change for _, *other in found) == len(common)
    where = "every run" if is_everywhere else name
    key, before, now = change
    return f"{where}: {key} {json.dumps(before)} there, {json.dumps(now)} here"


def grown(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], kept: Sequence[str]
) -> dict[str, Any]:
    """Returns our fingerprint with those of their runs that are kept, too."""
    base, there = ours["base"], _resolved(theirs)
    runs = {
        name: {k: v for k, v in there[name].items() if v != base.get(k)}
        for name in kept
    }
    return {**ours, "runs": {**runs, **ours["runs"]}}


def _resolved(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The whole configuration of each run of a fingerprint, by name.

    Keys that are younger than a sweep had their defaults in it.
    """
    base = {**flat_config(Config()), **content.get("base", {})}
    given = {pair[0]: base.get(pair[0]) for pair in content.get("command_line", [])}
    runs = content.get("runs", {})
    return {name: {**base, **changes, **given} for name, changes in runs.items()}


def _load(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiment_sweep", file)
    assert spec is not None  # load_config has read it
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_sweep") and not hasattr(module, "get_runs"):
        raise NoSweepError(
            f"{file} defines no sweep (no function get_sweep); see docs/own_sweep.md"
        )
    return module


def _call(function: Callable[..., Any], file: str, *arguments: Any) -> Any:
    """Calls the file's own code with as many arguments as it takes."""
    takes = len(inspect.signature(function).parameters)
    try:
        return function(*arguments[:takes])
    # The file is the user's own code: whatever it raises is an error in the file.
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename.endswith(file)]
        where = f" (line {lines[-1]})" if lines else ""
        text = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{file}{where}: {text}") from error


def _planned(
    experiment: str, arg: str, run: SweepRun, changes: dict[str, Any]
) -> PlannedRun:
    labels = {
        "experiment": experiment,
        "form": arg if arg in FORMS else "",
        "setting": run.setting,
        "method": run.method,
        "stage": "search" if run.search else "final",
        "seed": run.config.seed,
        "group": dict(run.group),
    }
    if run.search is None:
        return PlannedRun(run.name, changes, labels)
    value = flatten(run.config.to_dict())[run.search.key]
    return PlannedRun(run.name, changes, labels, run.search, value)


def _unlabelled(
    experiment: str, arg: str, base: Mapping[str, Any], changes: Mapping[str, Any]
) -> PlannedRun:
    """A run of a file that has only override dicts: labels from the configuration."""
    config = {**base, **changes}
    group = {k: v for k, v in changes.items() if k != "seed"}
    labels = {
        "experiment": experiment,
        "form": arg if arg in FORMS else "",
        "setting": f"{config['dataset.name']}_{config['model.name']}",
        "method": method_of(config),
        "stage": "final",
        "seed": config["seed"],
        "group": group,
    }
    axes = [f"{key.rpartition('.')[2]}_{_plain(v)}" for key, v in group.items()]
    return PlannedRun("-".join([*axes, f"seed_{config['seed']}"]), changes, labels)


def _plain(value: Any) -> str:
    """The value in characters that suit a folder's name."""
    text = format(value, ".6g") if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in text)


def _checked(
    runs: list[PlannedRun],
    base: Mapping[str, Any],
    set_for_all: Mapping[str, Any],
    path: str,
) -> list[PlannedRun]:
    """Checks every configuration and name, and finds what runs wait for."""
    names = {run.name for run in runs}
    seen: set[str] = set()
    checked = []
    for run in runs:
        if run.name in seen:
            raise UserError(f"{path}: two runs of the sweep are called {run.name}")
        seen.add(run.name)
        try:
            check_config({**base, **run.overrides, **set_for_all})
        except UserError as error:
            raise UserError(f"{path}, run {run.name}: {error}") from error
        start = str(run.overrides.get("train.init_from") or "")
        if start.startswith("OUT/"):
            name = start.removeprefix("OUT/")
            if name not in names:
                raise UserError(
                    f"{path}, run {run.name} starts from {name!r}, which is not in "
                    "the sweep"
                )
            run = run._replace(waits_for=name)
        checked.append(run)
    return checked
