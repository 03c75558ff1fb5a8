"""Runs as pandas: one row a run with what it was and what came out, and its records."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fisher_jax.report.names import method_of, setting_label
from fisher_jax.run_files import (
    DIVERGED,
    FINISHED,
    FORMS,
    Record,
    RunFiles,
    command_line,
    find_runs,
    flatten,
    numeric_records,
    quantities,
    read_run,
)

INCOMPLETE = "incomplete"  # or what result.json says: FINISHED, DIVERGED
# Of a run that has not finished, only what later records cannot change is told.
_KNOWN_EARLY = ("early_fisher_trace", "seconds_per_epoch")

# What two runs of one candidate may differ in: chance, and where files lie.
_NOT_PART_OF_A_CANDIDATE = re.compile(
    r"seed|dataset\.data_dir|train\.init_from|checkpoint\..*|tracker.*"
    r"|measure\.(every_.*|batch_size|chunk_size)"
)
_CONFIG_FILE = re.compile(r"--?config=(.*/)?([^/:]+)\.py(?::(.*))?")


class Runs(NamedTuple):
    """Everything read.

    Attributes:
        rows: a row a run. What it was: path, experiment, form ("" at the paper's
            scale), stage of its sweep, method, setting_label, sweep_setting, seed,
            noise and other keys of its configuration, candidate (a hash of the keys
            that tell candidates apart), version of the code.
            How it ended: status, last_epoch, seconds. What came out:
            ``run_files.quantities``.
        metrics: its records, by the row's index.
    """

    rows: pd.DataFrame
    metrics: Mapping[int, pd.DataFrame]
    problems: tuple[str, ...]  # one line each: what could not be read or used


def load_runs(folders: Iterable[Path]) -> Runs:
    """Reads all runs below the folders; what is damaged is told, not fatal.

    A run that was made twice (same configuration, seed and code) counts once, by its
    fuller copy: a repetition is no independent seed. Which experiment a run is of, as
    items ask for it, says ``describe``.

    Raises:
        UserError: a folder does not exist, or there is no run.
    """
    described, metrics, problems = [], {}, []
    for index, directory in enumerate(find_runs(folders)):
        run = read_run(directory)
        records = numeric_records(run)
        metrics[index] = pd.DataFrame(records or {"epoch": [], "step": []}, dtype=float)
        described.append(describe(run, records))
        problems += _damage(run)
    rows, repeated = _without_repetitions(pd.DataFrame(described))
    if repeated:
        problems.append(
            f"{repeated} repeated runs (same configuration, seed and code as another) "
            "are left out"
        )
    return Runs(rows, {i: metrics[i] for i in rows.index}, tuple(problems))


def _form(sweep: Mapping[str, Any], variant: str) -> str:
    """Returns the smaller form that a run belongs to, "" at the paper's scale."""
    if sweep.get("small"):  # as sweeps wrote it while there was one smaller form
        return "small"
    form = str(sweep.get("form", variant))
    return form if form in FORMS else ""


def describe(run: RunFiles, records: Sequence[Record]) -> dict[str, Any]:
    """Returns a run's row: identity, version, state, and its quantities.

    Which experiment, form and method it is says run.json, which sweeps write; without
    one, the configuration and the recorded command line.
    """
    config = flatten(_object(run.config, "config"))
    sweep, source = run.sweep, _source_of(run)
    versions = _object(run.config, "versions")
    last_epoch = max((record["epoch"] for record in records), default=0.0)
    num_epochs = _number(config.get("train.num_epochs")) or 0.0
    status = run_status(run.result, last_epoch, num_epochs)
    return {
        "path": str(run.directory),
        "experiment": str(sweep.get("experiment") or source.experiment),
        "config_file": source.file,
        "is_in_sweep": bool(sweep),
        "form": _form(sweep, source.variant),
        "stage": str(sweep.get("stage") or "final"),
        "method": str(sweep.get("method") or method_of(config, source.variant)),
        "sweep_setting": str(sweep.get("setting") or ""),
        "setting_label": setting_label(config),
        "dataset": str(config.get("dataset.name", "?")),
        "model": str(config.get("model.name", "?")),
        "seed": _number(config.get("seed", sweep.get("seed"))),
        "noise": _number(config.get("dataset.label_noise")) or 0.0,
        "learning_rate": _number(config.get("optimizer.learning_rate")),
        "batch_size": _number(config.get("train.batch_size")),
        "coefficient": _number(config.get("penalty.coefficient")),
        "update_every": _number(config.get("penalty.update_every")),
        "start_epoch": _number(config.get("penalty.start_epoch")),
        "fisher_draw": str(config.get("measure.fisher_draw") or ""),
        "early_loss": _number(config.get("measure.early_loss")),
        "mixup_beta": _number(config.get("mixup.beta")),
        "sam_radius": _number(config.get("sam.radius")),
        "init_from": str(config.get("train.init_from") or ""),
        "group": _object(sweep, "group"),
        "candidate": _candidate(config),
        "num_epochs": num_epochs,
        "last_epoch": last_epoch,
        "seconds": next((r["time"] for r in reversed(records) if "time" in r), 0.0),
        "status": status,
        "unreadable_lines": run.unreadable_lines,
        "is_thinned": _object(run.config, "archived").get("records") == "thinned",
        "effective_noise": _number(run.config.get("label_noise_effective_rate")),
        "device": str(run.config.get("device_kind") or "unknown"),
        "device_count": _number(run.config.get("device_count")),
        "version": json.dumps([_code(run), versions], sort_keys=True),
        "version_label": _version_label(run.config, versions),
        **_quantities(run, records, config, status),
    }


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object of that name in a JSON file; empty where there is none."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _quantities(
    run: RunFiles, records: Sequence[Record], config: Mapping[str, Any], status: str
) -> dict[str, float | None]:
    """The run's quantities; those of result.json first, as records may be thinned."""
    computed = quantities(
        records,
        early_loss=_number(config.get("measure.early_loss")),
        steps_per_epoch=_number(run.config.get("steps_an_epoch")),
    )
    if status != FINISHED:
        return {n: v if n in _KNOWN_EARLY else None for n, v in computed.items()}
    stated = {name: _number(run.result.get(name)) for name in computed}
    return {n: v if stated[n] is None else stated[n] for n, v in computed.items()}


def run_status(result: Mapping[str, Any], last_epoch: float, num_epochs: float) -> str:
    """Returns finished, diverged or incomplete; all records there count as finished."""
    status = result.get("status")
    if status in (FINISHED, DIVERGED):
        return str(status)
    reached_end = last_epoch >= num_epochs > 0
    return FINISHED if reached_end else INCOMPLETE


def _code(run: RunFiles) -> Any:
    """The hash of the code, which commits may share; before it was recorded, theirs."""
    return run.config.get("code_hash") or run.config.get("git_commit")


def _version_label(config: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    """A short name of the code that a run was made with."""
    commit = str(config.get("git_commit") or "no commit")
    if commit != "no commit":
        is_changed = commit.endswith("+changes")
        commit = commit[:8] + ("+changes" if is_changed else "")
        if is_changed and "code_hash" in config:
            commit += f" ({str(config['code_hash'])[:4]})"
    return f"{commit}, jax {versions.get('jax', '?')}"


class _Source(NamedTuple):
    """The configuration file that a run was started with."""

    experiment: str  # the file's name without .py
    variant: str  # what followed the colon
    file: str  # its path, "" in experiments/


def _source_of(run: RunFiles) -> _Source:
    """Read from the recorded command line; empty where there is none."""
    for word in command_line(run):
        if match := _CONFIG_FILE.fullmatch(word):
            folder = match[1] or ""
            is_ours = folder.rstrip("/").rpartition("/")[2] == "experiments"
            file = "" if is_ours else f"{folder}{match[2]}.py"
            return _Source(match[2], match[3] or "", file)
    return _Source("", "", "")


def _candidate(config: Mapping[str, Any]) -> str:
    kept = {
        key: value
        for key, value in config.items()
        if not _NOT_PART_OF_A_CANDIDATE.fullmatch(key)
    }
    return json.dumps(kept, sort_keys=True, default=str)


def _without_repetitions(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    keys = ["candidate", "seed", "version", "init_from"]
    keys += ["experiment", "form", "stage", "method"]
    # Without a configuration two runs cannot be said to be the same.
    known = rows[rows["candidate"] != "{}"]
    fullest = known.sort_values("last_epoch", ascending=False, kind="stable")
    repeated = fullest.index[fullest.duplicated(keys, keep="first")]
    return rows.drop(index=repeated), len(repeated)


def _damage(run: RunFiles) -> list[str]:
    lines = []
    if run.unreadable_lines:
        plural = "line" if run.unreadable_lines == 1 else "lines"
        lines.append(
            f"{run.directory}: {run.unreadable_lines} unreadable {plural} of "
            "metrics.jsonl skipped"
        )
    lines += [f"{run.directory}: {n} is not readable" for n in run.unreadable_files]
    if not run.records:
        lines.append(f"{run.directory}: no records")
    return lines


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
