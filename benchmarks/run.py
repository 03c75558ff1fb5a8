"""Runs every measurement: ``make bench``.

The most important comes first; what does not fit in ``--minutes`` is left out, named in
the notes. results.json and results.md are written anew after each section.
"""

import argparse
import datetime
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks import accuracy, report, spectra_peers, summary, work
from benchmarks.naive_jax import number_of_parameters
from benchmarks.networks import PROBLEMS, Problem, mlp, simple_cnn
from benchmarks.report import Results, Target, counted_target, timed_target
from benchmarks.timing import Effort, Ratio, take_turns
from fisher_jax import startup

FOLDER = Path(__file__).parent
CORES = 2
_EXACT, _DIFFERENCE = "ours, exact", "ours, finite difference"
_GRADIENT = "our gradient"


class Benchmark:
    """Collects results section by section."""

    def __init__(self, minutes: float, folder: Path):
        """Starts the clock."""
        self.folder = folder
        self.deadline = time.monotonic() + 60 * minutes
        self.results = Results(_machine(), [], [], {}, [], [], [])

    def run(self, title: str, section: Callable[[], None]) -> None:
        """Runs one section if there is time, and saves."""
        started = time.monotonic()
        if started > self.deadline:
            self.results.notes.append(f"Left out for want of time: {title}.")
            return
        section()
        self.results.machine["load_after"] = _load()
        report.write(self.results, self.folder)
        print(f"{title}: {time.monotonic() - started:.0f} s", flush=True)

    def table(
        self,
        problem: Problem,
        title: str,
        section: work.Section,
        reference: str,
        effort: Effort,
    ) -> Callable[[str, str], Ratio]:
        """Times a section; returns (a, b) -> how much longer a takes than b."""
        times = take_turns(section.calls, effort)
        table = report.make_table(problem.title, title, section, times, reference)
        self.results.tables.append(table)
        return times.ratio

    def aim(self, network: str, *targets: Target) -> None:
        """Records what was measured of a network beside its limits."""
        self.results.targets.extend(t._replace(network=network) for t in targets)

    def gradient(self, problem: Problem, effort: Effort) -> None:
        """The plain gradient against PyTorch's."""
        section = work.gradient(problem)
        ratio = self.table(problem, "Plain gradient", section, "PyTorch", effort)
        self.aim(
            problem.name,
            timed_target(
                "plain gradient over PyTorch's", 1.5, ratio("ours", "PyTorch")
            ),
        )

    def penalty(self, problem: Problem, effort: Effort) -> None:
        """The penalty's gradient in units of the plain one."""
        section = work.penalty_gradient(problem)
        title = "Gradient of the Fisher Penalty"
        self.table(problem, title, section, _GRADIENT, effort)
        plain = section.programs[_GRADIENT].flops
        counts = {name: p.flops / plain for name, p in section.programs.items()}
        self.results.penalty_flops[problem.title] = counts
        self.aim(
            problem.name,
            counted_target("penalty gradient, FLOPs, exact", 3.0, counts[_EXACT]),
            counted_target(
                "penalty gradient, FLOPs, finite difference", 2.0, counts[_DIFFERENCE]
            ),
        )

    def steps(self, problem: Problem, effort: Effort) -> None:
        """The penalised step against the plain one."""
        title = "Training step, penalty renewed every 10 steps (mean of ten)"
        section = work.steps(problem)
        ratio = self.table(problem, title, section, "ours, plain", effort)
        exact, difference = (
            ratio(name, "ours, plain") for name in (_EXACT, _DIFFERENCE)
        )
        self.aim(
            problem.name,
            timed_target("penalised step over plain, exact", 1.3, exact),
            timed_target(
                "penalised step over plain, finite difference", 1.2, difference
            ),
        )

    def fisher(self, problem: Problem, effort: Effort) -> None:
        """Tr(F) over one batch."""
        section = work.fisher(problem)
        plain = work.gradient(problem).programs["ours"]
        section.calls[_GRADIENT] = plain.call
        section.programs[_GRADIENT] = plain
        title = f"Tr(F) over {len(problem.inputs)} examples"
        ratio = self.table(problem, title, section, _GRADIENT, effort)
        ours = "ours, signs"
        flops = section.programs[ours].flops / plain.flops
        peers = [name for name in section.calls if not name.startswith("our")]
        self.aim(
            problem.name,
            counted_target("Tr(F), FLOPs in gradients", 1.05, flops),
            timed_target("Tr(F) over our gradient", 1.1, ratio(ours, _GRADIENT)),
            *(timed_target(f"Tr(F) over {n}", 1.0, ratio(ours, n)) for n in peers),
        )

    def hessian(self, problem: Problem, effort: Effort) -> None:
        """Tr(H) by 30 probes."""
        section = work.hessian(problem)
        program = work.our_fisher_trace(problem, estimator="exact")
        exact = "ours, exact Tr(F) = Tr(H)"
        section.calls[exact] = program.call
        section.programs[exact] = program
        reference = "PyHessian's algorithm"
        title = f"Tr(H) by {work.NUM_PROBES} probes"
        ratio = self.table(problem, title, section, reference, effort)
        self.aim(
            problem.name,
            timed_target(
                "exact Tr(F) over PyHessian's Tr(H)", 1.0, ratio(exact, reference)
            ),
            *(
                timed_target(
                    f"Tr(H), {method}, over PyHessian's",
                    0.5,
                    ratio(f"ours, {method}", reference),
                )
                for method in ("forward", "reverse")
            ),
        )

    def spectrum(self, problem: Problem, effort: Effort) -> None:
        """Diagonals, eigenpairs and densities beside PyTorch's libraries."""
        for title, section, reference in (
            ("Diagonals", spectra_peers.diagonals, "ours, F exactly"),
            ("The three largest eigenvalues of H", spectra_peers.eigenpairs, "ours"),
            ("The density of H, 8 probes of 32 steps", spectra_peers.densities, "ours"),
        ):
            self.table(problem, title, section(problem), reference, effort)

    def memory(self) -> None:
        """Temporary memory by the number of examples."""
        # 5.9 million parameters.
        large = mlp(batch=1, pixels=3072, widths=(1536, 768))
        for problem in (simple_cnn(batch=1), large):
            sizes = work.memory(problem, (128, 1000, 5000))
            self.results.memory.extend(
                {
                    "network": problem.title.rsplit(",", 1)[0],
                    "parameters": number_of_parameters(problem.params),
                    "examples": count,
                    "program": name,
                    "temp_mib": temp_bytes / report.MEBIBYTE,
                }
                for (name, count), temp_bytes in sizes.items()
            )
            largest = max(b for (name, _), b in sizes.items() if name == "ours")
            self.aim(
                problem.name,
                counted_target(
                    "Tr(F), 5000 examples, temporary GiB", 2.0, largest / 2**30
                ),
            )

    def accuracy(self, name: str) -> None:
        """One network of the table of accuracy per cost."""
        self.results.accuracy.extend(accuracy.measure(name))


