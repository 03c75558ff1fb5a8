"""Runs a run again from its recorded configuration, and compares bit for bit.

python -m launch.rerun RUN_DIR [--out=FOLDER]

Says "identical", or names the first difference in metrics.jsonl or result.json. Times
are not compared. Versions, devices, commit and XLA_FLAGS that are not those of the
first run are told: with others, other bits are to be expected. Not for the runs of
results/, whose records are thinned and rounded.

Exit codes: 0 identical, 1 different, 2 bad input; main.py's where the rerun fails.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from fisher_jax.errors import UserError, needs_extra, one_line
from launch.command_line import Parser
from launch.folder import read_json
from launch.processes import main_command

with needs_extra("train"):
    from rich.console import Console

# What config.json says of the surroundings, beside the packages' versions.
_SURROUNDINGS = ("device_kind", "device_count", "git_commit", "xla_flags")


def main(argv: Sequence[str]) -> int:
    """Reruns and compares; returns the exit code."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    parser = Parser("python -m launch.rerun", __doc__)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--out", type=Path, help="where to run (default: a new folder)")
    try:
        options = parser.parse_args(argv)
        return rerun(options.run, options.out, console)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def rerun(run: Path, out: Path | None, console: Console) -> int:
    """Runs ``run``'s configuration again in ``out`` and compares the two.

    Raises:
        UserError: ``run`` is no run that has ended, or ``out`` is not empty.
    """
    recorded = read_json(run / "config.json")
    if "config" not in recorded:
        raise UserError(f"{run} is no run: it has no readable config.json")
    if not (run / "result.json").exists():
        raise UserError(f"{run} has not ended; run its command again first")
    if out is None:
        out = Path(tempfile.mkdtemp(prefix=f"{run.resolve().name}-again-"))
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another --out")
    for line in version_differences(recorded.get("versions", {})):
        console.print(f"Warning: {line}")
    console.print(f"Running again in {out}")
    command = main_command(str((run / "config.json").absolute()), out)
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        return code
    again = read_json(out / "config.json")
    for key in _SURROUNDINGS:
        if recorded.get(key) != again.get(key):
            console.print(f"Warning: {key} {recorded.get(key)} then, {again.get(key)}")
    difference = first_difference(run, out)
    console.print(difference or "identical")
    return 1 if difference else 0


def version_differences(versions: Mapping[str, str]) -> list[str]:
    """Returns a line for each package whose version is not the recorded one."""
    lines = []
    for package, then in versions.items():
        try:
            now = python_version() if package == "python" else version(package)
        except PackageNotFoundError:
            now = "not installed"
        if now != then:
            lines.append(f"{package} {then} then, {now} now")
    return lines


def first_difference(run: Path, again: Path) -> str | None:
    """Returns the first difference of two runs' records and results, or None."""
    ours, theirs = _records(again), _records(run)
    for number, (then, now) in enumerate(zip(theirs, ours, strict=False), start=1):
        for key in [*then, *(key for key in now if key not in then)]:
            if then.get(key) != now.get(key):
                where = f"metrics.jsonl line {number} (step {then.get('step')})"
                return _said(where, key, then, now)
    if len(ours) != len(theirs):
        return f"metrics.jsonl: {len(theirs)} records then, {len(ours)} now"
    then, now = (read_json(d / "result.json") for d in (run, again))
    for key in sorted(then.keys() | now.keys()):
        if key != "seconds_per_epoch" and then.get(key) != now.get(key):
            return _said("result.json", key, then, now)
    return None


def _said(where: str, key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{where}: {key} {then.get(key)!r} then, {now.get(key)!r} now"


def _records(directory: Path) -> list[dict[str, Any]]:
    try:
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {directory / 'metrics.jsonl'}: {one_line(error)}"
        ) from error
    return [
        {k: v for k, v in record.items() if k != "time" and not k.startswith("time/")}
        for record in records
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
