"""The state of a run: all that changes from step to step, and nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state
from jaxtyping import Array, Float, Int, Key, PyTree


class TrainState(train_state.TrainState):
    """Flax's TrainState extended by what a stale-gradient penalty needs.

    Attributes:
        batch_stats: running statistics of batch norm; empty without it.
        key: the run's typed key; never changes, steps fold their number into it.
        penalty_gradient: gradient of the penalty (without its coefficient) at its
            latest update, a pytree like params; None when no penalty trains.
        penalty_value: the penalty at its latest update.
        penalty_sum: sum of the penalty's values since the last record.
        penalty_count: number of updates since the last record.
    """

    batch_stats: PyTree
    key: Key[Array, ""]
    penalty_gradient: PyTree | None
    penalty_value: Float[Array, ""]
    penalty_sum: Float[Array, ""]
    penalty_count: Int[Array, ""]


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    with_penalty: bool,
) -> TrainState:
    """Initialises model and optimizer from the seed.

    Args:
        image_shape: height, width, channels.
        with_penalty: whether to hold a penalty gradient, zeros until its first update.

    Raises:
        ValueError: the model cannot take images of this shape.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    example = jnp.zeros((1, *image_shape), jnp.float32)
    variables = jax.jit(model.init)(init_key, example)
    params = variables["params"]
    state = TrainState.create(
        apply_fn=model.apply,
        params=params,
        tx=optimizer,
        batch_stats=variables.get("batch_stats", {}),
        key=run_key,
        penalty_gradient=jax.tree.map(jnp.zeros_like, params) if with_penalty else None,
        penalty_value=jnp.zeros(()),
        penalty_sum=jnp.zeros(()),
        penalty_count=jnp.zeros((), jnp.int32),
    )
    # Flax starts at a Python 0, which would compile once more than an array.
    return state.replace(step=jnp.zeros((), jnp.int32))


def make_eval_apply(
    model: nn.Module,
) -> Callable[[PyTree, PyTree, Any], Float[Array, "B C"]]:
    """Returns (batch_stats, params, inputs) -> logits, in evaluation mode."""

    def eval_apply(
        batch_stats: PyTree, params: PyTree, inputs: Any
    ) -> Float[Array, "B C"]:
        variables = {"params": params, "batch_stats": batch_stats}
        return jnp.asarray(model.apply(variables, inputs, train=False))

    return eval_apply


def count_parameters(params: PyTree) -> int:
    """Returns the number of scalars in params."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
