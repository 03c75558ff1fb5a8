"""Batches split over devices inside ``jax.shard_map``.

Under plain ``jit`` a sharded batch is one array and nothing here is needed. Inside
``shard_map`` a function sees its device's examples only; ``axis_name`` says along which
mesh axes the batch is split, and then sums are taken over all devices.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
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
    """

    def one(leaf: Array) -> Array:
        missing = tuple(n for n in axis_names if n not in varying(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, tree)


def vary_like(tree: PyTree, reference: PyTree) -> PyTree:
    """Marks the leaves of ``tree`` as varying along the axes ``reference`` varies."""
    return vary(tree, sorted(varying(reference)))


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
