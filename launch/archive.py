"""Keeps the essence of runs in a few kilobytes each, for a repository.

python -m launch.archive RUNS_FOLDER ARCHIVE_FOLDER [--records=30]

Every run directory below RUNS_FOLDER becomes one of the same name in ARCHIVE_FOLDER
with config.json, run.json, result.json and a thinned metrics.jsonl, from which the
report can be made: the first and last records, those that result.json speaks of, and
evenly spaced others, numbers at 6 digits. Sweeps' selection.json is kept, too.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fisher_jax.errors import UserError, one_line
from launch.command_line import Parser, positive

_KEPT = ("config.json", "run.json", "result.json")
Record = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Archives; returns the exit code."""
    parser = Parser("python -m launch.archive", __doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument(
        "--records", type=positive, default=30, help="kept of a run (30)"
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
        UserError: there is none.
        OSError: a file cannot be read or written.
    """
    ended = sorted(path.parent for path in runs.glob("**/result.json"))
    if not ended:
        raise UserError(f"no run in {runs} has ended")
    for directory in ended:
        copy = target / directory.relative_to(runs)
        copy.mkdir(parents=True, exist_ok=True)
        for name in _KEPT:
            if (directory / name).exists():
                content = json.loads((directory / name).read_text())
                (copy / name).write_text(json.dumps(content) + "\n")
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        kept = thin([json.loads(line) for line in lines], records)
        text = "".join(json.dumps(_rounded(record)) + "\n" for record in kept)
        (copy / "metrics.jsonl").write_text(text)
    for chosen in runs.glob("**/selection.json"):
        place = target / chosen.relative_to(runs)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chosen, place)
    return len(ended)


def thin(records: Sequence[Record], number: int) -> list[Record]:
    """Returns about ``number`` records, in order.

    Kept are the first, the last, the best by validation and by test accuracy, the
    largest Tr(F) after epoch 1, and the first record below each training loss that the
    paper uses as its epsilon.
    """
    if len(records) <= number:
        return list(records)
    chosen = {round(i * (len(records) - 1) / (number - 1)) for i in range(number)}
    for name in ("validation/accuracy", "test/accuracy"):
        chosen |= _largest(records, name, first_epoch=0)
    chosen |= _largest(records, "trace/fisher", first_epoch=1)
    for epsilon in (1.2, 3.5):
        below = (
            index
            for index, record in enumerate(records)
            if (loss := record.get("train/loss")) is not None and loss < epsilon
        )
        chosen |= {index for index in [next(below, None)] if index is not None}
    return [records[index] for index in sorted(chosen)]


def _largest(records: Sequence[Record], name: str, first_epoch: int) -> set[int]:
    having = [
        index
        for index, record in enumerate(records)
        if record.get(name) is not None and record["epoch"] >= first_epoch
    ]
    return {max(having, key=lambda index: records[index][name])} if having else set()


def _rounded(record: Record) -> Record:
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in record.items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
