"""Repeats a run from its recorded configuration, and compares what both recorded.

python -m launch.rerun RUN_DIR [--out=FOLDER] [--config.KEY=VALUE ...]
python -m launch.rerun results/table1/digits_simplecnn-fp-seed_10

RUN_DIR is the folder of a run or of an archived one, as in results/. Everything is
compared to the bit; of an archive only what it kept, at the digits that it kept. The
answer is "identical", or how far off the rerun is and since which step. A warning names
every version, machine, setting or commit that is not the first run's: the numbers may
then differ. Times are not compared. Use --config.KEY=VALUE for what lies elsewhere on
this machine: dataset.data_dir, train.init_from.

Exit codes: 0 identical, 1 different, 2 bad input; main.py's if the rerun fails.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fisher_jax.errors import UserError, needs_extra, one_line
from fisher_jax.host.machine import describe_machine
from fisher_jax.host.output import keep_writing
from fisher_jax.host.paths import path_argument
from fisher_jax.run_files import metrics_file, read_bytes, read_json
from launch.folder import log_path
from launch.parser import Parser
from launch.processes import main_command

with needs_extra("train"):
    from rich.console import Console

_TIMES = ("time", "seconds_per_epoch")
# Of a result that differs, what a reader wants to see side by side.
_TOLD = ("test_accuracy", "max_fisher_trace")


class Change(NamedTuple):
    """One value that is not as it was; ``step`` is None in result.json."""

    step: int | None
    name: str
    then: Any
    now: Any

    def __str__(self) -> str:
        """Says where it is, and both values."""
        where = "result.json" if self.step is None else f"step {self.step}"
        return f"{where}: {self.name} {self.then!r} then, {self.now!r} now"

    @property
    def size(self) -> float | None:
        """|now − then| / max(|now|, |then|); None where one is no number."""
        values = (self.then, self.now)
        if not all(isinstance(v, int | float) for v in values):
            return None
        return abs(self.now - self.then) / max(map(abs, values))


class Comparison(NamedTuple):
    """What two runs agree in.

    Attributes:
        values: how many were compared.
        records: of metrics.jsonl, how many were compared.
        differences: in the order of the files.
        missing: records that should be in both runs and are not, in words.
    """

    values: int
    records: int
    differences: list[Change]
    missing: str | None


def main(argv: Sequence[str]) -> int:
    """Reruns and compares; returns the exit code."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    parser = Parser("python -m launch.rerun", __doc__)
    parser.add_argument("run", type=path_argument, help="a finished run's folder")
    parser.add_argument(
        "--out", type=path_argument, help="where to run (default: a new folder)"
    )
    try:
        options, rest = parser.parse_known_args(argv)
        unknown = [word for word in rest if not word.startswith("--config.")]
        if unknown:
            raise UserError(f"unexpected argument {unknown[0]!r}; see --help")
        return rerun(options.run, options.out, console, rest)
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def rerun(
    run: Path, out: Path | None, console: Console, overrides: Sequence[str] = ()
) -> int:
    """Runs ``run``'s configuration again in ``out`` and compares the two.

    Raises:
        UserError: ``run`` is no run that has ended, or ``out`` is not empty.
    """
    recorded = read_json(run / "config.json")
    if "config" not in recorded:
        inside = next((path.parent for path in sorted(run.glob("*/config.json"))), None)
        hint = f"; {inside} is one" if inside else ""
        raise UserError(
            f"{run} is not a run's folder: it has no readable config.json{hint}"
        )
    if not (run / "result.json").exists():
        raise UserError(f"{run} has not ended; run its command again to finish it")
    if out is None:
        out = Path(tempfile.mkdtemp(prefix=f"{run.resolve().name}-again-"))
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another --out")
    warn_of_other_machine(recorded, console)
    command = main_command(str((run / "config.json").absolute()), out, *overrides)
    code = _run(command, out, console)
    if code not in (0, 3):
        return code
    # Only now: what is wrong with the arguments should not wait for JAX.
    from fisher_jax.train.provenance import changes

    told_before = {k: v for k, v in recorded.items() if k != "machine"}
    for line in changes(told_before, read_json(out / "config.json")):
        console.print(f"Warning: {line}")
    comparison = compare(run, out)
    for line in conclusion(comparison, recorded.get("archived", {})):
        console.print(line)
    return 1 if comparison.differences or comparison.missing else 0


def _run(command: Sequence[str], out: Path, console: Console) -> int:
    """Runs with its progress on a terminal, else with its lines in a log beside."""
    if console.is_terminal:
        console.print(f"Running again in {out}")
        return subprocess.run(command, check=False).returncode
    log = log_path(out)
    console.print(f"Running again in {out}, log: {log}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as lines:
        return subprocess.run(command, check=False, stdout=lines).returncode


def warn_of_other_machine(recorded: Mapping[str, Any], console: Console) -> None:
    """Says before a rerun what may make it differ: XLA adds in another order."""
    here, there = describe_machine(), recorded.get("machine")
    if there == here:
        return
    which = f"was on {there}; this is {here}" if there else "did not record its machine"
    console.print(
        f"Warning: the first run {which}. On CPUs the number of cores changes the last "
        "digits (taskset -c 0 ... runs on one core)"
    )


def compare(run: Path, again: Path) -> Comparison:
    """Compares what ``run`` holds of its records and its result with a rerun.

    Values that only the rerun has are no difference: a later version measures more.

    Raises:
        UserError: a metrics.jsonl cannot be read.
    """
    archived = read_json(run / "config.json").get("archived", {})
    kept, ours = _records(run), _records(again)
    by_step = {record["step"]: record for record in ours}
    there = [record for record in kept if record["step"] in by_step]
    digits = archived.get("digits")
    results = [read_json(directory / "result.json") for directory in (run, again)]
    values = [
        (Change(r["step"], name, value, by_step[r["step"]].get(name)), digits)
        for r in there
        for name, value in _without_times(r)
    ]
    # Results are short: they have never been rounded.
    values += [
        (Change(None, name, value, results[1].get(name)), None)
        for name, value in _without_times(results[0])
    ]
    differences = [v for v, digits in values if v.then != _rounded(v.now, digits)]
    is_whole = archived.get("records") != "thinned"
    missing = None
    if len(there) < len(kept) or (is_whole and len(kept) != len(ours)):
        missing = f"metrics.jsonl: {len(kept)} records then, {len(ours)} now"
        if not is_whole:
            missing = f"metrics.jsonl: {len(kept) - len(there)} of its steps are gone"
    return Comparison(len(values), len(there), differences, missing)


def conclusion(comparison: Comparison, archived: Mapping[str, Any]) -> list[str]:
    """Returns what the comparison says, in a few lines.

    Args:
        comparison: of ``compare``.
        archived: "archived" in the first run's config.json: records, digits.
    """
    values, records, differences, missing = comparison
    kept = f"all {records} records"
    if archived.get("records") == "thinned":
        kept = f"the {records} records that were kept"
    digits = archived.get("digits")
    exactly = f"at the {digits} digits that were kept" if digits else "to the bit"
    if not differences and missing is None:
        return [f"identical: {values} values of {kept} and the result, {exactly}"]
    lines = [] if missing is None else [missing]
    if differences:
        lines = [
            f"different: {len(differences)} of {values} values of {kept} and the "
            f"result, {exactly}; the first: {differences[0]}",
            *lines,
        ]
        sized = [(d.size, d) for d in differences if d.size is not None]
        if sized:
            size, largest = max(sized, key=lambda pair: pair[0])
            lines.append(f"largest relative difference: {size:.2g}, {largest}")
        lines += [str(d) for d in differences if d.step is None and d.name in _TOLD]
    return lines


def _rounded(value: Any, digits: int | None) -> Any:
    is_exact = digits is None or not isinstance(value, float)
    return value if is_exact else float(f"{value:.{digits}g}")


def _without_times(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return (
        (name, value)
        for name, value in record.items()
        if name not in _TIMES and not name.startswith("time/")
    )


def _records(directory: Path) -> list[dict[str, Any]]:
    metrics = metrics_file(directory)
    try:
        records = [json.loads(line) for line in read_bytes(metrics).splitlines()]
        if not all("step" in record for record in records):
            raise ValueError("a line has no step")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {metrics}: {one_line(error)}") from error
    return records


if __name__ == "__main__":
    keep_writing()
    sys.exit(main(sys.argv[1:]))
