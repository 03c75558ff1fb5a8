"""Where a network multiplies by a parameter or looks it up, and the norm there.

A parameter that enters a network once, as an operand of a convolution or of a matrix
product, has the gradient dW = Σ_t a_t δ_tᵀ, with a_t the other operand at position t
and δ_t the output's cotangent there. Its squared norm needs dW for one example at a
time at most, and often not even that:

    ‖dW‖² = Σ_{t,s} (a_t · a_s) (δ_t · δ_s),

for one position just ‖a‖² ‖δ‖² (Goodfellow 2015, arXiv:1510.01799; for convolutions
Rochette et al. 2019, arXiv:1912.06015). Which of the two takes fewer operations is
known from the shapes. Where rows of a table are looked up (embeddings), the gradient is
zero but in those rows; rows that are looked up more than once have the sum of their
cotangents.

The kernel gradient of a convolution is taken as matrix products, on CPU over all
patches of one example at a time, elsewhere per element of the window for the whole
batch. JAX's own rule makes of it, for every example by itself, one convolution with as
many groups as examples, which is slower on CPU and wrong in XLA's partitioner when the
examples of a jitted program are sharded over devices (seen with jaxlib 0.10.2 and
0.12.0; the values of whole devices come out as zero).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import (
    conv_general_dilated_p,
    dot_general_p,
    gather_p,
    jit_p,
    remat_p,
    scan_p,
)
from jaxtyping import Array, Float, Int

from fisher_jax import axes, loops, programs, trees

# Operations that only rearrange or cast, so that the norm is the same on both sides.
_REARRANGING = frozenset(
    {
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "expand_dims",
        "pvary",
        "reshape",
        "rev",
        "slice",
        "squeeze",
        "transpose",
    }
)


class Site(NamedTuple):
    """Where a leaf of the parameters is an operand.

    Attributes:
        path: which equation, after those that it is nested in, by identity: JAX may
            share a nested program between two equations.
        equation: the product or lookup.
        operand: the leaf's position in it.
        leaf: number of the leaf.
    """

    path: tuple[int, ...]
    equation: JaxprEqn
    operand: int
    leaf: int


def find_sites(program: ClosedJaxpr, leaves: int) -> list[Site]:
    """The parameters that enter a flat program once, at a product or a lookup.

    A product inside a rematerialised block or a scan counts: a parameter that is
    stacked over the steps of a scan has a gradient whose parts lie apart, and so a
    squared norm that is the sum of theirs. One that all steps share does not.

    Args:
        program: without nested calls, see ``programs.flatten``; its first arguments are
            the leaves of the parameters.
        leaves: how many they are.
    """
    uses = uses_in(program.jaxpr)
    sites = []
    for leaf, variable in enumerate(program.jaxpr.invars[:leaves]):
        place = _follow(uses, variable)
        if place is not None:
            sites.append(Site(*place, leaf))
    return sites


Uses = dict[Any, list[tuple[JaxprEqn | None, int]]]


def uses_in(jaxpr: Jaxpr) -> Uses:
    """Equations and positions at which each variable is used; None for a result."""
    uses: Uses = {}
    for equation in jaxpr.eqns:
        for position, variable in enumerate(equation.invars):
            if not isinstance(variable, Literal):
                uses.setdefault(variable, []).append((equation, position))
    for variable in jaxpr.outvars:
        if not isinstance(variable, Literal):
            uses.setdefault(variable, []).append((None, -1))
    return uses


def _follow(uses: Uses, variable: Any) -> tuple[tuple[int, ...], JaxprEqn, int] | None:
    """The one product or lookup that a variable enters, or None."""
    while len(uses.get(variable, ())) == 1:
        ((equation, position),) = uses[variable]
        if equation is None:
            return None
        if _is_product(equation, position) or is_lookup(equation, position):
            return (id(equation),), equation, position
        inner = _nested(equation)
        if inner is not None:
            if position < inner.shared:
                return None
            place = _follow(uses_in(inner.jaxpr), inner.jaxpr.invars[position])
            return place and ((id(equation), *place[0]), *place[1:])
        if not only_rearranges(equation):
            return None
        (variable,) = equation.outvars
    return None


class _Nested(NamedTuple):
    """A program within an equation.

    Attributes:
        jaxpr: its arguments are the equation's, or slices of them.
        shared: how many of the first ones all of its calls get.
    """

    jaxpr: Jaxpr
    shared: int


def _nested(equation: JaxprEqn) -> _Nested | None:
    """The program of a jitted or rematerialised block, or of a scan."""
    params = equation.params
    if equation.primitive is remat_p:
        return _Nested(params["jaxpr"], 0)
    if equation.primitive not in (jit_p, scan_p) or params["jaxpr"].consts:
        return None
    inner = params["jaxpr"].jaxpr
    is_scan = equation.primitive is scan_p
    return _Nested(inner, _unsliced(equation.invars, inner.invars) if is_scan else 0)


def _unsliced(of_scan: Sequence[Any], of_step: Sequence[Any]) -> int:
    """How many operands or results of a scan are its steps' own: they come first.

    Told by their shapes, as the names of a scan's parameters differ between versions
    of JAX: what is sliced or stacked has one axis more than in a step.
    """
    pairs = zip(of_scan, of_step, strict=True)
    return sum(aval_of(whole).ndim == aval_of(own).ndim for whole, own in pairs)


def _convolutions(
    jaxpr: Jaxpr, path: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """The paths of a program's convolutions."""
    for equation in jaxpr.eqns:
        here = (*path, id(equation))
        if _is_convolution(equation) and _is_product(equation, 1):
            yield here
        inner = _nested(equation)
        if inner is not None:
            yield from _convolutions(inner.jaxpr, here)


