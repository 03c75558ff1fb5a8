"""Compiled programs with what XLA says of them: FLOPs and temporary memory.

XLA counts the body of a loop once. FLOPs are therefore counted on programs that do the
same without loops: the examples all at once, and of the slices of ``loops.map_slices``
(probes, classes) the first and the first two.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fisher_jax import loops


class Program(NamedTuple):
    """A compiled function bound to its arguments.

    Attributes:
        call: runs it and waits for the result, which it returns.
        flops: of one call.
        temp_bytes: temporary memory of one call, beside arguments and results.
    """

    call: Callable[[], Any]
    flops: float
    temp_bytes: int


def compile_program(
    function: Callable[..., Any], *args: Any, num_slices: int = 1
) -> Program:
    """Compiles ``function(*args)``.

    Args:
        function: jit-able.
        args: arrays, or their shapes if the program is never called.
        num_slices: how many slices its one ``loops.map_slices`` goes over.
    """
    compiled = jax.jit(function).lower(*args).compile()
    if "while(" in compiled.as_text():
        flops = _flops_without_loops(function, args, num_slices)
    else:
        flops = compiled.cost_analysis()["flops"]
    return Program(
        lambda: jax.block_until_ready(compiled(*args)),
        flops,
        compiled.memory_analysis().temp_size_in_bytes,
    )


def _flops_without_loops(
    function: Callable[..., Any], args: tuple[Any, ...], num_slices: int
) -> float:
    counts = []
    for some in range(1, min(num_slices, 2) + 1):
        with first_slices(some), examples_at_once():
            # A new function each time, so that nothing is found already traced.
            lowered = jax.jit(lambda *a: function(*a)).lower(*args)
        counts.append(lowered.compile().cost_analysis()["flops"])
    return counts[0] + (num_slices - 1) * (counts[-1] - counts[0])


@contextlib.contextmanager
def examples_at_once() -> Iterator[None]:
    """Traces no loop over examples that the caller has not asked for."""
    with mock.patch.object(loops, "on_one_cpu", _elsewhere):
        yield


def _elsewhere(function: Callable[..., Any], *args: Any, cpu: Any) -> Any:
    """``loops.on_one_cpu`` for another device."""
    del cpu
    return function(*args)


@contextlib.contextmanager
def first_slices(number: int) -> Iterator[None]:
    """Traces ``loops.map_slices`` as the first slices only, and without a loop."""

    def unrolled(function: Callable[[Any], PyTree], slices: PyTree) -> PyTree:
        results = [
            function(jax.tree.map(lambda a, i=i: a[i], slices)) for i in range(number)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    with mock.patch.object(loops, "map_slices", unrolled):
        yield
