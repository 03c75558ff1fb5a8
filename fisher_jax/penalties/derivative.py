"""The derivative of a squared gradient norm, forward over reverse, as one rule.

The formula stands in ``scalars``. Values are computed in chunks of the batch and summed
over devices; the derivative is taken without differentiating that.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PyTree

from fisher_jax import axes, loops, trees
from fisher_jax.curvature import class_space
from fisher_jax.curvature.class_space import LogitsFn

Method = Literal["exact", "finite_difference"]
METHODS = ("exact", "finite_difference")

# From logits [B, C] and constants to a cotangent [B, C].
Cotangent = Callable[[Array, Any], Float[Array, "B C"]]

# ‖step‖ / ‖params‖ of the finite difference; see fisher_penalty.
RELATIVE_STEP = {"float32": 1e-3, "float64": 1e-6}


def squared_norm(
    logits_fn: LogitsFn,
    cotangent: Cotangent,
    params: PyTree,
    inputs: PyTree,
    constants: Array,
    method: Method,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Float[Array, ""]:
    """‖(1/B) J(θ)ᵀ v(θ)‖² with its derivative rule; see the module's docstring."""
    trees.check_choice("method", method, METHODS)
    batch = class_space.batch_size(inputs) * axes.size(axis_name)
    derivative = _exact_change if method == "exact" else _difference

    def pullback(function: LogitsFn, p: PyTree, x: PyTree, v: Array) -> PyTree:
        # The sum over devices is ours to take, see axes.vary.
        p = axes.vary(p, axes.names(axis_name))
        logits, transpose = jax.vjp(lambda q: function(q, x), p)
        return transpose((v / batch).astype(logits.dtype))[0]

    def chunk_cotangent(constants: Array, weights: Array | None) -> Any:
        if weights is None:
            return lambda logits: cotangent(logits, constants)
        return lambda logits: weights[:, None] * cotangent(logits, constants)

    def value(function: LogitsFn, p: PyTree, x: PyTree, constants: Array) -> Any:
        def one_chunk(chunk: Any, weights: Array | None) -> PyTree:
            x, constants = chunk
            v = chunk_cotangent(constants, weights)(function(p, x))
            return pullback(function, p, x, v)

        own = sum_chunks(one_chunk, (x, constants), chunk_size)
        g = axes.total(own, axis_name)
        return trees.squared_norm(g), (g, own)

    def gradient(
        function: LogitsFn, p: PyTree, x: PyTree, constants: Array, partial: Any
    ) -> PyTree:
        g, own = partial
        g = axes.vary_like(g, p)

        def one_chunk(chunk: Any, weights: Array | None) -> PyTree:
            x, constants = chunk
            return derivative(
                lambda q: function(q, x),
                lambda q, v: pullback(function, q, x, v),
                chunk_cotangent(constants, weights),
                p,
                g,
                own if weights is None else None,
            )

        change = sum_chunks(one_chunk, (x, constants), chunk_size)
        return jax.tree.map(lambda c: 2 * c, change)

    return with_gradient(
        logits_fn, value, gradient, params, inputs, constants, chunk_size, axis_name
    )


def sum_chunks(
    function: Callable[[Any, Array | None], PyTree],
    examples: PyTree,
    chunk_size: int | None,
) -> PyTree:
    """``loops.sum_chunks``, without weights where there is one chunk."""
    if chunk_size is None or chunk_size >= class_space.batch_size(examples):
        return function(examples, None)
    return loops.sum_chunks(function, examples, chunk_size)


def _exact_change(
    logits_of: Callable[[PyTree], Array],
    pullback: Callable[[PyTree, Array], PyTree],
    cotangent_of: Callable[[Array], Array],
    params: PyTree,
    g: PyTree,
    own: PyTree | None,
) -> PyTree:
    """(∂g/∂θ)ᵀ g: the change of the pullback along g and the transposed tangent.

    ``g`` is that of the whole batch, ``own`` these examples' part of it, if it is
    known; the pullback and with it the result are their part.
    """
    logits, change = jax.jvp(logits_of, (params,), (g,))
    v, transpose = jax.vjp(cotangent_of, class_space.at_least_float32(logits))
    (v_change,) = transpose(change.astype(v.dtype))
    return jax.jvp(pullback, (params, v), (g, v_change))[1]


