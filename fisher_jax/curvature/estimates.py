"""Estimates with the standard error that their random draws leave."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, trees


class Estimate(NamedTuple):
    """An estimate and the standard error that its random draws leave.

    Attributes:
        mean: the estimate: a scalar, or a pytree of arrays where it is of many numbers.
        sem: its standard error given the examples, of the same shape: 0 where nothing
            is random, NaN where a single draw says nothing about it (infinity inside a
            transformation while ``jax_debug_nans`` is on).
    """

    mean: Float[Array, ""]
    sem: Float[Array, ""]


def probe_keys(key: PRNGKeyArray | None, number: int) -> PRNGKeyArray:
    """One key per probe; the first keys do not depend on how many there are."""
    key = trees.checked_key(key)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number))


def from_draws(draws: Float[Array, "D *shape"]) -> Estimate:
    """Mean and standard error of independent draws; NaN error for a single one."""
    mean = jnp.mean(draws, axis=0)
    if draws.shape[0] == 1:
        return Estimate(mean, trees.unknown(mean, mean.shape))
    sem = jnp.std(draws, axis=0, ddof=1) / jnp.sqrt(draws.shape[0])
    return Estimate(mean, sem)


def mean_over_examples(
    values: Float[Array, " B"], axis_name: axes.AxisName
) -> Float[Array, ""]:
    """The mean over the examples of all devices."""
    total = axes.total(jnp.sum(values), axis_name)
    return total / (values.size * axes.size(axis_name))


def from_examples(squares: Float[Array, "B D"], axis_name: axes.AxisName) -> Estimate:
    """Mean over examples and draws; the error from the draws, pooled over examples.

    From the spread over examples where there is one draw, which is an upper bound.
    """
    batch = squares.shape[0] * axes.size(axis_name)
    draws = squares.shape[1]
    mean = mean_over_examples(squares.mean(axis=1), axis_name)
    if draws >= 2:
        spread = axes.total(jnp.var(squares, axis=1, ddof=1).sum(), axis_name)
        return Estimate(mean, jnp.sqrt(spread / draws) / batch)
    if batch == 1:
        return Estimate(mean, trees.unknown(mean))
    spread = axes.total(jnp.sum((squares - mean) ** 2), axis_name)
    return Estimate(mean, jnp.sqrt(spread / (batch - 1) / batch))


def over_batches(
    function: Callable[[Any], Estimate],
    batches: Iterable[Any],
    *,
    target_sem: float | None = None,
    progress: Callable[[Estimate, int], object] | None = None,
) -> Estimate:
    """An estimate over the batches of a data loader, every example of equal weight.

    The mean of B_b examples counts B_b times, so a last batch may be smaller (or have
    another shape: a compiled function compiles once more for it); errors of batches are
    independent, sem² = Σ_b (B_b sem_b)²/(Σ_b B_b)². Give each batch a key of its own.

    >>> batches = [jnp.arange(4.0), jnp.arange(2.0)]
    >>> estimate = over_batches(lambda x: Estimate(x.mean(), jnp.zeros(())), batches)
    >>> round(float(estimate.mean), 4)
    1.1667

    Args:
        function: maps a batch to an Estimate of a mean over its examples, of a scalar
            or a pytree, as ``lambda batch: fisher_trace(outputs_fn, params, *batch)``.
        batches: pytrees of arrays [B_b, ...], read one by one, only once.
        target_sem: stop after the batch at which no sem is greater; None: never. The
            estimate is then of the examples that were read.
        progress: called with the estimate so far and how many examples it is of.

    Returns:
        The estimate, NumPy numbers or arrays in float64.

    Raises:
        TypeError: if function returns no Estimate.
        ValueError: if there is no batch, or target_sem is not positive.
    """
    if target_sem is not None and not target_sem > 0:
        raise ValueError(f"target_sem: expected a positive number, got {target_sem}")
    count, estimate = 0, None
    sums: Any = None
    for batch in batches:
        size = trees.batch_size(_arrays(batch))
        one = function(batch)
        if not isinstance(one, Estimate):
            raise TypeError(
                f"function: expected an Estimate, got {trees.described(one)}"
            )
        count += size
        means, sems = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), (one.mean, one.sem)
        )
        part = (
            jax.tree.map(lambda m, size=size: size * m, means),
            jax.tree.map(lambda s, size=size: (size * s) ** 2, sems),
        )
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
        estimate = Estimate(
            jax.tree.map(lambda s, count=count: s / count, sums[0]),
            jax.tree.map(lambda s, count=count: np.sqrt(s) / count, sums[1]),
        )
        if progress is not None:
            progress(estimate, count)
        if target_sem is not None and all(
            np.all(s <= target_sem) for s in jax.tree.leaves(estimate.sem)
        ):
            break
    if estimate is None:
        raise ValueError("batches: expected at least one, got none")
    return estimate


def _arrays(batch: PyTree) -> PyTree:
    """The leaves that have examples; a key or a number is none."""
    leaves = jax.tree.leaves(batch)
    return [
        leaf
        for leaf in leaves
        if np.ndim(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def exactly(mean: PyTree) -> Estimate:
    """An estimate without any error."""
    return Estimate(mean, jax.tree.map(jnp.zeros_like, mean))
