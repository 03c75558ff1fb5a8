"""Batches split over devices, inside ``jax.shard_map`` and outside.

Inside ``shard_map`` a function sees its device's examples only; ``axis_name`` says
along which mesh axes the batch is split, and then sums are taken over all devices.

Under plain ``jit`` a sharded batch is one array. On Auto axes nothing here is needed.
On Explicit ones, ``jax.make_mesh``'s default, the sharding is part of an array's type,
and a batch can be neither cut nor mapped over beside arrays that are not sharded like
it: ``spread`` then enters shard_map.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, PyTree

_T = TypeVar("_T")

AxisName = str | Sequence[str] | None


def names(axis_name: AxisName) -> tuple[str, ...]:
    """``axis_name`` as a tuple, empty for None."""
    if axis_name is None:
        return ()
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)


def varying(tree: PyTree) -> frozenset[str]:
    """The mesh axes along which any leaf is known to differ between devices."""
    types = (jax.typeof(a) for a in jax.tree.leaves(tree))
    return frozenset(name for t in types for name in t.mat.varying)


def vary(tree: PyTree, axis_names: Sequence[str]) -> PyTree:
    """Marks replicated leaves as each device's own along ``axis_names``.

    The derivative with respect to a replicated array sums over devices of its own
    accord; with respect to a device's own it does not, and the sum is ours to take.
    An axis of ``jax.vmap`` has no such arrays.
    """
    of_mesh = jax.sharding.get_abstract_mesh().manual_axes

    def one(leaf: Array) -> Array:
        missing = tuple(
            n for n in axis_names if n in of_mesh and n not in varying(leaf)
        )
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, tree)


def vary_like(tree: PyTree, reference: PyTree) -> PyTree:
    """Marks the leaves of ``tree`` as varying along the axes ``reference`` varies."""
    return vary(tree, sorted(varying(reference)))


def vary_each(tree: PyTree, like: PyTree) -> PyTree:
    """Marks each leaf as varying along the axes its counterpart varies."""
    return jax.tree.map(vary_like, tree, like)


def result_varies(function: Callable[[_T], PyTree], argument: _T) -> frozenset[str]:
    """The mesh axes along which ``function(argument)`` differs between devices."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return frozenset()
    results = jax.make_jaxpr(function)(argument).out_avals
    return frozenset(name for r in results for name in r.mat.varying)


def size(axis_name: AxisName) -> int:
    """How many devices share the batch."""
    return jax.lax.axis_size(names(axis_name)) if names(axis_name) else 1


def total(tree: _T, axis_name: AxisName) -> _T:
    """The sum over the devices that share the batch."""
    if not names(axis_name):
        return tree
    summed: _T = jax.lax.psum(tree, names(axis_name))
    return summed


def own_rows(array: Array, axis_name: AxisName, *, axis: int) -> Array:
    """This device's share of the rows of a global array, in the order of the mesh."""
    if not names(axis_name):
        return array
    rows = array.shape[axis] // size(axis_name)
    first = jax.lax.axis_index(names(axis_name)) * rows
    return jax.lax.dynamic_slice_in_dim(array, first, rows, axis)


def rows(array: Array, order: Array) -> Array:
    """``array[order]``, laid out over Explicit axes as the array is."""
    sharding = jax.typeof(array).sharding
    if sharding.mesh.empty:
        return array[order]
    picked: Array = array.at[order].get(out_sharding=sharding)
    return picked


def first(tree: PyTree, count: int) -> PyTree:
    """The first ``count`` rows of arrays, whole on each device of an Explicit axis.

    Looked up, not sliced: of a slice that is shorter than the devices are many XLA
    fills the rest with what divides by zero, and gradients of embeddings are NaN then
    (JAX 0.10, an Auto mesh of two axes with the batch along one).
    """

    def one(array: Array) -> Array:
        array, whole = jnp.asarray(array), None
        if explicit_split(array):
            sharding = jax.typeof(array).sharding
            spec = PartitionSpec(None, *sharding.spec[1:])
            whole = _sharding(sharding.mesh, spec)
        picked: Array = array.at[jnp.arange(count)].get(out_sharding=whole)
        return picked

    return jax.tree.map(one, tree)


def check(inputs: PyTree, axis_name: AxisName) -> None:
    """Refuses a batch that is split over devices without ``axis_name`` saying so.

    Raises:
        ValueError: a mean over this device's examples would pass for the mean over all.
    """
    forgotten = varying(inputs) - set(names(axis_name))
    if forgotten:
        raise ValueError(
            f"inputs: split over the mesh axes {sorted(forgotten)} inside shard_map; "
            f"pass axis_name={tuple(sorted(varying(inputs)))!r} so that means are "
            "taken over the whole batch"
        )


