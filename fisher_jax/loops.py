"""Loops over chunks of examples, draws and probes, with flat memory on any backend.

XLA:CPU brings convolutions into the dimension order of its fast kernels only in a
program's entry computation. Inside the body of ``lax.scan``, ``lax.map`` or
``lax.while_loop`` the convolutions of a backward pass, whose dimension order is
another, fall into a naive loop that is 10 to 100 times slower (jax-ml/jax#12868).
Here the body is rewritten so that every convolution has the fast order to begin with,
transposing around it where needed: loops then run at the speed of straight-line code,
compile once and hold one iteration's memory.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn
from jax.extend.core.primitives import conv_general_dilated_p
from jaxtyping import Array, Float, PyTree

from fisher_jax import axes, programs

_F = TypeVar("_F", bound=Callable[..., Any])
_R = TypeVar("_R")


def loop_body(function: _F) -> _F:
    """``function`` as it should stand in the body of a loop.

    On CPU its convolutions are brought into XLA's fast dimension order, everywhere
    equal subexpressions are merged: XLA merges them too, but in a loop only after it
    has moved some of them out, when it no longer knows them to be equal. The values
    are the same up to rounding. Apply it to what the body computes, after
    differentiation: derivatives of a canonical convolution are not canonical.
    """

    def rule(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any] | None:
        if equation.primitive is not conv_general_dilated_p:
            return None
        convolution = jax.lax.platform_dependent(
            *operands,
            cpu=partial(_canonical_convolution, **equation.params),
            default=partial(conv_general_dilated_p.bind, **equation.params),
        )
        return [convolution]

    def rewritten(*args: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        results = programs.evaluate(program, jax.tree.leaves(args), rule)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return rewritten  # type: ignore[return-value]


def _canonical_convolution(
    lhs: Array, rhs: Array, *, dimension_numbers: Any, **params: Any
) -> Array:
    """One convolution as NHWC × HWIO → NHWC, for any number of spatial dimensions."""
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    last = lhs.ndim - 1
    lhs_order = (lhs_spec[0], *lhs_spec[2:], lhs_spec[1])
    rhs_order = (*rhs_spec[2:], rhs_spec[1], rhs_spec[0])
    out_order = (out_spec[0], *out_spec[2:], out_spec[1])
    canonical = jax.lax.ConvDimensionNumbers(
        lhs_spec=(0, last, *range(1, last)),
        rhs_spec=(last, last - 1, *range(last - 1)),
        out_spec=(0, last, *range(1, last)),
    )
    out = conv_general_dilated_p.bind(
        jax.lax.transpose(lhs, lhs_order),
        jax.lax.transpose(rhs, rhs_order),
        dimension_numbers=canonical,
        **params,
    )
    return jax.lax.transpose(out, tuple(int(i) for i in np.argsort(out_order)))


def on_one_cpu(function: Callable[..., _R], *args: Any, cpu: Callable[..., _R]) -> _R:
    """``cpu(*args)`` in programs for one CPU device, else ``function(*args)``.

    It is the platform for which a program is lowered that decides, not that of the
    machine which traces it: programs compiled ahead of time are as those of a device.
    With several CPU devices loops over examples would gather those of all devices.
    """
    if jax.device_count() > 1:
        return function(*args)
    chosen: _R = jax.lax.platform_dependent(*args, cpu=cpu, default=function)
    return chosen


def example_by_example(function: _F) -> _F:
    """``function`` of arrays; under ``vmap`` a loop over examples where that is faster.

    A CPU has no use for batched products of small matrices, and their operands for all
    examples do not fit in its caches. Call it under ``vmap`` only: derivatives are
    those of the loop.
    """
    looped = jax.custom_batching.custom_vmap(function)

    @looped.def_vmap
    def rule(size: int, batched: Sequence[bool], *args: Array) -> tuple[Any, Any]:
        del size

        def one_by_one(*args: Array) -> Any:
            def one(rows: Sequence[Array]) -> Any:
                row = iter(rows)
                both = zip(args, batched, strict=True)
                return function(*(next(row) if b else a for a, b in both))

            return jax.lax.map(
                one, [a for a, b in zip(args, batched, strict=True) if b]
            )

        together = jax.vmap(function, [0 if b else None for b in batched])
        results = on_one_cpu(together, *args, cpu=one_by_one)
        return results, jax.tree.map(lambda _: True, results)

    return looped  # type: ignore[return-value]


def map_slices(function: Callable[[Any], _R], slices: PyTree) -> _R:
    """``function`` of every slice along the leading axis, one after another, stacked.

    Args:
        function: maps a pytree of slices to a pytree of arrays.
        slices: arrays [n, ...] with the same n.

    Returns:
        The results, each with a leading axis n.
    """
    if jax.tree.leaves(slices)[0].shape[0] == 1:
        only = function(jax.tree.map(lambda a: a[0], slices))
        stacked: _R = jax.tree.map(lambda a: a[None], only)
    else:
        stacked = jax.lax.map(loop_body(function), slices)
    return stacked


def sum_slices(function: Callable[[Any], _R], slices: PyTree) -> _R:
    """Σ over slices along the leading axis of ``function``, holding one result."""
    if jax.tree.leaves(slices)[0].shape[0] == 1:
        return function(jax.tree.map(lambda a: a[0], slices))
    body = loop_body(function)

    def add(total: PyTree, one: Any) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, body(one)), None

    total: _R = jax.lax.scan(add, _zeros(function, slices), slices)[0]
    return total


def mean_and_squares(
    function: Callable[[Any], _R], slices: PyTree
) -> tuple[_R, PyTree]:
    """The mean m over slices of ``function``, and Σ (f - m)², holding two results.

    By Welford's updates (1962, doi:10.1080/00401706.1962.10490022): a difference of
    sums of squares would lose a spread below a ten-thousandth of the mean.
    """
    number = jax.tree.leaves(slices)[0].shape[0]
    if number == 1:
        only = function(jax.tree.map(lambda a: a[0], slices))
        return only, jax.tree.map(jnp.zeros_like, only)
    body = loop_body(function)

    def add(carry: PyTree, indexed: Any) -> tuple[PyTree, None]:
        (before, squares), (index, one) = carry, indexed
        value = body(one)
        share = 1 / (index + 1)
        mean = jax.tree.map(
            lambda m, v: m + (v - m) * share.astype(v.dtype), before, value
        )
        squares = jax.tree.map(
            lambda s, v, b, m: s + (v - b) * (v - m), squares, value, before, mean
        )
        return (mean, squares), None

    zeros = _zeros(function, slices)
    moments: tuple[_R, PyTree] = jax.lax.scan(
        add, (zeros, zeros), (jnp.arange(number), slices)
    )[0]
    return moments


def _zeros(function: Callable[[Any], PyTree], slices: PyTree) -> PyTree:
    """Zeros like a result of ``function``, varying over devices as it does."""
    first = jax.tree.map(lambda a: a[0], slices)
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    # What the function closes over may differ between devices where no slice does.
    leaves, structure = jax.tree.flatten(axes.vary_like(zeros, slices))
    own = [
        axes.vary(leaf, sorted(result.mat.varying))
        for leaf, result in zip(leaves, traced.out_avals, strict=True)
    ]
    return jax.tree.unflatten(structure, own)


def levelled(batch: int, chunk_size: int | None) -> tuple[int, int]:
    """How many chunks a batch is cut into, the fewest possible, and their equal size.

    Sizes are levelled: of the last chunk's first rows, fewer than there are chunks are
    in the chunk before as well.
    """
    count = -(-batch // (chunk_size or batch))
    return count, -(-batch // count)


def map_chunks(
    function: Callable[[Any], _R], examples: PyTree, chunk_size: int | None
) -> _R:
    """Per-example results [B, ...] of ``function``, ``chunk_size`` examples at a time.

    Args:
        function: maps a pytree of arrays [n, ...] to a pytree of arrays [n, ...], each
            example for itself.
        examples: arrays [B, ...].
        chunk_size: how many at a time; None for all at once.
    """
    batch = jax.tree.leaves(examples)[0].shape[0]
    count, size = levelled(batch, chunk_size)
    if count == 1:
        return function(examples)
    last = (count - 1) * size

    def join(chunks: Array) -> Array:
        rows = chunks.reshape(-1, *chunks.shape[2:])
        if len(rows) == batch:
            return rows
        return jnp.concatenate([rows[:last], rows[len(rows) - batch + last :]])

    joined: _R = jax.tree.map(
        join,
        map_slices(lambda k: function(_chunk(examples, k, size)), jnp.arange(count)),
    )
    return joined


def sum_chunks(
    function: Callable[[Any, Float[Array, " n"]], _R],
    examples: PyTree,
    chunk_size: int | None,
) -> _R:
    """Σ over chunks of ``function(chunk, weights)``, 0 for rows summed before, else 1.

    Args:
        function: maps a pytree of arrays [n, ...] and weights [n] to a pytree of sums.
        examples: arrays [B, ...].
        chunk_size: how many at a time; None for all at once.
    """
    batch = jax.tree.leaves(examples)[0].shape[0]
    count, size = levelled(batch, chunk_size)
    if count == 1:
        return function(examples, jnp.ones(batch, jnp.float32))
    new = np.ones((count, size), np.float32)
    new[-1, : count * size - batch] = 0

    def one_chunk(slices: tuple[Array, Array]) -> _R:
        k, weights = slices
        return function(_chunk(examples, k, size), weights)

    return sum_slices(one_chunk, (jnp.arange(count), jnp.asarray(new)))


def _chunk(examples: PyTree, k: Array, size: int) -> PyTree:
    """The k-th chunk's rows, sliced where they are: padding would copy all of them."""

    def rows(array: Array) -> Array:
        start = jnp.minimum(k * size, array.shape[0] - size)
        return jax.lax.dynamic_slice_in_dim(array, start, size)

    return jax.tree.map(rows, examples)
