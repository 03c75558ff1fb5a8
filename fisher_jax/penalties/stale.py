"""A penalty whose gradient is renewed every f steps, for any optax optimizer.

Loss = cross-entropy + α · penalty (Jastrzebski et al. 2021, eq. 3). The gradient of the
penalty is computed every f = 10 steps and the latest one is added in the steps between.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fisher_jax import loops, trees

PenaltyFn = Callable[[Any], Float[Array, ""]]
_Step = TypeVar("_Step", int, Int[Array, ""])


class StalePenaltyState(NamedTuple):
    """What ``add_penalty`` keeps from step to step, a part of the optimizer's state.

    Attributes:
        step: how many steps were taken.
        penalty_value: the penalty at its latest update, without α; 0 before the first.
            B times a Fisher penalty's value is an unbiased estimate of Tr(F).
        penalty_gradient: its gradient there, a pytree like params; zeros before.
    """

    step: Int[Array, ""]
    penalty_value: Float[Array, ""]
    penalty_gradient: PyTree


def is_penalty_update(step: _Step, first_step: int, update_every: int) -> Any:
    """Whether ``step`` (from 0, a number or an array) renews the penalty's gradient.

    >>> print(*(step for step in range(9) if is_penalty_update(step, 2, 3)))
    2 5 8
    """
    return (step >= first_step) & ((step - first_step) % update_every == 0)


# As optax.Schedule, which is untyped: from the number of the step to a scalar.
Schedule = Callable[[Array], Float[Array, ""] | float]


def add_penalty(
    coefficient: Float[Array, ""] | float | Schedule,
    *,
    update_every: int = 10,
    first_step: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Adds α ∇penalty to the loss's gradient, ∇penalty renewed every f steps.

    Comes first in a chain. The penalty, a function of params, is passed to ``update``:

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> gradient, key = {"w": jnp.ones((1, 2))}, jax.random.key(0)
    >>> optimizer = optax.chain(add_penalty(0.1), optax.sgd(0.01, momentum=0.9))
    >>> state = optimizer.init(params)
    >>> penalty_fn = lambda params: fisher_penalty(network, params, x, key)
    >>> updates, state = optimizer.update(
    ...     gradient, state, params, penalty_fn=penalty_fn
    ... )
    >>> updates["w"].shape
    (1, 2)

    At step t = first_step, first_step + f, ... ``jax.value_and_grad(penalty_fn)`` is
    evaluated at these params and kept; in between it is not evaluated at all. Before
    ``first_step`` nothing is added. The latest value is
    ``optax.tree_utils.tree_get(state, "penalty_value")``.

    Call ``update`` under ``jax.jit``, with the same key or another one at each step:
    only the keys of the steps that renew matter. The program holds both kinds of step
    and decides between them. A loop that knows the step's number can compile them
    apart, without a conditional: it passes ``renew=is_penalty_update(step, 0, 10)``, a
    Python bool, to ``update``, and needs no ``penalty_fn`` where that is False. This
    is how main.py trains.

    Under ``jit`` with sharded arrays, the gradient kept lies on the devices as the
    params do. Inside ``jax.shard_map`` pass ``axis_name`` to the penalty, and to
    ``update`` the gradient of the whole batch: what is kept is replicated.

    Args:
        coefficient: α: a number, a scalar array, or a schedule, which maps the number
            of the step, counted from 0, to one. For one that a compiled program takes
            as an argument:
            ``optax.inject_hyperparams(add_penalty, ("update_every", "first_step"))``.
        update_every: f, 10 in the paper.
        first_step: the first step that adds the penalty, counted from 0.

    Returns:
        A transformation with state ``StalePenaltyState``.

    Raises:
        TypeError: a coefficient that is no real scalar, counts that are no Python
            integers; from ``update``: a penalty that is no scalar, integer parameters,
            or a ``renew`` that is traced.
        ValueError: update_every < 1 or first_step < 0; from ``update``: no params or no
            penalty_fn; from both: inside ``optax.masked`` or ``optax.multi_transform``,
            which show it some of the parameters only.
    """
    is_number = isinstance(coefficient, (int, float))
    is_scalar = getattr(coefficient, "shape", None) == ()
    if not (is_number or is_scalar or callable(coefficient)):
        raise TypeError(
            "coefficient: expected a number, a scalar array or a schedule, got "
            f"{trees.described(coefficient)}"
        )
    trees.check_count("update_every", update_every)
    trees.check_count("first_step", first_step, least=0)

    def init(params: PyTree) -> StalePenaltyState:
        _check_whole(params)
        trees.check_params(params)
        return StalePenaltyState(
            step=jnp.zeros((), jnp.int32),
            penalty_value=jnp.zeros((), trees.accumulation_dtype(params)),
            penalty_gradient=jax.tree.map(jnp.zeros_like, params),
        )

    def update(
        updates: PyTree,
        state: StalePenaltyState,
        params: PyTree | None = None,
        *,
        penalty_fn: PenaltyFn | None = None,
        renew: bool | None = None,
        **others: Any,
    ) -> tuple[PyTree, StalePenaltyState]:
        del others
        if renew is not None and not isinstance(renew, bool):
            raise TypeError(
                f"renew: expected a Python bool or None, got {trees.described(renew)}"
            )
        kept = state.penalty_value, state.penalty_gradient
        if renew is False:
            value, gradient = kept
        else:
            compute = _value_and_gradient(penalty_fn, params, kept[0].dtype)
            if renew:
                value, gradient = compute(params)
            else:
                value, gradient = jax.lax.cond(
                    is_penalty_update(state.step, first_step, update_every),
                    loops.loop_body(compute),
                    lambda _: kept,
                    params,
                )
        alpha = coefficient(state.step) if callable(coefficient) else coefficient
        total = jax.tree.map(
            lambda g, p: (g + alpha * p).astype(g.dtype), updates, gradient
        )
        return total, StalePenaltyState(state.step + 1, value, gradient)

    return optax.GradientTransformationExtraArgs(init, update)


