"""Per-example squared norms of gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jaxtyping import Array, Float, PyTree

from fisher_jax import axes, loops, programs, trees
from fisher_jax.curvature import _layers
from fisher_jax.curvature.class_space import LogitsFn

# From one example's logits [C] and its noise to K cotangents [K, C].
Cotangents = Callable[[Array, Any], Float[Array, "K C"]]

# XLA fuses most intermediate values away: these are not all in memory at a time.
_CACHED_BYTES = 2**25
_FEWEST_AT_A_TIME = 8


def squared_pullback_norms(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    noise: PyTree,
    cotangents: Cotangents,
    chunk_size: int | None,
) -> list[Float[Array, "B K"]]:
    """‖J_iᵀ v_ik‖² of every example i and cotangent k, for each leaf of params.

    One forward pass per example and K backward passes. The gradient of a parameter that
    enters the network once, as the weights of a dense layer or a convolution, is
    reduced to its norm within the backward pass, from the layer's input and output
    cotangent (see ``_layers``), so that gradients per example are held for one such
    layer at a time, if at all. Other parameters (biases, scales, weights that are
    shared, normalised, or used in a loop) have theirs computed and then reduced.

    Args:
        logits_fn: maps params and inputs [1, ...] to logits [1, C].
        params: floating-point arrays.
        inputs: arrays [B, ...].
        noise: arrays [B, ...] that ``cotangents`` turns into cotangents.
        cotangents: maps one example's logits [C] and noise to cotangents [K, C].
        chunk_size: examples held in memory at a time; None for what is fastest, see
            ``fastest_chunk_size``.
    """
    if chunk_size is None:
        chunk_size = fastest_chunk_size(logits_fn, params, inputs)
    # Inside shard_map the gradient of replicated parameters would be summed over
    # devices, each with another example.
    params = axes.vary_like(params, (inputs, noise))

    def one_example(example: tuple[PyTree, PyTree]) -> list[Float[Array, " K"]]:
        one_input, one_noise = example
        network = _tapped_network(logits_fn, params, one_input)
        logits, pullback = jax.vjp(network.logits_of, network.taps, network.rest)

        def leaf_norms(cotangent: Float[Array, " C"]) -> list[Float[Array, ""]]:
            tapped, rest = pullback(cotangent.astype(logits.dtype))
            norms = tapped | {k: trees.squared_norm(g) for k, g in rest.items()}
            return [norms[leaf] for leaf in sorted(norms)]

        return loops.map_slices(leaf_norms, cotangents(logits, one_noise))

    return loops.map_chunks(jax.vmap(one_example), (inputs, noise), chunk_size)


def fastest_chunk_size(
    logits_fn: LogitsFn, params: PyTree, inputs: PyTree
) -> int | None:
    """How many examples at a time are fastest; None for all.

    On one CPU device those whose intermediate values about fit in its caches: on
    SimpleCNN's 128 examples that takes three quarters of the time of all at once.
    """
    if not loops.one_example_at_a_time():
        return None
    program = programs.flatten(logits_fn, params, _first(inputs))
    values: list[Any] = [v.aval for e in program.jaxpr.eqns for v in e.outvars]
    size: int = sum(
        v.size * v.dtype.itemsize for v in values if isinstance(v, ShapedArray)
    )
    return max(_FEWEST_AT_A_TIME, _CACHED_BYTES // max(size, 1))


def _first(inputs: PyTree) -> PyTree:
    return jax.tree.map(lambda a: a[:1], inputs)


class _TappedNetwork(NamedTuple):
    """One example's logits as a function of what their derivative is taken in.

    Attributes:
        logits_of: maps taps and rest to logits [C].
        taps: a scalar for each leaf whose norm comes from its layer, by leaf number.
        rest: the other leaves.
    """

    logits_of: Callable[[dict[int, Array], dict[int, Array]], Float[Array, " C"]]
    taps: dict[int, Array]
    rest: dict[int, Array]


def _tapped_network(
    logits_fn: LogitsFn, params: PyTree, one_input: PyTree
) -> _TappedNetwork:
    single = jax.tree.map(lambda a: a[None], one_input)
    program = programs.flatten(lambda p, x: logits_fn(p, x)[0], params, single)
    leaves, inputs = jax.tree.leaves(params), jax.tree.leaves(single)
    sites = _layers.find_sites(program, len(leaves))
    tapped = _layers.with_taps(program, sites)
    zero = axes.vary_like(jnp.zeros((), trees.accumulation_dtype(params)), single)
    taps = {site.leaf: zero for site in sites}
    rest = {k: leaf for k, leaf in enumerate(leaves) if k not in taps}

    def logits_of(taps: dict[int, Array], rest: dict[int, Array]) -> Array:
        arguments = [rest.get(k, leaf) for k, leaf in enumerate(leaves)]
        ordered = [taps[site.leaf] for site in sites]
        return tapped(ordered, [*arguments, *inputs])[0]

    return _TappedNetwork(logits_of, taps, rest)


def total(leaf_norms: list[Float[Array, "B K"]]) -> Float[Array, "B K"]:
    """Squared norms over all parameters from those of their leaves."""
    dtype = jnp.result_type(*leaf_norms)
    return sum((n.astype(dtype) for n in leaf_norms), jnp.zeros((), dtype))