def _difference(
    logits_of: Callable[[PyTree], Array],
    pullback: Callable[[PyTree, Array], PyTree],
    cotangent_of: Callable[[Array], Array],
    params: PyTree,
    g: PyTree,
    own: PyTree | None,
) -> PyTree:
    """``_exact_change`` by a forward difference along g."""
    dtype = trees.accumulation_dtype(params)
    norms = trees.squared_norm(params), trees.squared_norm(g)
    length, speed = (jnp.sqrt(jnp.where(n > 0, n, 1)) for n in norms)
    scale = RELATIVE_STEP[dtype.name] * length / speed
    moved = trees.step(params, scale, g)
    logits = class_space.at_least_float32(logits_of(params))
    change = class_space.at_least_float32(logits_of(moved)) - logits
    v, transpose = jax.vjp(cotangent_of, logits)
    (v_change,) = transpose(change)
    ahead = pullback(moved, v + v_change)
    own = pullback(params, v) if own is None else own
    return jax.tree.map(
        lambda a, b: ((a.astype(dtype) - b.astype(dtype)) / scale).astype(b.dtype),
        ahead,
        own,
    )


def with_gradient(
    logits_fn: LogitsFn,
    value: Callable[..., tuple[Float[Array, ""], PyTree]],
    gradient: Callable[..., PyTree],
    params: PyTree,
    inputs: PyTree,
    constants: PyTree,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Float[Array, ""]:
    """A scalar of params whose derivative is ``gradient``.

    Args:
        logits_fn: the network; arrays that it closes over become arguments.
        value: maps a network, params, inputs and constants to the scalar and to what
            ``gradient`` can use of the computation.
        gradient: maps the same and that to the gradient in params, of this device's
            part of the batch: the sum over devices is the gradient.
        params: where.
        inputs: of the network.
        constants: of the scalar.
        chunk_size: with how many examples at a time the network is called.
        axis_name: mesh axes along which the batch is split.
    """
    devices_own = functools.partial(axes.vary, axis_names=axes.names(axis_name))
    # Params that are each device's own have a gradient that is too: its part of the
    # sum. Of replicated ones the gradient is the sum.
    are_own = set(axes.names(axis_name)) <= axes.varying(params)
    inputs = devices_own(inputs)
    # The rule is applied under whatever transformations are at work then; an array of
    # another transformation must come to it as an argument and not by closure.
    _, size = loops.levelled(class_space.batch_size(inputs), chunk_size)
    chunk = jax.tree.map(lambda a: a[:size], inputs)
    function, captured = jax.closure_convert(logits_fn, devices_own(params), chunk)

    def bind(captured: list[Array]) -> LogitsFn:
        # Of params that stay replicated outside: the rule's gradient is that of the
        # whole batch, and would else be summed over devices once more.
        return lambda p, x: function(devices_own(p), x, *captured)

    @jax.custom_jvp
    def scalar(p: PyTree, x: PyTree, c: PyTree, captured: list[Array]) -> Array:
        return value(bind(captured), p, x, c)[0]

    @trees.highest_precision
    def rule(primals: Any, tangents: Any) -> tuple[Array, Array]:
        p, x, c, captured = primals
        p_change, *others = tangents
        if not all(isinstance(t, SymbolicZero) for t in jax.tree.leaves(others)):
            raise NotImplementedError(
                "penalty: differentiated in inputs or in an array that logits_fn "
                "closes over; only derivatives in params are supported, so stop the "
                "gradient of the rest with jax.lax.stop_gradient"
            )

        result, partial = value(bind(captured), p, x, c)
        slope = gradient(bind(captured), p, x, c, partial)
        p_change = jax.tree.map(_instantiate, p_change, p)
        if are_own:
            change = axes.total(trees.inner(slope, p_change), axis_name)
        else:
            change = trees.inner(axes.total(slope, axis_name), p_change)
        return result, change.astype(result.dtype)

    scalar.defjvp(rule, symbolic_zeros=True)
    return scalar(params, inputs, constants, captured)


def _instantiate(tangent: Any, primal: Array) -> Array:
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent
