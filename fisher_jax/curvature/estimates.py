"""Estimates with the standard error that their random draws leave."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
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
        return Estimate(mean, jnp.broadcast_to(trees.unknown(mean), mean.shape))
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


def exactly(mean: PyTree) -> Estimate:
    """An estimate without any error."""
    return Estimate(mean, jax.tree.map(jnp.zeros_like, mean))