def _value_and_gradient(
    penalty_fn: PenaltyFn | None, params: PyTree | None, dtype: jnp.dtype
) -> Callable[[PyTree], tuple[Float[Array, ""], PyTree]]:
    """The penalty and its gradient, of arguments that have been checked."""
    if params is None:
        raise ValueError(
            "params: needed to differentiate the penalty; call "
            "update(gradient, state, params, penalty_fn=...)"
        )
    if penalty_fn is None:
        raise ValueError(
            "penalty_fn: expected a function of params, got None; call "
            "update(gradient, state, params, penalty_fn=lambda params: "
            "fisher_penalty(logits_fn, params, inputs, key))"
        )
    _check_whole(params)
    trees.check_params(params)

    # Checked as it is traced: a network should not be traced once more for that.
    def checked(params: PyTree) -> Float[Array, ""]:
        trees.check_function("penalty_fn", penalty_fn)
        value = penalty_fn(params)
        if getattr(value, "shape", None) != () or not trees.is_floating(value):
            raise TypeError(
                "penalty_fn: expected penalty_fn(params) to be one floating-point "
                f"scalar, got {trees.described(value)}"
            )
        return value

    def compute(params: PyTree) -> tuple[Float[Array, ""], PyTree]:
        value, gradient = jax.value_and_grad(checked)(params)
        return value.astype(dtype), gradient

    return compute


def _check_whole(params: PyTree) -> None:
    """Refuses parameters of which optax hides some.

    Raises:
        ValueError: saying where the penalty goes.
    """

    def is_hidden(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    if any(map(is_hidden, jax.tree.leaves(params, is_leaf=is_hidden))):
        raise ValueError(
            "params: add_penalty needs all of them, and optax.masked or "
            "optax.multi_transform around it hides some; put it outside: "
            "optax.chain(add_penalty(...), optax.masked(...))"
        )
