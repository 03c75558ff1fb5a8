"""The report of 1000 runs of 300 epochs: at most 60 s and 1 GiB on two cores.

    python -m benchmarks.report_scale [FOLDER]

writes the run directories with made-up numbers (see synthetic_runs.py) below FOLDER,
default a temporary one, unless they are there; then times the report's command as a
whole process and samples its memory (proportional set size).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_runs import CNN, paper_runs, write_run
from fisher_jax.run_files import find_runs

NUM_RUNS, NUM_EPOCHS = 1000, 300
MAX_SECONDS, MAX_MEBIBYTES = 60, 1024


def main(folder: Path) -> int:
    """Prints the measurement; returns 0 if both limits are kept, else 1."""
    runs = folder / "runs"
    if not runs.exists():
        write_fixture(runs)
    found = find_runs([runs])
    size = sum(path.joinpath("metrics.jsonl").stat().st_size for path in found)
    print(f"{len(found)} runs, {size / 2**20:.0f} MiB of metrics")
    seconds, mebibytes = measure(
        [sys.executable, "-m", "fisher_jax.report", str(runs)]
        + [f"--out={folder / 'report'}"]
    )
    spent = os.times()
    processor = spent.children_user + spent.children_system
    print(
        f"{seconds:.1f} s (at most {MAX_SECONDS}); {processor:.1f} s of processor time"
    )
    print(f"{mebibytes:.0f} MiB at the peak (at most {MAX_MEBIBYTES})")
    return int(seconds > MAX_SECONDS or mebibytes > MAX_MEBIBYTES)


def write_fixture(runs: Path) -> None:
    """Writes 1000 runs: every experiment, then more seeds of the last row of table 1.

    The every-step runs of figures 18 and 19 have 100 records an epoch.
    """
    count = paper_runs(runs, num_epochs=NUM_EPOCHS)
    for seed in range(count, NUM_RUNS):
        changes = CNN | {"seed": seed, "train.num_epochs": NUM_EPOCHS}
        folder = runs / "table1" / f"more-{seed}"
        write_run(folder, experiment="table1", changes=changes)


def measure(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns its wall time and its peak memory."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, proportional_kibibytes(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.monotonic() - start, peak / 1024


def proportional_kibibytes(pid: int) -> int:
    """Returns a process's proportional set size; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))
