"""Per-example squared norms of gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fisher_jax.curvature import axes, loops, trees

LogitsFn = Callable[[Any, Any], Float[Array, "B C"]]
# From one example's logits [C] and its noise to K cotangents [K, C].
Cotangents = Callable[[Array, Any], Float[Array, "K C"]]


def squared_pullback_norms(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    noise: PyTree,
    cotangents: Cotangents,
    chunk_size: int | None,
) -> list[Float[Array, "B K"]]:
    """‖J_iᵀ v_ik‖² of every example i and cotangent k, for each leaf of params.

    One forward pass per example and K backward passes, whose results are reduced to
    norms before the next begins.

    Args:
        logits_fn: maps params and inputs [1, ...] to logits [1, C].
        params: floating-point arrays.
        inputs: arrays [B, ...].
        noise: arrays [B, ...] that ``cotangents`` turns into cotangents.
        cotangents: maps one example's logits [C] and noise to cotangents [K, C].
        chunk_size: examples held in memory at a time; None for all.
    """
    # Inside shard_map the gradient of replicated parameters would be summed over
    # devices, each with another example.
    params = axes.vary_like(params, (inputs, noise))

    def one_example(example: tuple[PyTree, PyTree]) -> list[Float[Array, " K"]]:
        one_input, one_noise = example
        single = jax.tree.map(lambda a: a[None], one_input)
        logits, pullback = jax.vjp(lambda p: logits_fn(p, single)[0], params)

        def leaf_norms(cotangent: Float[Array, " C"]) -> list[Float[Array, ""]]:
            (gradient,) = pullback(cotangent.astype(logits.dtype))
            return [trees.squared_norm(leaf) for leaf in jax.tree.leaves(gradient)]

        return loops.map_slices(leaf_norms, cotangents(logits, one_noise))

    return loops.map_chunks(jax.vmap(one_example), (inputs, noise), chunk_size)


def total(leaf_norms: list[Float[Array, "B K"]]) -> Float[Array, "B K"]:
    """Squared norms over all parameters from those of their leaves."""
    dtype = jnp.result_type(*leaf_norms)
    return sum((n.astype(dtype) for n in leaf_norms), jnp.zeros((), dtype))