def _load() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


def _machine() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.isoformat(timespec="seconds"),
        "cores": CORES,
        "cpu_count": os.cpu_count(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": jax.devices()[0].device_kind,
        "load_before": _load(),
    }


def measure(minutes: float, folder: Path) -> Results:
    """Runs all sections in the order of their importance."""
    benchmark = Benchmark(minutes, folder)
    run = benchmark.run
    usual, slow, brief = Effort(4.0, 5, 9), Effort(3.0, 2, 3), Effort(2.0, 3, 9)
    run("memory", benchmark.memory)
    for key, fast, long in (
        ("simple_cnn", usual, slow),
        ("mlp", brief, brief),
        ("wide_resnet", usual, slow),
    ):
        problem = PROBLEMS[key]()
        for section, effort in (
            (benchmark.gradient, fast),
            (benchmark.penalty, fast),
            (benchmark.steps, long),
            (benchmark.fisher, long),
            (benchmark.hessian, long),
        ):
            title = f"{problem.name}, {section.__name__}"
            run(title, partial(section, problem, effort))
    for key in ("simple_cnn", "mlp"):
        problem = PROBLEMS[key]()
        section = partial(benchmark.spectrum, problem, slow)
        run(f"{problem.name}, spectrum", section)
    # Costs are FLOPs, which are not known on GPUs.
    for name in accuracy.NETWORKS if jax.default_backend() == "cpu" else ():
        run(f"accuracy, {name}", partial(benchmark.accuracy, name))
    report.write(benchmark.results, folder)
    return benchmark.results


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    # As main.py does.
    startup.keep_convolutions_off_ynnpack()
    work.set_up(CORES)
    print(report.to_markdown(measure(arguments.minutes, arguments.folder)))
    if arguments.folder == FOLDER:
        summary.write()


if __name__ == "__main__":
    main()