def _is_product(equation: JaxprEqn, position: int) -> bool:
    if _is_convolution(equation):
        return position == 1 and equation.params["batch_group_count"] == 1
    return equation.primitive is dot_general_p


def is_lookup(equation: JaxprEqn, position: int) -> bool:
    """Whether whole rows are gathered, any two of which are the same or disjoint."""
    if equation.primitive is not gather_p or position != 0:
        return False
    numbers, sizes = (equation.params[k] for k in ("dimension_numbers", "slice_sizes"))
    table = aval_of(equation.invars[0])
    is_row = all(s in (1, n) for s, n in zip(sizes, table.shape, strict=True))
    return is_row and not numbers.operand_batching_dims


def _is_convolution(equation: JaxprEqn) -> bool:
    return equation.primitive is conv_general_dilated_p


def only_rearranges(equation: JaxprEqn) -> bool:
    """Whether the norm of a cotangent is the same on both sides."""
    name = equation.primitive.name
    if name not in _REARRANGING or len(equation.invars) != 1:
        return False
    before, after = aval_of(equation.invars[0]), aval_of(equation.outvars[0])
    # What a slice leaves out has no gradient; a broadcast would repeat.
    is_same_size = before.size == after.size or name == "slice"
    return is_same_size and jnp.issubdtype(after.dtype, jnp.floating)


def aval_of(variable: Any) -> Any:
    """Shape and dtype of a variable; JAX types them as an abstract base."""
    return variable.aval


