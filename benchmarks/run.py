"""Runs every measurement: ``make bench``.

The most important comes first; what does not fit in ``--minutes`` is left out, named in
the notes. results.json and results.md are written anew after each section.
"""

import argparse
import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks import accuracy, report, work
from benchmarks.naive_jax import number_of_parameters
from benchmarks.networks import PROBLEMS, Problem, mlp, simple_cnn
from benchmarks.report import Results, counted_target, timed_target
from benchmarks.timing import Effort, Ratio, take_turns

FOLDER = Path(__file__).parent
CORES = 2
_EXACT, _DIFFERENCE = "ours, exact", "ours, finite difference"


class Benchmark:
    """Collects results section by section."""

    def __init__(self, minutes: float, folder: Path):
        """Starts the clock."""
        self.folder = folder
        self.deadline = time.monotonic() + 60 * minutes
        self.flops: dict[str, float] = {}
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

    def gradient(self, problem: Problem, effort: Effort, is_target: bool) -> None:
        """The plain gradient against PyTorch's."""
        section = work.gradient(problem)
        self.flops[problem.name] = section.programs["ours"].flops
        ratio = self.table(problem, "Plain gradient", section, "PyTorch", effort)
        if is_target:
            self.results.targets.append(
                timed_target(
                    "plain gradient over PyTorch's", 1.5, ratio("ours", "PyTorch")
                )
            )

    def steps(self, problem: Problem, effort: Effort, is_target: bool) -> None:
        """The penalised step against the plain one."""
        gradient = self._gradient_flops(problem)
        counts = {
            name: program.flops / gradient
            for name, program in work.penalty_gradient(problem).items()
        }
        self.results.penalty_flops[problem.title] = counts
        title = "Training step, penalty renewed every 10 steps (mean of ten)"
        section = work.steps(problem)
        ratio = self.table(problem, title, section, "ours, plain", effort)
        if is_target:
            self.results.targets.extend(
                [
                    timed_target(
                        "penalised step over plain, exact",
                        1.30,
                        ratio(_EXACT, "ours, plain"),
                    ),
                    timed_target(
                        "penalised step over plain, finite difference",
                        1.20,
                        ratio(_DIFFERENCE, "ours, plain"),
                    ),
                    counted_target(
                        "FLOPs of the penalty's gradient, exact",
                        3.0,
                        counts[_EXACT],
                    ),
                    counted_target(
                        "FLOPs of the penalty's gradient, finite difference",
                        2.0,
                        counts[_DIFFERENCE],
                    ),
                ]
            )

    def fisher(self, problem: Problem, effort: Effort, is_target: bool) -> None:
        """Tr(F) over one batch."""
        section = work.fisher(problem)
        plain = work.gradient(problem).programs["ours"]
        section.calls["our gradient"] = plain.call
        section.programs["our gradient"] = plain
        title = f"Tr(F) over {len(problem.inputs)} examples"
        ratio = self.table(problem, title, section, "our gradient", effort)
        if not is_target:
            return
        ours = "ours, signs"
        flops = section.programs[ours].flops / plain.flops
        self.results.targets.extend(
            [
                counted_target("FLOPs of Tr(F) in gradients", 1.05, flops),
                timed_target(
                    "Tr(F) over our gradient", 1.1, ratio(ours, "our gradient")
                ),
            ]
        )
        self.results.targets.extend(
            [
                timed_target(f"Tr(F) over {name}", 1.0, ratio(ours, name))
                for name in section.calls
                if not name.startswith("our")
            ]
        )

    def hessian(self, problem: Problem, effort: Effort, is_target: bool) -> None:
        """Tr(H) by 30 probes."""
        section = work.hessian(problem)
        exact = work.our_fisher_trace(problem, estimator="exact")
        section.calls["ours, exact Tr(F) = Tr(H)"] = exact.call
        section.programs["ours, exact Tr(F) = Tr(H)"] = exact
        reference = "PyHessian's algorithm"
        title = f"Tr(H) by {work.NUM_PROBES} probes"
        ratio = self.table(problem, title, section, reference, effort)
        if is_target:
            forward = ratio("ours, forward", reference)
            reverse = ratio("ours, reverse", reference)
            self.results.targets.extend(
                [
                    timed_target(
                        "exact Tr(F) over PyHessian's 30-probe Tr(H)",
                        1.0,
                        ratio("ours, exact Tr(F) = Tr(H)", reference),
                    ),
                    timed_target(
                        "Tr(H), 30 probes, forward over PyHessian", 0.5, forward
                    ),
                    timed_target(
                        "Tr(H), 30 probes, reverse over PyHessian", 0.5, reverse
                    ),
                ]
            )

    def memory(self, chunk: int = 128) -> None:
        """Temporary memory by the number of examples."""
        large = mlp(batch=1, pixels=3072, widths=(1500, 750))
        for problem in (simple_cnn(batch=1), large):
            for count, program in work.memory(
                problem, (128, 1000, 5000), chunk
            ).items():
                self.results.memory.append(
                    {
                        "network": problem.title.rsplit(",", 1)[0],
                        "parameters": number_of_parameters(problem.params),
                        "examples": count,
                        "chunk_size": chunk,
                        "temp_mib": program.temp_bytes / report.MEBIBYTE,
                    }
                )
        largest = max(m["temp_mib"] for m in self.results.memory) / 1024
        self.results.targets.append(
            counted_target("temporary memory of Tr(F), GiB, largest", 2.0, largest)
        )

    def accuracy(self, name: str) -> None:
        """One network of the table of accuracy per cost."""
        self.results.accuracy.extend(accuracy.measure([name]))

    def _gradient_flops(self, problem: Problem) -> float:
        if problem.name not in self.flops:
            self.flops[problem.name] = work.gradient(problem).programs["ours"].flops
        return self.flops[problem.name]


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
        "device": jax.devices()[0].platform,
        "load_before": _load(),
    }


def measure(minutes: float, folder: Path) -> Results:
    """Runs all sections in the order of their importance."""
    benchmark = Benchmark(minutes, folder)
    cnn = PROBLEMS["simple_cnn"]()
    run = benchmark.run
    usual, slow = Effort(5.0, 5, 9), Effort(5.0, 3, 3)
    run("SimpleCNN, gradient", lambda: benchmark.gradient(cnn, usual, True))
    run("SimpleCNN, steps", lambda: benchmark.steps(cnn, slow, True))
    run("SimpleCNN, Tr(F)", lambda: benchmark.fisher(cnn, Effort(3.0, 3, 9), True))
    run("SimpleCNN, Tr(H)", lambda: benchmark.hessian(cnn, Effort(3.0, 2, 2), True))
    run("memory", benchmark.memory)
    brief = Effort(2.0, 3, 7)
    for key in ("mlp", "wide_resnet"):
        other = PROBLEMS[key]()
        for section in (
            benchmark.gradient,
            benchmark.steps,
            benchmark.fisher,
            benchmark.hessian,
        ):
            run(
                f"{other.name}, {section.__name__}",
                lambda section=section, other=other: section(other, brief, False),
            )
    for name in accuracy.NETWORKS:
        run(f"accuracy, {name}", lambda name=name: benchmark.accuracy(name))
    report.write(benchmark.results, folder)
    return benchmark.results


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    work.torch_threads(CORES)
    print(report.to_markdown(measure(arguments.minutes, arguments.folder)))


if __name__ == "__main__":
    main()
