"""The flags of main.py and what they say."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from fisher_jax.errors import UserError, one_line
from fisher_jax.host.paths import local_path
from fisher_jax.train.config import split_overrides, split_path
from fisher_jax.train.keys import all_keys

_CONFIG = flags.DEFINE_string("config", None, "experiment file.py[:variant]")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "run directory (default: runs/EXPERIMENT[_VARIANT])"
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, with several processes"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "number of this process, from 0")
_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "FROM:TO, the steps to trace for TensorBoard's profiler"
)


class Processes(NamedTuple):
    """Which process of how many this is; None: as the launcher says, or alone."""

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


class CommandLine(NamedTuple):
    """A command line, taken apart; the workdir is the default where none is given."""

    config: str
    overrides: list[tuple[str, str]]
    workdir: str
    processes: Processes
    profile_steps: range
    argv: Sequence[str]
    has_default_workdir: bool = False


def parse_flags(argv: Sequence[str]) -> Sequence[str]:
    """Parses all but the --config.a.b=v arguments; returns the whole command line.

    A mistake ends the program with one line and exit code 2.
    """
    try:
        unexpected = flags.FLAGS(split_overrides(argv)[0])[1:]
        if unexpected:
            raise flags.Error(f"unexpected argument {unexpected[0]!r}")
    except flags.Error as error:
        name = getattr(error, "flagname", "")
        hint = f"; did you mean --config.{name}?" if name in all_keys() else ""
        print(f"error: {one_line(error)}{hint}", file=sys.stderr)
        sys.exit(2)
    return argv


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Returns what the flags say, after ``parse_flags``.

    Raises:
        UserError: --config is missing, or --workdir for a run's config.json, which has
            no name of its own; --profile_steps is no range.
    """
    file, workdir = _CONFIG.value, _WORKDIR.value
    if not file:
        raise UserError("--config is missing; see python main.py --help")
    return CommandLine(
        file,
        split_overrides(argv)[1],
        str(local_path(workdir or default_workdir(file), "--workdir")),
        Processes(_COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value),
        _steps(_PROFILE_STEPS.value),
        argv,
        has_default_workdir=not workdir,
    )


def default_workdir(config: str) -> str:
    """Returns ``runs/EXPERIMENT`` or ``runs/EXPERIMENT_VARIANT`` of ``FILE.py[:arg]``.

    Raises:
        UserError: the file is a run's config.json.
    """
    file, variant = split_path(config)
    if file.endswith(".json"):
        raise UserError("--workdir is missing; a config.json has no default folder")
    name = f"{Path(file).stem}_{variant}" if variant else Path(file).stem
    return "runs/" + re.sub(r"[^\w.+-]", "_", name)


def _steps(text: str | None) -> range:
    """The steps FROM to TO - 1 of "FROM:TO"; none for None."""
    if text is None:
        return range(0)
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--profile_steps={text} must be FROM:TO with FROM below TO")
    return range(int(first), int(last))
