"""Shrinks finished runs to a few kilobytes each, to keep in a repository.

python -m launch.archive RUNS_FOLDER ARCHIVE_FOLDER [--records=30]

Every run directory below RUNS_FOLDER becomes one of the same name in ARCHIVE_FOLDER
with config.json, run.json, result.json and a thinned metrics.jsonl.gz (zcat prints it),
which suffices for the report: the first and last records, those that result.json refers
to, early cosines, and evenly spaced others, to the last digit. config.json loses the
command where run.json says what the run is of; "archived" in it says whether all
records are there. launch.rerun repeats an archived run and compares what was kept. A
sweep's selection.json is kept too.
"""

import gzip
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fisher_jax.errors import UserError, one_line
from fisher_jax.host.output import keep_writing
from fisher_jax.host.paths import path_argument
from fisher_jax.run_files import METRICS, PACKED_METRICS, metrics_file, read_bytes
from launch.parser import Parser, positive

_COPIED = ("run.json", "result.json")
Record = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Archives; returns the exit code."""
    parser = Parser("python -m launch.archive", __doc__)
    parser.add_argument("runs", type=path_argument)
    parser.add_argument("archive", type=path_argument)
    parser.add_argument(
        "--records",
        type=positive,
        default=30,
        help="records to keep per run, roughly (default 30)",
    )
    try:
        options = parser.parse_args(argv)
        number = archive(options.runs, options.archive, options.records)
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{number} runs in {options.archive}")
    return 0


def archive(runs: Path, target: Path, records: int) -> int:
    """Archives every run below a folder that has ended; returns their number.

    Raises:
        UserError: there is none, or a file of one is damaged.
        OSError: a file cannot be read or written.
    """
    ended = sorted(path.parent for path in runs.glob("**/result.json"))
    if not ended:
        raise UserError(f"no run in {runs} has ended")
    for directory in ended:
        copy = target / directory.relative_to(runs)
        copy.mkdir(parents=True, exist_ok=True)
        _archive_run(directory, copy, records)
    for chosen in runs.glob("**/selection.json"):
        place = target / chosen.relative_to(runs)
        if place.resolve() != chosen.resolve():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(chosen, place)
    return len(ended)


def _archive_run(directory: Path, copy: Path, number: int) -> None:
    for name in _COPIED:
        if (directory / name).exists():
            _write(copy / name, _read(directory / name))
    metrics = metrics_file(directory)
    # The lines as they are: a number keeps its last bit.
    lines = read_bytes(metrics).splitlines()
    records = [_parsed(line, f"{metrics} line {i + 1}") for i, line in enumerate(lines)]
    kept = thin(records, number)
    content = b"".join(lines[i] + b"\n" for i in kept)
    (copy / PACKED_METRICS).write_bytes(gzip.compress(content, mtime=0))
    (copy / METRICS).unlink(missing_ok=True)  # of an archive in its own place
    if (directory / "config.json").exists():
        config = _read(directory / "config.json")
        before = config.get("archived", {})
        is_whole = before.get("records") != "thinned" and len(kept) == len(lines)
        if (directory / "run.json").exists():
            # It says what the run is of; a command names the folders of one machine.
            config.pop("argv", None)
        config["archived"] = {**before, "records": "every" if is_whole else "thinned"}
        _write(copy / "config.json", config)


def thin(records: Sequence[Record], number: int) -> list[int]:
    """Returns the places of about ``number`` records that are kept, in order.

    Kept are the first, the last, the best by validation and by test accuracy, the
    largest Tr(F) of all and of those after epoch 1, the smallest training loss, the
    first record below each training loss that the paper uses as its epsilon, all with
    Tr(H) where that was measured no more often than ``number`` times, and all of the
    first tenth with the cosine that figure 12 averages there.
    """
    last = len(records) - 1
    if last < number:
        return list(range(len(records)))
    chosen = {0, last}
    chosen |= {round(i * last / (number - 1)) for i in range(1, number - 1)}
    for name in ("validation/accuracy", "test/accuracy"):
        chosen |= _largest(records, name)
    chosen |= _largest(records, "trace/fisher")
    chosen |= _largest(records, "trace/fisher", first_epoch=1)
    chosen |= _largest(records, "train/loss", sign=-1)
    with_hessian = _having(records, "trace/hessian")
    if len(with_hessian) <= number:
        chosen |= set(with_hessian)
    tenth = (records[-1].get("epoch") or 0) / 10
    with_cosine = _having(records, "gradient/cosine")
    chosen |= {i for i in with_cosine if (records[i].get("epoch") or 0) <= tenth}
    for epsilon in (1.2, 3.5):
        below = (
            index
            for index, record in enumerate(records)
            if (loss := record.get("train/loss")) is not None and loss < epsilon
        )
        chosen |= {index for index in [next(below, None)] if index is not None}
    return sorted(chosen)


def _largest(
    records: Sequence[Record], name: str, first_epoch: int = 0, sign: int = 1
) -> set[int]:
    """The place of the largest value, of the smallest with sign -1."""
    having = _having(records, name, first_epoch)
    return {max(having, key=lambda i: sign * records[i][name])} if having else set()


def _having(records: Sequence[Record], name: str, first_epoch: int = 0) -> list[int]:
    return [
        index
        for index, record in enumerate(records)
        if record.get(name) is not None and (record.get("epoch") or 0) >= first_epoch
    ]


def _read(file: Path) -> dict[str, Any]:
    return _parsed(file.read_bytes(), str(file))


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is damaged: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} is damaged: not a JSON object")
    return content


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    keep_writing()
    sys.exit(main(sys.argv[1:]))
