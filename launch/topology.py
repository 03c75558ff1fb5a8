"""A run's programs, compiled for accelerators that are not at hand.

The compilers come without their devices: libtpu (extra ``tpu``) knows every TPU slice,
jax's CUDA plugin a GPU by its description.
"""

import importlib.util
import os
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from fisher_jax.errors import UserError, one_line
from fisher_jax.parallel import DATA_AXIS
from fisher_jax.train import cost
from fisher_jax.train.keys import Config
from launch.units import amount

# Read by libtpu when it is loaded, in place of asking the cloud; what only compiles
# need not have it to itself.
_ON_NO_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
# Bytes of a device, and the smallest slice that the compiler knows.
_TPUS = {
    "v4": (32e9, "2x2x1"),
    "v5e": (16e9, "2x2"),
    "v5p": (95e9, "2x2x1"),
    "v6e": (32e9, "2x2"),
}
_GPU_MEMORY = 80e9
_GPU = """gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: {per_core}
threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {fpus}
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock}
device_memory_size: {memory} shared_memory_per_block_optin: {optin}
cuda_compute_capability {{ major: {major} }} registers_per_core_limit: 65536
registers_per_block_limit: 65536 }} platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 1 }} device_description_str: "{name}" """
# From NVIDIA's data sheets and tuning guides, SXM with 80 GB.
_GPUS = {
    "h100": _GPU.format(
        per_core=233472, cores=132, fpus=128, bandwidth=3352320000000, cache=52428800,
        clock=1.98, memory=84978434048, optin=232448, major=9,
        name="NVIDIA H100 80GB HBM3",
    ),
    "a100": _GPU.format(
        per_core=167936, cores=108, fpus=64, bandwidth=2039000000000, cache=41943040,
        clock=1.41, memory=84978434048, optin=166912, major=8,
        name="NVIDIA A100-SXM4-80GB",
    ),
}  # fmt: skip

_WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
           "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_KERNEL = re.compile(r" (fusion|custom-call)\(")


class Slice(NamedTuple):
    """Devices to compile for, and the bytes that each of them has."""

    mesh: Mesh
    memory: float


class Compiled(NamedTuple):
    """What the compiler says of one program, for each device.

    Attributes:
        seconds: to compile it here, by the clock.
        processor_seconds: the same of all threads, what else runs here left out.
        memory: bytes held while it runs, arguments included.
        flops: of one device, bodies of loops once; 0: not told.
        cycles: estimated, bodies of loops as often as they run; 0: not told.
        kernels: fusions and library calls, bodies of loops once.
        collectives: bytes of the results of each kind.
    """

    seconds: float
    processor_seconds: float
    memory: float
    flops: float
    cycles: float
    kernels: int
    collectives: dict[str, int]


def find_slice(name: str) -> Slice:
    """Returns the devices of "v5e:4x4", "v6e:1", "h100:8", ...

    Raises:
        UserError: no such devices, or their compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind in _GPUS and shape.isdecimal() and int(shape):
        devices = _gpus(kind, int(shape))
        return Slice(Mesh(np.array(devices), (DATA_AXIS,)), _GPU_MEMORY)
    if kind not in _TPUS or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise UserError(
            f"--topology={name}: expected a TPU slice, such as v5e:4x4, v5p:2x2x2 or "
            "v6e:1 (one device), or the GPUs of one host, such as h100:8 or a100:1"
        )
    memory, smallest = _TPUS[kind]
    devices = _tpus(name, f"{kind}:{smallest if shape == '1' else shape}")
    if shape == "1":
        devices = devices[:1]
    return Slice(Mesh(np.array(devices), (DATA_AXIS,)), memory)


def _tpus(given: str, name: str) -> Sequence[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={given} needs the TPU compiler: pip install -e '.[tpu]'"
        )
    for variable, value in _ON_NO_TPU.items():
        os.environ.setdefault(variable, value)
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except RuntimeError as error:
        raise UserError(f"--topology={given}: {one_line(error)}") from error
    devices: Sequence[jax.Device] = description.devices
    return devices


def _gpus(kind: str, number: int) -> Sequence[jax.Device]:
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise UserError(
            f"--topology={kind}:{number} needs XLA's GPU compiler: pip install "
            f"jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}"
        )
    jax.devices()  # finds the plugin
    description = topologies.get_topology_desc(
        platform="cuda",
        topology_name="any",
        topology=f"1x1x{number}",
        target_config=_GPUS[kind],
    )
    devices: Sequence[jax.Device] = description.devices
    return devices


def print_programs(console: Console, name: str, config: Config) -> int:
    """Compiles a configuration's programs for a slice and prints what they take.

    Returns:
        How many programs do not fit.

    Raises:
        UserError: no such slice, or the configuration is not for it.
    """
    found = find_slice(name)
    programs = cost.lower_programs(config, found.mesh)
    table = Table(
        "program", "compiled in", "processor", "memory", "work", "kernels",
        "estimated cycles", "collectives, bytes",
    )  # fmt: skip
    done: dict[str, Compiled] = {}
    misfits = []
    for label, lower in programs.items():
        try:
            done[label] = compile_program(lower())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            misfits.append(f"{label} does not fit: {one_line(error)}")
            continue
        one = done[label]
        console.print(
            f"  {label}: compiled in {one.seconds:.0f} s, "
            f"{one.processor_seconds:.0f} s of processors"
            + (f"; {one.cycles:,.0f} estimated cycles" if one.cycles else "")
        )
        table.add_row(
            label,
            f"{one.seconds:.0f} s",
            f"{one.processor_seconds:.0f} s",
            amount(one.memory, "B"),
            amount(one.flops, "FLOP") if one.flops else "–",
            str(one.kernels),
            f"{one.cycles:,.0f}" if one.cycles else "–",
            ", ".join(f"{k} {n:,}" for k, n in one.collectives.items()) or "none",
        )
        if one.memory > found.memory:
            misfits.append(f"{label} does not fit into {found.memory / 1e9:g} GB")
    wide = console if console.is_terminal else Console(width=140, highlight=False)
    wide.print(table)
    console.print(
        f"{name}, {found.mesh.size} device(s), batch {config.train.batch_size}, "
        f"{config.model.name}; per device; work and kernels count loops once"
    )
    for line in (*_ratios(done, config.penalty.update_every), *misfits):
        console.print(line)
    return len(misfits)


def _ratios(done: dict[str, Compiled], update_every: int) -> list[str]:
    """Update over plain and their mean over plain, in what the compiler gives."""
    if not {"plain step", "step with an update"} <= done.keys():
        return []
    plain, update = done["plain step"], done["step with an update"]
    lines = []
    for measure in ("cycles", "flops", "kernels"):
        base, more = getattr(plain, measure), getattr(update, measure)
        if base:
            mean = 1 + (more / base - 1) / update_every
            lines.append(
                f"{measure}: an update is {more / base:.2f} plain steps; a step at "
                f"f = {update_every} is {mean:.2f} plain steps"
            )
    return lines


def compile_program(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles a traced program and reads what the compiler says of it."""
    start = time.monotonic(), time.process_time()
    compiled = lowered.compile()
    end = time.monotonic(), time.process_time()
    analysed, text = cost.analyse(compiled), compiled.as_text() or ""
    return Compiled(
        end[0] - start[0],
        end[1] - start[1],
        analysed.memory,
        analysed.flops,
        estimated_cycles(text),
        len(_KERNEL.findall(text)),
        collectives(text),
    )


def collectives(text: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a compiled program's text."""
    moved: dict[str, int] = {}
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if match is None:
            continue
        size = 0
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1]):
            count = np.prod([int(n) for n in shape.split(",") if n], dtype=int)
            size += _WIDTHS.get(kind, 0) * int(count)
        moved[match[2]] = moved.get(match[2], 0) + size
    return moved


def estimated_cycles(text: str) -> float:
    """The compiler's own estimate of a program: the sum over its instructions.

    Instructions follow one another, so that the sum is the time of the whole. Those in
    a loop count as often as it runs, where the text says how often, else once.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head is not None and not line.startswith(" "):
            name = head[2]
            entry = name if head[1] else entry
            bodies[name] = []
        elif name:
            bodies[name].append(line)

    def trips(condition: str) -> int:
        lines = "\n".join(bodies.get(condition, []))
        bounds = re.findall(r"constant\((\d+)\)", lines)
        return int(bounds[0]) if len(bounds) == 1 and "direction=LT" in lines else 1

    def cycles(computation: str) -> float:
        total = 0.0
        for line in bodies.get(computation, []):
            own = re.search(r'"estimated_cycles":"(\d+)"', line)
            total += float(own[1]) if own else 0.0
            loop = re.search(
                r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line
            )
            if loop is not None:
                total += trips(loop[1]) * cycles(loop[2])
            call = re.search(r" call\(.*to_apply=%?([\w.\-]+)", line)
            if call is not None:
                total += cycles(call[1])
        return total

    return cycles(entry)
