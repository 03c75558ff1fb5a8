"""How fast a run is: operations a second and utilisation, and a trace of some steps."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

# Dense peak of one device in TFLOP/s, in the fastest format that training uses on it
# (bfloat16, on V100 and T4 float16), from the makers' data sheets. A TPU v2 or v3 chip
# is two devices.
PEAK_TFLOPS = {
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "Tesla T4": 65.0,
    "Tesla V100": 125.0,
    "NVIDIA L4": 121.0,
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
}


class StepWork(NamedTuple):
    """What one step does, on average over a cycle of penalty updates.

    Attributes:
        examples: of the global batch.
        flops: floating-point operations by XLA's count, over all devices; None where
            XLA does not count.
        peak_flops: operations a second of all devices at their peak; None: unknown.
    """

    examples: int
    flops: float | None
    peak_flops: float | None

    def describe(self, steps_per_second: float) -> str:
        """Returns "5120 examples/s  1.23 TFLOP/s (4.1% of peak)"."""
        text = f"{self.examples * steps_per_second:.0f} examples/s"
        if self.flops is None:
            return text
        speed = self.flops * steps_per_second
        text += f"  {speed / 1e12:.3g} TFLOP/s"
        if self.peak_flops is not None:
            text += f" ({speed / self.peak_flops:.1%} of peak)"
        return text


def peak_flops() -> float | None:
    """Operations a second of all devices of the run; None for an unknown kind."""
    kind = jax.devices()[0].device_kind
    known = [name for name in PEAK_TFLOPS if kind.startswith(name)]
    if not known:
        return None
    return 1e12 * PEAK_TFLOPS[max(known, key=len)] * jax.device_count()


def count_flops(function: Any, *args: PyTree, **static: Any) -> float | None:
    """Returns XLA's count for a function under jit; None where XLA does not count.

    It counts for CPUs, not for GPUs and TPUs: see ``on_cpu``. Counted in the program as
    it was written, before XLA fuses or splits it; nothing is compiled or run. Matrix
    products and convolutions count two operations for each multiply-add; the bodies of
    loops count once.
    """
    analysis = function.lower(*args, **static).cost_analysis() or {}
    flops = float(analysis.get("flops", math.nan))
    return flops if math.isfinite(flops) else None


def on_cpu(tree: PyTree) -> PyTree:
    """The shapes of arrays, for a program that is traced for a CPU.

    Raises:
        RuntimeError: JAX_PLATFORMS leaves out the CPU.
    """
    cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=cpu), tree
    )


class StepTrace:
    """Traces the steps of a range, whole and without their neighbours."""

    def __init__(self, steps: range, directory: Path):
        """Traces nothing yet.

        Args:
            steps: counted from 0 over the whole run; empty: nothing is ever traced.
            directory: tensorBoard's; each process writes a file of its own there.
        """
        self._steps = steps
        self._directory = directory
        self._is_on = False

    def before(self, steps: range, state: PyTree) -> None:
        """Starts or ends the trace, where ``steps`` hold the first or none to trace.

        Args:
            steps: of the call that is about to be dispatched; traced whole.
            state: what the call before computes, waited for at both ends, because
                calls are dispatched ahead.
        """
        is_traced = any(step in self._steps for step in steps)
        if is_traced == self._is_on:
            return
        jax.block_until_ready(state)
        if self._is_on:
            self.end()
        else:
            jax.profiler.start_trace(str(self._directory))
            self._is_on = True

    def end(self) -> None:
        """Ends a trace that is still on, and writes it."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
