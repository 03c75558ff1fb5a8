"""The derivative of a squared gradient norm, forward over reverse, as one rule.

The formula stands in ``scalars``. Values are computed in chunks of the batch and summed
over devices; the derivative is taken without differentiating that.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PyTree

from fisher_jax import axes, loops, programs, trees
from fisher_jax.curvature.likelihoods import OutputsFn, at_least_float32

Method = Literal["exact", "finite_difference"]

# From outputs [B, ...] and constants to a cotangent [B, ...].
Cotangent = Callable[[Array, Any], Array]

# ‖step‖ / ‖params‖ of the finite difference; see fisher_penalty.
RELATIVE_STEP = {"float32": 1e-3, "float64": 1e-6}


class Rule(NamedTuple):
    """A scalar of params and its gradient; a network, params and examples come to both.

    Attributes:
        value: maps them to the scalar.
        value_and_gradient: maps them to the scalar and to this device's share of the
            gradient: the sum over devices is the gradient.
        axis_name: mesh axes along which the batch is split.
    """

    value: Callable[[OutputsFn, PyTree, PyTree], Float[Array, ""]]
    value_and_gradient: Callable[
        [OutputsFn, PyTree, PyTree], tuple[Float[Array, ""], PyTree]
    ]
    axis_name: axes.AxisName


class SquaredNorm(NamedTuple):
    """Σ over groups of ‖(1/B) J(θ)ᵀ v(θ)‖²; all of it is static.

    Attributes:
        cotangent: v, of outputs and constants, differentiable in outputs.
        method: of differentiation.
        batch: B, of all devices.
        groups_here: how many groups this device has, whole or its share of each.
        chunk_size: examples in memory at a time.
        axis_name: mesh axes along which the batch is split.
        is_one_group: whether it is a single group, of which each device has a share;
            otherwise each group lies on one device.
    """

    cotangent: Cotangent
    method: Method
    batch: int
    groups_here: int
    chunk_size: int | None
    axis_name: axes.AxisName
    is_one_group: bool

    def total_of_group(self, own: PyTree) -> PyTree:
        """The sum over the devices that share a group."""
        return axes.total(own, self.axis_name) if self.is_one_group else own

    def total_of_groups(self, own: Float[Array, ""]) -> Float[Array, ""]:
        """The sum over the devices' groups."""
        return own if self.is_one_group else axes.total(own, self.axis_name)

    def calls_with(self, inputs: PyTree) -> int:
        """With how many examples at a time the network is called, at most."""
        group = trees.batch_size(inputs) // self.groups_here
        return min(group, self.chunk_size or group)

    def rule(self) -> Rule:
        """The scalar and its gradient."""
        return Rule(
            functools.partial(_value, self),
            functools.partial(_value_and_gradient, self),
            self.axis_name,
        )


def _value(
    terms: SquaredNorm, network: OutputsFn, params: PyTree, examples: PyTree
) -> Float[Array, ""]:
    def one_group(group: PyTree) -> Float[Array, ""]:
        own = _mean_gradient(terms, network, params, group)
        return trees.squared_norm(terms.total_of_group(own))

    own = loops.sum_slices(one_group, _groups(terms, examples))
    return terms.total_of_groups(own)


def _value_and_gradient(
    terms: SquaredNorm, network: OutputsFn, params: PyTree, examples: PyTree
) -> tuple[Float[Array, ""], PyTree]:
    change = _exact_change if terms.method == "exact" else _difference

    def one_group(group: PyTree) -> tuple[Float[Array, ""], PyTree]:
        own = _mean_gradient(terms, network, params, group)
        g = terms.total_of_group(own)

        def one_chunk(chunk: PyTree, weights: Array | None) -> PyTree:
            g_of_chunk = own if weights is None else None
            return change(terms, network, params, chunk, weights, g, g_of_chunk)

        slope = sum_chunks(one_chunk, group, terms.chunk_size)
        return trees.squared_norm(g), jax.tree.map(lambda s: 2 * s, slope)

    own, slope = loops.sum_slices(one_group, _groups(terms, examples))
    return terms.total_of_groups(own), slope


