"""What a configuration or a whole sweep will cost, without running a step of it.

FLOPs, bytes and memory are XLA's analysis of the step, compiled for the CPU. Hours
follow from a device's published peak: per step the larger of FLOPs over peak and bytes
over bandwidth, divided by the stated utilisation. Measurements are computed in full
float32 ("highest"), which has a lower peak than training has; penalties, which have
training's precision, are priced as if they were, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from fisher_jax.errors import UserError
from fisher_jax.train import cost
from fisher_jax.train.config import (
    check_config,
    flat_config,
    load_config,
    parse_value,
    split_path,
)
from fisher_jax.train.cost import RunCost
from fisher_jax.train.keys import Config
from launch.definition import NoSweepError, PlannedRun, load_definition
from launch.topology import print_programs
from launch.units import amount, duration
from launch.work import matching


class Device(NamedTuple):
    """Published peaks of one accelerator, in FLOP/s and byte/s, and its memory."""

    training: float  # TF32 on GPUs, bfloat16 passes on TPUs: float32 by default
    exact: float  # float32 at matmul precision "highest"
    bandwidth: float
    memory: float


# Data sheets: A100 80 GB SXM, H100 80 GB SXM, TPU v5e (float32 takes 6 passes there).
DEVICES: Mapping[str, Device] = {
    "A100": Device(156e12, 19.5e12, 2.04e12, 80e9),
    "H100": Device(495e12, 67e12, 3.35e12, 80e9),
    "TPU v5e": Device(197e12, 197e12 / 6, 0.82e12, 16e9),
}


class Line(NamedTuple):
    """Runs of one kind: equal programs, equally many steps and measurements."""

    label: str
    num_runs: int
    cost: RunCost


def hours(run: RunCost, device: Device, utilisation: float) -> float:
    """Returns the hours of one run on one device."""
    plain = max(
        run.plain.flops / device.training, run.plain.bytes_accessed / device.bandwidth
    )
    seconds = run.steps * plain + run.measure_flops / device.exact
    if run.update is not None:
        more = run.update.flops - run.plain.flops
        moved = run.update.bytes_accessed - run.plain.bytes_accessed
        seconds += run.updates * max(more / device.exact, moved / device.bandwidth)
    return seconds / utilisation / 3600


def print_estimate(
    console: Console,
    path: str,
    overrides: Sequence[tuple[str, str]],
    utilisation: float,
    topology: str | None = None,
    only: Sequence[str] = (),
) -> int:
    """Prints the cost of a file's sweep, or of its configuration if it has none.

    With a topology: what the programs of each kind of run take there instead. With
    patterns of names: of the runs that match.

    Raises:
        UserError: the configuration or the utilisation cannot be used, or no run
            matches.
    """
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation must be in (0, 1], got {utilisation:g}")
    # On GPUs XLA does not count the convolutions that it leaves to cuDNN.
    jax.config.update("jax_platforms", "cpu")
    configs = _configs(path, overrides, only)
    if topology:
        return _print_topology(console, topology, configs)
    lines = _lines(configs, console)
    table = Table(
        "runs of", "runs", "parameters", "a step", "with penalty", "traffic", "memory",
        *(f"a run, {name}" for name in DEVICES),
    )  # fmt: skip
    for line in lines:
        run = line.cost
        update = run.update or run.plain
        table.add_row(
            line.label,
            str(line.num_runs),
            f"{run.parameters:,}",
            amount(run.plain.flops, "FLOP"),
            amount(run.update.flops, "FLOP") if run.update else "–",
            amount(run.plain.bytes_accessed, "B"),
            amount(update.memory, "B"),
            *(duration(hours(run, d, utilisation)) for d in DEVICES.values()),
        )
    wide = console if console.is_terminal else Console(width=180, highlight=False)
    wide.print(table)
    for name, device in DEVICES.items():
        each = [hours(line.cost, device, utilisation) for line in lines]
        total = sum(h * line.num_runs for h, line in zip(each, lines, strict=True))
        most = max((line.cost.update or line.cost.plain).memory for line in lines)
        fits = "" if most < device.memory else "; does not fit into its memory"
        console.print(
            f"All runs on {name}: {duration(total)} one after another, "
            f"{duration(max(each))} side by side{fits}"
        )
    console.print(
        f"Assumed: {utilisation:.0%} of a device's peak (--utilisation); small "
        "networks reach less. Nothing was run."
    )
    return 0


def _print_topology(
    console: Console, topology: str, configs: Iterable[tuple[str, Config]]
) -> int:
    """Compiles each different program once, for devices that are not at hand."""
    seen: set[str] = set()
    misfits = 0
    for label, config in configs:
        key = cost.program_key(config) + repr(config.measure)
        if key not in seen:
            seen.add(key)
            console.print(f"Compiling {label} for {topology}")
            misfits += print_programs(console, topology, config)
    return 1 if misfits else 0


def _lines(configs: Iterable[tuple[str, Config]], console: Console) -> list[Line]:
    """Compiles each different program once; groups runs of equal cost."""
    compiled: dict[str, tuple] = {}
    grouped: dict[tuple[str, RunCost], int] = {}
    for label, config in configs:
        key = cost.program_key(config)
        if key not in compiled:
            console.print(f"Compiling {label} ({config.model.name})")
            compiled[key] = cost.step_programs(config)
        line = (label, cost.run_cost(config, compiled[key]))
        grouped[line] = grouped.get(line, 0) + 1
    return [Line(label, count, run) for (label, run), count in grouped.items()]


def _configs(
    path: str, overrides: Sequence[tuple[str, str]], only: Sequence[str]
) -> Iterator[tuple[str, Config]]:
    """Yields (setting method, configuration) for each run that matches."""
    runs = _sweep(path, overrides)
    base = load_config(path, overrides)
    if runs is None:
        yield f"{base.dataset.name} {base.model.name}", base
        return
    given = {key: parse_value(key, text) for key, text in overrides}
    flat = flat_config(base)
    for run in matching(runs, only):
        config = check_config({**flat, **run.overrides, **given})
        yield f"{run.labels['setting']} {run.labels['method']}", config


def _sweep(path: str, overrides: Sequence[tuple[str, str]]) -> list[PlannedRun] | None:
    """The sweep's runs; None for a file, or a config.json, without a sweep."""
    if split_path(path)[0].endswith(".json"):
        return None
    try:
        return load_definition(path, overrides).plan(None)
    except NoSweepError:
        return None