def with_taps(
    program: ClosedJaxpr, sites: Sequence[Site]
) -> Callable[..., list[Array]]:
    """The program with a tap at each site, whose cotangent is ‖dW‖².

    Returns:
        A function of scalar taps, one per site, the program's arguments and, if need
        be, what makes of the rule of the sites one for the whole program, to the
        program's results. Its derivative in the parameters at the sites is left out
        (zero); the "derivative" in a tap is the squared norm of that parameter's
        gradient, and so not linear in the results' cotangent.
    """
    places: dict[tuple[int, ...], list[int]] = {
        path: [] for path in _convolutions(program.jaxpr)
    }
    for number, site in enumerate(sites):
        places.setdefault(site.path, []).append(number)
    entered = {path[:n] for path in places for n in range(1, len(path))}

    def rule_of(path: tuple[int, ...], taps: Sequence[Array]) -> programs.Rule:
        def rule(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any] | None:
            here = (*path, id(equation))
            if here in entered:
                return _enter(equation, taps, operands, lambda t: rule_of(here, t))
            if here not in places:
                return None
            numbers = places[here]
            if equation.primitive is gather_p:
                lookup = _tapped_lookup(equation)
                return [lookup(taps[numbers[0]], *operands)]
            positions = [sites[number].operand for number in numbers]
            product = _tapped_product(equation, positions)
            return [product([taps[number] for number in numbers], *operands)]

        return rule

    def tapped(
        taps: Sequence[Array],
        arguments: Sequence[Any],
        around: Callable[[programs.Rule], programs.Rule] = lambda rule: rule,
    ) -> list[Array]:
        rule = around(rule_of((), taps))
        return programs.evaluate(program, arguments, rule, is_merged=False)

    return tapped