def _groups(terms: SquaredNorm, examples: PyTree) -> PyTree:
    """Examples [B, ...] as [groups, B/groups, ...]."""
    return jax.tree.map(
        lambda a: a.reshape(terms.groups_here, -1, *a.shape[1:]), examples
    )


def _mean_gradient(
    terms: SquaredNorm, network: OutputsFn, params: PyTree, examples: PyTree
) -> PyTree:
    """This device's share of (1/B) Jᵀ v over a group."""

    def one_chunk(chunk: PyTree, weights: Array | None) -> PyTree:
        inputs, constants = chunk
        v = _cotangent(terms, constants, weights)(network(params, inputs))
        return _pullback(terms, network, inputs, params, v)

    return sum_chunks(one_chunk, examples, terms.chunk_size)


def _pullback(
    terms: SquaredNorm, network: OutputsFn, inputs: PyTree, params: PyTree, v: Array
) -> PyTree:
    """(1/B) Jᵀ v of some examples."""
    # The sum over devices is ours to take, see axes.vary.
    params = axes.vary(params, axes.names(terms.axis_name))
    outputs, transpose = jax.vjp(lambda p: network(p, inputs), params)
    return transpose((v / terms.batch).astype(outputs.dtype))[0]


def _cotangent(
    terms: SquaredNorm, constants: PyTree, weights: Array | None
) -> Callable[[Array], Array]:
    """outputs -> v, without the examples that another chunk counts."""
    if weights is None:
        return lambda outputs: terms.cotangent(outputs, constants)
    return lambda outputs: (
        weights.reshape(-1, *(1,) * (outputs.ndim - 1))
        * terms.cotangent(outputs, constants)
    )


def sum_chunks(
    function: Callable[[Any, Array | None], PyTree],
    examples: PyTree,
    chunk_size: int | None,
) -> PyTree:
    """``loops.sum_chunks``, without weights where there is one chunk."""
    if chunk_size is None or chunk_size >= jax.tree.leaves(examples)[0].shape[0]:
        return function(examples, None)
    return loops.sum_chunks(function, examples, chunk_size)


def _exact_change(
    terms: SquaredNorm,
    network: OutputsFn,
    params: PyTree,
    chunk: PyTree,
    weights: Array | None,
    g: PyTree,
    g_of_chunk: PyTree | None,
) -> PyTree:
    """(∂g/∂θ)ᵀ g: the change of the pullback along g and the transposed tangent.

    ``g`` is that of the whole group, ``g_of_chunk`` these examples' share of it, if it
    is known; the pullback and with it the result are their share.
    """
    inputs, constants = chunk
    # A group that lies on one device has a gradient of that device's own.
    params = axes.vary_like(params, g)
    g = axes.vary_like(g, params)
    outputs, change = jax.jvp(lambda p: network(p, inputs), (params,), (g,))
    v, transpose = jax.vjp(
        _cotangent(terms, constants, weights), at_least_float32(outputs)
    )
    (v_change,) = transpose(change.astype(v.dtype))
    pullback = functools.partial(_pullback, terms, network, inputs)
    return jax.jvp(pullback, (params, v), (g, v_change))[1]


def _difference(
    terms: SquaredNorm,
    network: OutputsFn,
    params: PyTree,
    chunk: PyTree,
    weights: Array | None,
    g: PyTree,
    g_of_chunk: PyTree | None,
) -> PyTree:
    """``_exact_change`` by a forward difference along g."""
    inputs, constants = chunk
    g = axes.vary_like(g, params)
    dtype = trees.accumulation_dtype(params)
    squares = trees.squared_norm(params), trees.squared_norm(g)
    length, speed = (jnp.sqrt(jnp.where(n > 0, n, 1)) for n in squares)
    scale = RELATIVE_STEP[dtype.name] * length / speed
    moved = trees.step(params, scale, g)
    outputs = at_least_float32(network(params, inputs))
    change = at_least_float32(network(moved, inputs)) - outputs
    v, transpose = jax.vjp(_cotangent(terms, constants, weights), outputs)
    (v_change,) = transpose(change)
    ahead = _pullback(terms, network, inputs, moved, v + v_change)
    here = g_of_chunk
    if here is None:
        here = _pullback(terms, network, inputs, params, v)
    return jax.tree.map(
        lambda a, b: ((a.astype(dtype) - b.astype(dtype)) / scale).astype(b.dtype),
        ahead,
        here,
    )


