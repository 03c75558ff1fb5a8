"""The machine that this process runs on."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path


def count_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def describe_machine() -> str:
    """Returns the processor and how many cores this process may use.

    On CPUs both decide in which order XLA adds.
    """
    return f"{_processor()}, {count_cores()} cores"


def _processor() -> str:
    """The processor's name with what XLA chooses instructions by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in _fields(lines)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    vectors = [name for name in ("avx2", "avx512f", "amx_bf16", "sve") if name in flags]
    name = fields.get("model name", platform.machine())
    return " ".join([name, *vectors])


def _fields(lines: Sequence[str]) -> list[tuple[str, str, str]]:
    """Splits what is said of the first processor, a field a line."""
    end = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    return [line.partition(":") for line in lines[:end]]
