"""The norm of a matrix that a network multiplies by or looks up several times.

A table of embeddings that is multiplied by again for the outputs has the gradient

    dW = Σ_t e(r_t) γ_tᵀ + Σ_s δ_s h_sᵀ,

with γ_t the cotangent of the row r_t that was looked up for position t, δ_s the
cotangent of what was multiplied from h_s at position s. No gradient per example is
needed for its squared norm: lookups together have one as in ``_layers``, so have
products, and between them there is

    2 Σ_{t,s} δ_s[r_t] (γ_t · h_s).

Unlike a norm at a single place it needs the cotangents of all of them, which come as
the derivatives in zeros that are added to their results.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core.primitives import dot_general_p
from jaxtyping import Array, Float, Int

from fisher_jax import programs, trees
from fisher_jax.curvature import _layers

# What moves no element but by a transposition.
_MOVING = frozenset({"convert_element_type", "copy", "pvary", "transpose"})


class Use(NamedTuple):
    """A product with a matrix, or a lookup of its rows or columns.

    Attributes:
        number: of the equation in its program.
        equation: the product or lookup.
        operand: the matrix's position in it.
        axis: of the matrix, over which it is summed or along which it is looked up.
    """

    number: int
    equation: JaxprEqn
    operand: int
    axis: int

    @property
    def is_lookup(self) -> bool:
        """Whether it is no product."""
        return self.equation.primitive is not dot_general_p


class Shared(NamedTuple):
    """A leaf of the parameters, its shape, and all its uses, two at least."""

    leaf: int
    shape: tuple[int, int]
    uses: list[Use]


def find_shared(program: ClosedJaxpr, leaves: int) -> list[Shared]:
    """The matrices that enter a flat program at several products or lookups alone.

    Lookups have to be along the same axis, and nothing may be nested: of a matrix that
    all steps of a scan share the uses are not known one by one.

    Args:
        program: without nested calls, see ``programs.flatten``; its first arguments are
            the leaves of the parameters.
        leaves: how many they are.
    """
    places = _layers.uses_in(program.jaxpr)
    numbers = {id(equation): n for n, equation in enumerate(program.jaxpr.eqns)}
    found = []
    for leaf, variable in enumerate(program.jaxpr.invars[:leaves]):
        uses = _uses_of(places, numbers, variable, (0, 1))
        along = {use.axis for use in uses or () if use.is_lookup}
        if uses and len(uses) > 1 and len(along) < 2:
            found.append(Shared(leaf, variable.aval.shape, uses))
    return found


def _uses_of(
    places: _layers.Uses,
    numbers: Mapping[int, int],
    variable: Any,
    order: tuple[int, ...],
) -> list[Use] | None:
    """All uses of a matrix whose axes come in this order; None if any is another."""
    if variable.aval.ndim != 2:
        return None
    found: list[Use] = []
    for equation, operand in places.get(variable, ()):
        if equation is None:
            return None
        axis = _axis_of_use(equation, operand)
        if axis is not None:
            found.append(Use(numbers[id(equation)], equation, operand, order[axis]))
            continue
        name = equation.primitive.name
        if name not in _MOVING or not _layers.only_rearranges(equation):
            return None
        moved = equation.params["permutation"] if name == "transpose" else (0, 1)
        deeper = _uses_of(
            places, numbers, equation.outvars[0], tuple(order[d] for d in moved)
        )
        if deeper is None:
            return None
        found += deeper
    return found


def _axis_of_use(equation: JaxprEqn, operand: int) -> int | None:
    """The operand's axis that is summed over or looked up along, if it is only one."""
    if equation.primitive is dot_general_p:
        contracted, batched = equation.params["dimension_numbers"]
        is_plain = len(contracted[operand]) == 1 and not batched[operand]
        return contracted[operand][0] if is_plain else None
    if not _layers.is_lookup(equation, operand):
        return None
    axes = equation.params["dimension_numbers"].start_index_map
    sizes, table = equation.params["slice_sizes"], _layers.aval_of(equation.invars[0])
    if len(axes) != 1 or sizes[axes[0]] != 1:
        return None
    is_whole = sizes[1 - axes[0]] == table.shape[1 - axes[0]]
    return int(axes[0]) if is_whole else None


def zeros(shared: Sequence[Shared]) -> dict[int, Array]:
    """What to add to the results of all uses, by the number of their equation."""
    results = {
        u.number: _layers.aval_of(u.equation.outvars[0]) for s in shared for u in s.uses
    }
    return {number: jnp.zeros(a.shape, a.dtype) for number, a in results.items()}


def adding(
    shared: Sequence[Shared],
    added: Mapping[int, Array],
    operands: dict[int, Sequence[Array]],
    rule: programs.Rule,
) -> programs.Rule:
    """A rule that adds to the results of all uses and notes their operands.

    Args:
        shared: the matrices.
        added: to what equation what is added, see ``zeros``.
        operands: filled while the program is evaluated.
        rule: which gives the results that are added to; a use may be another leaf's
            site.
    """
    numbers = {id(use.equation): use.number for s in shared for use in s.uses}

    def adding_rule(equation: JaxprEqn, values: Sequence[Any]) -> Any:
        results, number = rule(equation, values), numbers.get(id(equation))
        if number is None:
            return results
        if results is None:
            results = [equation.primitive.bind(*values, **equation.params)]
        operands[number] = list(values)
        return [results[0] + added[number]]

    return adding_rule


def squared_norm(
    shared: Shared,
    operands: Mapping[int, Sequence[Array]],
    cotangents: Mapping[int, Array],
) -> Float[Array, ""]:
    """‖dW‖² of a matrix, from the operands and cotangents at its uses."""
    lookups = [use for use in shared.uses if use.is_lookup]
    products = [use for use in shared.uses if not use.is_lookup]
    across = lookups[0].axis if lookups else 0
    dtype = trees.accumulation_dtype([cotangents[u.number] for u in shared.uses])
    looked_up = [
        _layers.rows_and_cotangents(
            use.equation, operands[use.number][1], cotangents[use.number]
        )
        for use in lookups
    ]
    factors = [
        _factors(use, across, operands[use.number], cotangents[use.number])
        for use in products
    ]
    total = jnp.zeros((), dtype)
    if lookups:
        rows, gammas = _joined(looked_up, dtype)
        total += _layers.squared_norm_of_rows(rows, gammas)
    if products:
        deltas, others = _joined(factors, dtype)
        total += _layers.squared_product_norm(others[None], deltas[None])
    if lookups and products:
        total += 2 * _inner_product(rows, gammas, deltas, others)
    return total


def _factors(
    use: Use, across: int, operands: Sequence[Array], cotangent: Array
) -> tuple[Float[Array, "S V"], Float[Array, "S D"]]:
    """Σ_s u_s v_sᵀ is the matrix's gradient, u along its axis ``across``."""
    (other,), (delta,) = _layers.dot_factors(
        use.equation, use.operand, operands[1 - use.operand], cotangent
    )
    return (other, delta) if use.axis == across else (delta, other)


def _joined(parts: Sequence[tuple[Array, Array]], dtype: Any) -> tuple[Array, Array]:
    """Positions of all uses one after another; what is floating of one dtype."""

    def one(array: Array) -> Array:
        is_floating = jnp.issubdtype(array.dtype, jnp.floating)
        return array.astype(dtype) if is_floating else array

    firsts, seconds = zip(*parts, strict=True)
    first, second = (jnp.concatenate([*map(one, a)]) for a in (firsts, seconds))
    return first, second


def _inner_product(
    rows: Int[Array, " T"],
    gammas: Float[Array, "T D"],
    deltas: Float[Array, "S V"],
    others: Float[Array, "S D"],
) -> Float[Array, ""]:
    """⟨Σ_t e(r_t) γ_tᵀ, Σ_s δ_s h_sᵀ⟩."""
    return jnp.sum(deltas[:, rows] * (others @ gammas.T))


def bytes_of_norm(shared: Shared) -> int:
    """What the squared norm holds for an example: products of pairs, or dW."""
    positions = {True: 0, False: 0}
    elements, itemsize = 0, 4
    for use in shared.uses:
        result = _layers.aval_of(use.equation.outvars[0])
        positions[use.is_lookup] += result.size // shared.shape[1 - use.axis]
        elements += 2 * result.size if use.is_lookup else 0
        itemsize = max(itemsize, result.dtype.itemsize)
    elements += min(math.prod(shared.shape), 2 * positions[False] ** 2)
    elements += 2 * positions[False] * positions[True]
    return elements * itemsize