def check_method(
    method: Method, outputs_fn: OutputsFn, params: PyTree, inputs: PyTree
) -> None:
    """Refuses an unknown method, and a difference that rounding would drown.

    Raises:
        ValueError: naming the methods, or that params or network are below float32,
            where the step is no longer than its rounding.
    """
    trees.check_choice("method", method, get_args(Method))
    if method == "exact":
        return
    program = jax.make_jaxpr(outputs_fn)(params, inputs)
    if programs.computes_below_float32(program):
        raise ValueError(
            "method: expected 'exact' where parameters or network are below float32, "
            "as rounding would swallow the step of a finite difference"
        )


def with_gradient(
    outputs_fn: OutputsFn,
    rule: Rule,
    params: PyTree,
    examples: PyTree,
    chunk_size: int | None,
) -> Float[Array, ""]:
    """A scalar of params with the derivative that ``rule`` says.

    Args:
        outputs_fn: the network; arrays that it closes over become arguments.
        rule: the scalar and its gradient.
        params: where.
        examples: inputs of the network and constants of the scalar, [B, ...].
        chunk_size: with how many examples at a time the network is called.
    """
    names = axes.names(rule.axis_name)
    inputs, constants = examples
    inputs = axes.vary(inputs, names)
    # The rule is applied under whatever transformations are at work then; an array of
    # another transformation must come to it as an argument and not by closure.
    _, size = loops.levelled(trees.batch_size(inputs), chunk_size)
    chunk = jax.tree.map(lambda a: a[:size], inputs)
    network, captured = jax.closure_convert(outputs_fn, axes.vary(params, names), chunk)
    return _scalar(rule, network, params, (inputs, constants), captured)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scalar(
    rule: Rule,
    network: Callable[..., Array],
    params: PyTree,
    examples: PyTree,
    captured: list[Array],
) -> Float[Array, ""]:
    return rule.value(_bound(rule, network, captured), params, examples)


@functools.partial(_scalar.defjvp, symbolic_zeros=True)
def _scalar_jvp(
    rule: Rule, network: Callable[..., Array], primals: Any, tangents: Any
) -> tuple[Array, Array]:
    params, examples, captured = primals
    change, *others = tangents
    if not all(isinstance(t, SymbolicZero) for t in jax.tree.leaves(others)):
        raise NotImplementedError(
            "penalty: differentiated in inputs or in an array that outputs_fn closes "
            "over; only derivatives in params are supported, so stop the gradient of "
            "the rest with jax.lax.stop_gradient"
        )
    with programs.forward_derivative(
        ', or pass method="finite_difference" to a penalty that has it'
    ):
        result, slope = rule.value_and_gradient(
            _bound(rule, network, captured), params, examples
        )
    change = jax.tree.map(_instantiate, change, params)
    # Params that are each device's own have a gradient that is too: its share of the
    # sum. Of replicated ones the gradient is the sum.
    if set(axes.names(rule.axis_name)) <= axes.varying(params):
        total = axes.total(trees.inner(slope, change), rule.axis_name)
    else:
        total = trees.inner(axes.total(slope, rule.axis_name), change)
    return result, total.astype(result.dtype)


def _bound(
    rule: Rule, network: Callable[..., Array], captured: list[Array]
) -> OutputsFn:
    """The network with what it closes over.

    Params that stay replicated outside are marked as each device's own: the rule's
    gradient is that of the whole batch, and would else be summed once more.
    """
    names = axes.names(rule.axis_name)
    return lambda p, x: network(axes.vary(p, names), x, *captured)


def _instantiate(tangent: Any, primal: Array) -> Array:
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent
