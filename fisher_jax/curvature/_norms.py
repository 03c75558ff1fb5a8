"""Per-example squared norms of gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jaxtyping import Array, Float, PyTree

from fisher_jax import axes, loops, programs, trees
from fisher_jax.curvature import _layers, _shared
from fisher_jax.curvature.likelihoods import OutputsFn

# Maps one example's outputs, what comes with the example, and k to a cotangent.
Cotangent = Callable[[Array, Any, Array], Array]

_R = TypeVar("_R")
_Operands = dict[int, Sequence[Array]]

# XLA fuses most intermediate values away: these are not all in memory at a time.
_CACHED_BYTES = 2**25
_FEWEST_AT_A_TIME = 8
# Of values and of gradients per example of the parameters that have no site; more on
# accelerators and several devices, where all examples at once are fastest. XLA's GPU
# compiler takes up to 2.3 times as much, which is below 1 GiB.
_HELD_BYTES = 2**28
_HELD_BYTES_OF_A_DEVICE = 3 * 2**27


def squared_pullback_norms(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    extra: PyTree,
    cotangent: Cotangent,
    number: int,
    chunk_size: int | None,
) -> list[Float[Array, "B K"]]:
    """‖J_iᵀ v_ik‖² of every example i and cotangent k, for each leaf of params.

    One forward pass per example and K backward passes. The gradient of a parameter that
    enters the network once, as the weights of a dense layer or a convolution or as a
    table of embeddings, is reduced to its norm within the backward pass, from the
    layer's input and output cotangent (see ``_layers``), so that gradients per example
    are held for one such layer at a time, if at all; rematerialised blocks stay so, and
    layers stacked over the steps of a scan count one by one. So is that of a matrix
    that enters it several times, after the backward pass (see ``_shared``). Other
    parameters (biases, scales, weights that are normalised, or the same in all steps of
    a loop) have theirs computed and then reduced.

    Args:
        outputs_fn: maps params and inputs [1, ...] to outputs [1, ...].
        params: floating-point arrays.
        inputs: arrays [B, ...].
        extra: arrays [B, ...] that ``cotangent`` needs of an example.
        cotangent: maps one example's outputs, its part of extra and k to v_ik, in the
            shape of its outputs.
        number: K.
        chunk_size: examples held in memory at a time; None for ``default_chunk_sizes``.
    """
    sizes = chunk_size and ChunkSizes(chunk_size, chunk_size)
    sizes = sizes or default_chunk_sizes(outputs_fn, params, inputs)
    # Inside shard_map the gradient of replicated parameters would be summed over
    # devices, each with another example.
    params = axes.vary_like(params, (inputs, extra))

    def one_example(example: tuple[PyTree, PyTree]) -> list[Float[Array, " K"]]:
        one_input, one_extra = example
        network = _tapped_network(outputs_fn, params, one_input)
        outputs, pullback, operands = jax.vjp(
            network.outputs_of, network.taps, network.rest, has_aux=True
        )

        def leaf_norms(k: Array) -> list[Float[Array, ""]]:
            v = cotangent(outputs, one_extra, k)
            # A Gaussian's does not depend on the outputs, which differ by device.
            v = axes.vary_like(v.astype(outputs.dtype), outputs)
            taps, rest = pullback(v)
            norms = taps.norms | {k: trees.squared_norm(g) for k, g in rest.items()}
            for one in network.shared:
                norms[one.leaf] = _shared.squared_norm(one, operands, taps.zeros)
            return [norms[leaf] for leaf in sorted(norms)]

        return loops.map_slices(leaf_norms, jnp.arange(number))

    def norms(size: int, *examples: PyTree) -> list[Float[Array, "B K"]]:
        return loops.map_chunks(jax.vmap(one_example), examples, size)

    return by_chunks(norms, sizes, inputs, extra)


class ChunkSizes(NamedTuple):
    """Examples at a time in programs for one CPU device, and in all others."""

    one_cpu: int
    others: int


def by_chunks(function: Callable[..., _R], sizes: ChunkSizes, *examples: PyTree) -> _R:
    """``function(size, *examples)`` with the size of the device that it runs on."""
    batch = trees.batch_size(examples)
    if loops.levelled(batch, sizes.one_cpu) == loops.levelled(batch, sizes.others):
        return function(sizes.others, *examples)
    return loops.on_one_cpu(
        partial(function, sizes.others),
        *examples,
        cpu=partial(function, sizes.one_cpu),
    )


def default_chunk_sizes(
    outputs_fn: OutputsFn, params: PyTree, inputs: PyTree
) -> ChunkSizes:
    """How many examples at a time are fast and fit.

    On one CPU device those whose intermediate values about fit in its caches: on
    SimpleCNN's 128 examples that takes three quarters of the time of all at once.
    Everywhere so few that what is held for each of them fits in memory: its values, the
    gradients of parameters without a site, and what the norm of one site takes.
    """
    leaves = jax.tree.leaves(params)
    program = programs.flatten(outputs_fn, params, _first(inputs))
    sites = _layers.find_sites(program, len(leaves))
    shared = _shared.find_shared(program, len(leaves))
    tapped = {site.leaf for site in sites} | {one.leaf for one in shared}
    held = sum(_bytes(leaf) for k, leaf in enumerate(leaves) if k not in tapped)
    held += max((_layers.bytes_of_norm(site) for site in sites), default=0)
    held += sum(map(_shared.bytes_of_norm, shared))
    results: list[Any] = [v.aval for e in program.jaxpr.eqns for v in e.outvars]
    values = sum(_bytes(v) for v in results if isinstance(v, ShapedArray))
    cached = max(_FEWEST_AT_A_TIME, _CACHED_BYTES // max(values, 1))
    fitting = _that_fit(values + held)
    return ChunkSizes(min(cached, fitting.one_cpu), fitting.others)


def _bytes(array: Any) -> int:
    count: int = array.size * array.dtype.itemsize
    return count


def _first(inputs: PyTree) -> PyTree:
    return jax.tree.map(lambda a: a[:1], inputs)


class _Taps(NamedTuple):
    """What tells norms by the derivative in it.

    Attributes:
        norms: a scalar for each leaf whose norm comes from its layer, by leaf number.
        zeros: added where shared leaves are used, by the equation's number.
    """

    norms: dict[int, Array]
    zeros: dict[int, Array]


class _TappedNetwork(NamedTuple):
    """One example's outputs as a function of what their derivative is taken in.

    Attributes:
        outputs_of: maps taps and rest to outputs, and to the operands where shared
            leaves are used, by the equation's number.
        taps: of leaves whose gradient is not made.
        shared: those of them that are used several times.
        rest: the other leaves.
    """

    outputs_of: Callable[[_Taps, dict[int, Array]], tuple[Array, _Operands]]
    taps: _Taps
    shared: list[_shared.Shared]
    rest: dict[int, Array]


def gradients_that_fit(params: PyTree) -> ChunkSizes:
    """How many gradients fit in the memory that may be held."""
    return _that_fit(sum(_bytes(leaf) for leaf in jax.tree.leaves(params)))


def _that_fit(own: int) -> ChunkSizes:
    return ChunkSizes(
        max(1, _HELD_BYTES // max(own, 1)),
        max(1, _HELD_BYTES_OF_A_DEVICE // max(own, 1)) * jax.device_count(),
    )


def pullback_of_one(
    outputs_fn: OutputsFn, params: PyTree, one_input: PyTree
) -> tuple[Array, Callable[[Array], PyTree]]:
    """One example's outputs, and cotangent -> gradient; convolutions' as products."""
    network = _tapped_network(outputs_fn, params, one_input, is_tapped=False)
    outputs, pullback, _ = jax.vjp(
        network.outputs_of, network.taps, network.rest, has_aux=True
    )
    structure = jax.tree.structure(params)

    def gradient(cotangent: Array) -> PyTree:
        _, rest = pullback(cotangent)
        return jax.tree.unflatten(structure, [rest[k] for k in sorted(rest)])

    return outputs, gradient


def _tapped_network(
    outputs_fn: OutputsFn,
    params: PyTree,
    one_input: PyTree,
    *,
    is_tapped: bool = True,
) -> _TappedNetwork:
    single = jax.tree.map(lambda a: a[None], one_input)
    program = programs.flatten(lambda p, x: outputs_fn(p, x)[0], params, single)
    leaves, inputs = jax.tree.leaves(params), jax.tree.leaves(single)
    sites = _layers.find_sites(program, len(leaves)) if is_tapped else []
    shared = _shared.find_shared(program, len(leaves)) if is_tapped else []
    evaluated = _layers.with_taps(program, sites)
    zero = jnp.zeros((), trees.accumulation_dtype(params))
    taps = _Taps({site.leaf: zero for site in sites}, _shared.zeros(shared))
    tapped = {site.leaf for site in sites} | {one.leaf for one in shared}
    rest = {k: leaf for k, leaf in enumerate(leaves) if k not in tapped}

    def outputs_of(taps: _Taps, rest: dict[int, Array]) -> tuple[Array, _Operands]:
        arguments = [rest.get(k, leaf) for k, leaf in enumerate(leaves)]
        ordered = [taps.norms[site.leaf] for site in sites]
        operands: _Operands = {}
        adding = partial(_shared.adding, shared, taps.zeros, operands)
        return evaluated(ordered, [*arguments, *inputs], adding)[0], operands

    taps = axes.vary_like(taps, (params, single))
    return _TappedNetwork(outputs_of, taps, shared, rest)


def total(leaf_norms: list[Float[Array, "B K"]]) -> Float[Array, "B K"]:
    """Squared norms over all parameters from those of their leaves."""
    dtype = jnp.result_type(*leaf_norms)
    return sum((n.astype(dtype) for n in leaf_norms), jnp.zeros((), dtype))