def _enter(
    equation: JaxprEqn,
    taps: Sequence[Array],
    operands: Sequence[Any],
    rule_with: Callable[[Sequence[Array]], programs.Rule],
) -> list[Any]:
    """A nested program, evaluated under the rule that its taps make."""
    inner, params = _nested(equation), equation.params
    assert inner is not None
    closed = ClosedJaxpr(inner.jaxpr, ())

    def block(taps: Sequence[Array], *operands: Any) -> list[Any]:
        rule = rule_with(taps)
        return programs.evaluate(closed, operands, rule, is_merged=False)

    if equation.primitive is jit_p:
        return block(taps, *operands)
    if equation.primitive is remat_p:
        again = jax.checkpoint(
            block, prevent_cse=params["prevent_cse"], policy=params["policy"]
        )
        results: list[Any] = again(taps, *operands)
        return results
    carries = _unsliced(equation.outvars, inner.jaxpr.outvars)
    consts = inner.shared - carries
    fixed, start = operands[:consts], operands[consts : inner.shared]
    # Every step has the tap, whose cotangent sums over them.
    each = [jnp.broadcast_to(tap, (params["length"],)) for tap in taps]

    def step(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
        taps, own = slices
        results = block(taps, *fixed, *carry, *own)
        return results[:carries], results[carries:]

    last, stacked = jax.lax.scan(
        step,
        axes.vary_like(list(start), taps),
        (each, list(operands[inner.shared :])),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*last, *stacked]


def _tapped_product(
    equation: JaxprEqn, positions: Sequence[int]
) -> Callable[..., Array]:
    """A product whose taps receive the squared norms of some operands' gradients."""

    def plain_product(taps: list[Array], lhs: Array, rhs: Array) -> Array:
        result: Array = equation.primitive.bind(lhs, rhs, **equation.params)
        return result

    product = jax.custom_vjp(plain_product)

    def forward(taps: list[Array], lhs: Array, rhs: Array) -> Any:
        # Plain, so that the derivative of the norms themselves is whole.
        return plain_product(taps, lhs, rhs), (taps, lhs, rhs)

    def backward(saved: Any, cotangent: Array) -> tuple[Any, ...]:
        taps, *operands = saved
        norms = [
            _squared_gradient_norm(equation, p, operands, cotangent).astype(tap.dtype)
            for tap, p in zip(taps, positions, strict=True)
        ]
        rest = [
            None if p in positions else _gradient(equation, p, operands, cotangent)
            for p in (0, 1)
        ]
        return (norms, *rest)

    product.defvjp(forward, backward)
    return product


def _tapped_lookup(equation: JaxprEqn) -> Callable[..., Array]:
    """A lookup whose tap receives the squared norm of the table's gradient."""

    def plain_lookup(tap: Array, table: Array, indices: Array) -> Array:
        result: Array = equation.primitive.bind(table, indices, **equation.params)
        return result

    lookup = jax.custom_vjp(plain_lookup)

    def forward(tap: Array, table: Array, indices: Array) -> Any:
        return plain_lookup(tap, table, indices), (tap, indices)

    def backward(saved: Any, cotangent: Array) -> tuple[Any, ...]:
        tap, indices = saved
        norm = squared_norm_of_rows(*rows_and_cotangents(equation, indices, cotangent))
        return norm.astype(tap.dtype), None, None

    lookup.defvjp(forward, backward)
    return lookup


def rows_and_cotangents(
    equation: JaxprEqn, indices: Int[Array, "*T n"], cotangent: Array
) -> tuple[Int[Array, " T"], Float[Array, "T D"]]:
    """The number of each row that is looked up, and the cotangent there."""
    numbers, mode = (equation.params[k] for k in ("dimension_numbers", "mode"))
    offset = numbers.offset_dims
    places = [d for d in range(cotangent.ndim) if d not in offset]
    indices = indices.reshape(-1, indices.shape[-1])
    count = indices.shape[0]
    delta = cotangent.transpose(*places, *offset).reshape(count, -1)
    delta = delta.astype(trees.accumulation_dtype(delta))
    shape = np.array(aval_of(equation.invars[0]).shape)
    last = (shape - np.array(equation.params["slice_sizes"]))[
        list(numbers.start_index_map)
    ]
    # Out of bounds a lookup by brackets is of the last row, and its gradient nothing.
    if mode != jax.lax.GatherScatterMode.CLIP:
        is_inside = jnp.all((indices >= 0) & (indices <= last), axis=-1)
        delta = jnp.where(is_inside[:, None], delta, 0)
    indices = jnp.clip(indices, 0, last)
    row = jnp.zeros(count, jnp.int32)
    for column, greatest in enumerate(last):
        row = row * (int(greatest) + 1) + indices[:, column].astype(jnp.int32)
    return row, delta


def squared_norm_of_rows(
    row: Int[Array, " T"], delta: Float[Array, "T D"]
) -> Float[Array, ""]:
    """Σ over rows ‖Σ over their lookups of the cotangent‖²."""
    # Rows of the same number are brought together.
    order = jnp.argsort(row)
    row = row[order]
    is_first = jnp.concatenate([jnp.ones(1, bool), row[1:] != row[:-1]])
    sums = jax.ops.segment_sum(
        delta[order],
        jnp.cumsum(is_first) - 1,
        num_segments=row.shape[0],
        indices_are_sorted=True,
    )
    return trees.squared_norm(sums)


def _gradient(
    equation: JaxprEqn, position: int, operands: Sequence[Array], cotangent: Array
) -> Array:
    """The gradient of one operand of a product."""
    if position == 1 and _is_convolution(equation):
        return _kernel_gradient(equation, operands[0], cotangent)

    def product(operand: Array) -> Array:
        both = [operand, operands[1]] if position == 0 else [operands[0], operand]
        result: Array = equation.primitive.bind(*both, **equation.params)
        return result

    gradient: Array = jax.vjp(product, operands[position])[1](cotangent)[0]
    return gradient


def _squared_gradient_norm(
    equation: JaxprEqn, position: int, operands: Sequence[Array], cotangent: Array
) -> Float[Array, ""]:
    """‖dW‖² of one operand, summed in at least float32."""
    dtype = trees.accumulation_dtype((*operands, cotangent))
    other = operands[1 - position].astype(dtype)
    cotangent = cotangent.astype(dtype)
    if not _is_convolution(equation):
        return squared_product_norm(*dot_factors(equation, position, other, cotangent))
    shape = aval_of(equation.invars[1]).shape
    rhs_spec, out_spec = equation.params["dimension_numbers"][1:]
    positions = math.prod(cotangent.shape[d] for d in (out_spec[0], *out_spec[2:]))
    columns = shape[rhs_spec[0]] // equation.params["feature_group_count"]
    if _gram_is_cheaper(positions, math.prod(shape) // shape[rhs_spec[0]], columns):
        views, delta = _convolution_factors(equation, other, cotangent)
        patches = _patches(views)
        return _squared_gram_norm(patches.swapaxes(0, 1), delta.swapaxes(0, 1))

    def norm(image: Array, cotangent: Array) -> Float[Array, ""]:
        return trees.squared_norm(_window_gradient(equation, image, cotangent))

    return loops.example_by_example(norm)(other, cotangent)


def bytes_of_norm(site: Site) -> int:
    """What a site's squared norm holds for an example: products of pairs, or dW."""
    equation, position = site.equation, site.operand
    (result,) = (aval_of(v) for v in equation.outvars)
    if not _is_product(equation, position):
        elements = 2 * result.size  # cotangents in the order of rows, and their sums
    elif _is_convolution(equation):
        kernel = aval_of(equation.invars[1])
        columns = kernel.shape[equation.params["dimension_numbers"][1][0]]
        positions, window = result.size // columns, kernel.size // columns
        elements = min(kernel.size, 2 * positions**2 + positions * window)
    else:
        own, other = (aval_of(equation.invars[p]) for p in (position, 1 - position))
        contracted = equation.params["dimension_numbers"][0][1 - position]
        positions = other.size // math.prod(other.shape[d] for d in contracted)
        elements = min(own.size, 2 * positions**2)
    held: int = elements * max(result.dtype.itemsize, 4)
    return held


def _kernel_gradient(equation: JaxprEqn, lhs: Array, cotangent: Array) -> Array:
    """The gradient of a convolution's kernel."""
    kernel = aval_of(equation.invars[1])
    rhs_spec = equation.params["dimension_numbers"][1]
    order = (*rhs_spec[2:], rhs_spec[1], rhs_spec[0])

    def gradient(image: Array, cotangent: Array) -> Array:
        # [groups, window · in, out] to [*window, in, groups · out].
        window = _window_gradient(equation, image, cotangent)
        return jnp.moveaxis(window, 0, 1).reshape([kernel.shape[d] for d in order])

    stacked = loops.example_by_example(gradient)(lhs, cotangent.astype(lhs.dtype))
    inverse = tuple(int(i) for i in np.argsort(order))
    return stacked.transpose(inverse).astype(kernel.dtype)


def _window_gradient(
    equation: JaxprEqn, image: Array, cotangent: Array
) -> Float[Array, "G W*K N"]:
    """Σ_t patch_t δ_tᵀ, the gradient of a kernel as matrices, one per group."""
    views, delta = _convolution_factors(equation, image, cotangent)
    return loops.on_one_cpu(_product_by_view, views, delta, cpu=_product_of_patches)


def _product_of_patches(
    views: list[Float[Array, "T G K"]], delta: Float[Array, "T G N"]
) -> Float[Array, "G W*K N"]:
    """One product: the patches of one example fit in a CPU's caches."""
    return jnp.einsum("tgk,tgn->gkn", _patches(views), delta)


def _product_by_view(
    views: list[Float[Array, "T G K"]], delta: Float[Array, "T G N"]
) -> Float[Array, "G W*K N"]:
    """Patches of the whole batch would be as many times its size as the window."""
    products = [jnp.einsum("tgk,tgn->gkn", view, delta) for view in views]
    return jnp.concatenate(products, axis=1)


def _patches(views: list[Float[Array, "T G K"]]) -> Float[Array, "T G W*K"]:
    return jnp.concatenate(views, axis=-1)


def _gram_is_cheaper(positions: int, rows: int, columns: int) -> bool:
    """Whether Σ (a_t·a_s)(δ_t·δ_s) takes fewer operations than Σ_t a_t δ_tᵀ."""
    return positions * (rows + columns) < rows * columns


def squared_product_norm(
    other: Float[Array, "G T K"], delta: Float[Array, "G T N"]
) -> Float[Array, ""]:
    """Σ_g ‖Σ_t a_gt δ_gtᵀ‖²."""
    (_, positions, rows), columns = other.shape, delta.shape[-1]
    if positions == 1 or _gram_is_cheaper(positions, rows, columns):
        return _squared_gram_norm(other, delta)
    return trees.squared_norm(jnp.einsum("gtk,gtn->gkn", other, delta))


def _squared_gram_norm(
    other: Float[Array, "G T K"], delta: Float[Array, "G T N"]
) -> Float[Array, ""]:
    if other.shape[1] == 1:
        squares = [jnp.sum(factor**2, axis=(1, 2)) for factor in (other, delta)]
        return jnp.sum(squares[0] * squares[1])
    grams = [jnp.einsum("gtk,gsk->gts", factor, factor) for factor in (other, delta)]
    return jnp.sum(grams[0] * grams[1])


def dot_factors(
    equation: JaxprEqn, position: int, other: Array, cotangent: Array
) -> tuple[Float[Array, "G T K"], Float[Array, "G T N"]]:
    """The other operand and the cotangent of a matrix product, by position."""
    contracted, batched = equation.params["dimension_numbers"]
    batch = batched[1 - position]
    rows = contracted[1 - position]
    free = [d for d in range(other.ndim) if d not in (*batch, *rows)]
    other_free = math.prod(other.shape[d] for d in free)
    groups = math.prod(other.shape[d] for d in batch)
    other = other.transpose(*batch, *free, *rows).reshape(groups, other_free, -1)
    # Results are ordered as batch, free of lhs, free of rhs.
    delta = cotangent.reshape(
        groups, *_free_sizes(position, other_free, cotangent, groups)
    )
    return other, delta if position == 1 else delta.swapaxes(1, 2)


def _free_sizes(
    position: int, other_free: int, cotangent: Array, groups: int
) -> tuple[int, int]:
    own_free = cotangent.size // (groups * other_free)
    return (other_free, own_free) if position == 1 else (own_free, other_free)


def _convolution_factors(
    equation: JaxprEqn, lhs: Array, cotangent: Array
) -> tuple[list[Float[Array, "T G K"]], Float[Array, "T G N"]]:
    """What each element of the window sees, and the cotangent, by output position."""
    lhs_spec, rhs_spec, out_spec = equation.params["dimension_numbers"]
    groups = equation.params["feature_group_count"]
    delta = cotangent.transpose(out_spec[0], *out_spec[2:], out_spec[1])
    image = lhs.transpose(lhs_spec[0], *lhs_spec[2:], lhs_spec[1])
    window = [aval_of(equation.invars[1]).shape[d] for d in rhs_spec[2:]]
    views = _views(image, window, delta.shape[1:-1], equation.params)
    positions = delta.size // delta.shape[-1]
    return (
        [view.reshape(positions, groups, -1) for view in views],
        delta.reshape(positions, groups, -1),
    )


def _views(
    image: Float[Array, "N *space C"],
    window: Sequence[int],
    out_space: Sequence[int],
    params: dict[str, Any],
) -> list[Float[Array, "N *out_space C"]]:
    """What each element of the window sees at each output position."""
    edges = zip(params["padding"], params["lhs_dilation"], strict=True)
    padding = [(low, high, dilation - 1) for (low, high), dilation in edges]
    padded = jax.lax.pad(
        image, jnp.zeros((), image.dtype), [(0, 0, 0), *padding, (0, 0, 0)]
    )
    strides = params["window_strides"]
    views = []
    for offset in np.ndindex(*window):
        first = [o * d for o, d in zip(offset, params["rhs_dilation"], strict=True)]
        last = [
            f + (size - 1) * stride + 1
            for f, size, stride in zip(first, out_space, strides, strict=True)
        ]
        views.append(
            jax.lax.slice(
                padded,
                (0, *first, 0),
                (padded.shape[0], *last, padded.shape[-1]),
                (1, *strides, 1),
            )
        )
    return views