def explicit_split(examples: PyTree) -> tuple[str, ...]:
    """The Explicit mesh axes along which the leading axis of any array is split."""
    for leaf in jax.tree.leaves(examples):
        sharding = jax.typeof(leaf).sharding
        if sharding.mesh.empty or not sharding.spec or sharding.spec[0] is None:
            continue
        mesh = sharding.mesh
        types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
        along = names(sharding.spec[0])
        split = tuple(n for n in along if types[n] is AxisType.Explicit)
        if split:
            return split
    return ()


def spread(
    function: Callable[..., _T],
    network: Callable[[Any, Any], Any],
    params: PyTree,
    examples: Any,
    others: PyTree,
    axis_name: AxisName,
    *,
    is_per_example: bool = False,
) -> _T:
    """``function(network, params, examples, others, axis_name)``, wherever they lie.

    Where the examples are split over Explicit axes it runs under shard_map, each device
    with its own, params and others whole on each.

    Args:
        function: of the global batch, given the axes that split it.
        network: maps params and the first of examples to outputs.
        params: of the network.
        examples: a tuple of arrays [B, ...], the network's inputs first.
        others: arrays that are no examples.
        axis_name: the axes that split the batch, inside the caller's shard_map.
        is_per_example: whether results are [B, ...]; else they are the same everywhere.
    """
    split = () if names(axis_name) else explicit_split(examples)
    if not split:
        return function(network, params, examples, others, axis_name)
    mesh = next(
        jax.typeof(a).sharding.mesh
        for a in jax.tree.leaves(examples)
        if explicit_split(a)
    )
    params, others = _without(split, (params, others), mesh)
    captured, bind = _hoist(network, params, examples[0])

    def on_one_device(
        captured: list[Array], params: PyTree, examples: Any, others: PyTree
    ) -> _T:
        return function(bind(captured), params, examples, others, split)

    whole, share = PartitionSpec(), PartitionSpec(split)
    mapped = jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(whole, whole, share, whole),
        out_specs=share if is_per_example else whole,
        axis_names=set(split),
        # A network that was traced outside knows nothing of varying axes.
        check_vma=False,
    )
    return mapped(
        _without(split, captured, mesh),
        params,
        jax.sharding.reshard(examples, _sharding(mesh, share)),
        others,
    )


def _sharding(mesh: Any, spec: PartitionSpec) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, spec)


def _without(split: Sequence[str], tree: PyTree, mesh: Any) -> PyTree:
    """Arrays made whole along the axes ``split``, and left over others as they are."""

    def rest(entry: Any) -> Any:
        kept = tuple(n for n in names(entry) if n not in split)
        return kept or None

    def one(leaf: Array) -> Array:
        if jax.typeof(leaf).sharding.mesh.empty:
            return leaf
        spec = PartitionSpec(*map(rest, jax.typeof(leaf).sharding.spec))
        return jax.sharding.reshard(leaf, _sharding(mesh, spec))

    return jax.tree.map(one, tree)


def _hoist(
    network: Callable[[Any, Any], Any], params: PyTree, inputs: PyTree
) -> tuple[list[Array], Callable[[list[Array]], Callable[[Any, Any], Any]]]:
    """The arrays on a mesh that a network closes over, and the network of them.

    Inside shard_map arrays of the mesh outside cannot be used; they must come in as
    arguments.
    """
    around = jax.sharding.get_abstract_mesh()
    consts = jax.make_jaxpr(network)(params, inputs).consts
    captured = [c for c in consts if not jax.typeof(c).sharding.mesh.empty]
    places = {id(c): place for place, c in enumerate(captured)}

    def bind(inside: list[Array]) -> Callable[[Any, Any], Any]:
        def bound(*arguments: Any) -> Any:
            shapes = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(
                    a.shape, a.dtype, weak_type=jax.typeof(a).weak_type
                ),
                arguments,
            )
            with jax.sharding.use_abstract_mesh(around):
                program, result = jax.make_jaxpr(network, return_shape=True)(*shapes)
            values = [
                inside[places[id(c)]] if id(c) in places else c for c in program.consts
            ]
            flat = jaxpr_as_fun(ClosedJaxpr(program.jaxpr, values))
            leaves = flat(*jax.tree.leaves(arguments))
            return jax.tree.unflatten(jax.tree.structure(result), leaves)

        return bound if captured else network

    return captured, bind
