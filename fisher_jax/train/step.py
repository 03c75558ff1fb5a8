"""One training step, pure: cross-entropy plus alpha times a penalty (eq. 3).

The penalty's gradient is recomputed when ``update_penalty`` is set (every f = 10 steps
in the paper) and the latest one is added in the steps between. The caller knows from
the step's number which it is, so that each form is compiled without a conditional.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fisher_jax import baselines, parallel, penalties
from fisher_jax.losses import cross_entropy
from fisher_jax.train.state import TrainState


class PenaltySettings(NamedTuple):
    """Which penalty, and of how many examples; ``None`` = the whole batch."""

    name: str
    draw: penalties.Draw = "labels"
    num_examples: int | None = None
    method: penalties.Method = "exact"
    batch_norm: str = "train"  # or "eval": by the running statistics


class StepSettings(NamedTuple):
    """What is fixed when a step is compiled."""

    penalty: PenaltySettings | None = None
    mixup_beta: float = 0.0
    sam_radius: float = 0.0
    gradient_norm_radius: float = 0.0  # r of Zhao et al. 2022; its λ is coefficient


class StepMetrics(NamedTuple):
    """Of one minibatch, before its update."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    is_finite: Bool[Array, ""]  # loss and updated parameters


class StepKeys(NamedTuple):
    """The keys of one step; functions of (seed, step) only."""

    penalty: Key[Array, ""]
    mixup: Key[Array, ""]


def step_keys(key: Key[Array, ""], step: Int[Array, ""] | int) -> StepKeys:
    """Folds the global step into the run's key, so that any step can be redone."""
    return StepKeys(*jax.random.split(jax.random.fold_in(key, step)))


def is_penalty_update(step: int, first_step: int, update_every: int) -> bool:
    """Whether ``step`` (from 0) recomputes the penalty's gradient."""
    return step >= first_step and (step - first_step) % update_every == 0


def train_step(
    state: TrainState,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    coefficient: Float[Array, ""] | float,
    *,
    settings: StepSettings,
    update_penalty: bool,
) -> tuple[TrainState, StepMetrics]:
    """Takes one step on the global batch.

    Args:
        coefficient: alpha. Not static: a sweep over alpha compiles once.
        settings: static.
        update_penalty: static; recompute the penalty's gradient at these parameters.
    """
    keys = step_keys(state.key, state.step)
    loss_fn = _loss_fn(state, inputs, labels, keys.mixup, settings)
    if settings.sam_radius:
        (loss, (logits, batch_stats)), gradient = baselines.sam_gradient(
            loss_fn, state.params, settings.sam_radius, has_aux=True
        )
    elif settings.gradient_norm_radius:
        (loss, (logits, batch_stats)), gradient = baselines.gradient_norm_gradient(
            loss_fn,
            state.params,
            settings.gradient_norm_radius,
            coefficient / settings.gradient_norm_radius,
            has_aux=True,
        )
    else:
        (loss, (logits, batch_stats)), gradient = jax.value_and_grad(
            loss_fn, has_aux=True
        )(state.params)
    if settings.penalty is not None:
        if update_penalty:
            state = _update_penalty(state, inputs, labels, keys.penalty, settings)
        gradient = jax.tree.map(
            lambda g, penalty: g + coefficient * penalty,
            gradient,
            state.penalty_gradient,
        )
    state = state.apply_gradients(grads=gradient, batch_stats=batch_stats)
    metrics = StepMetrics(
        loss=loss,
        accuracy=jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        is_finite=jnp.isfinite(loss) & _all_finite(state.params),
    )
    return state, metrics


def compile_train_step(
    settings: StepSettings, mesh: Mesh
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Returns ``train_step`` for a batch split over the mesh; it donates the state."""
    return jax.jit(
        partial(train_step, settings=settings),
        static_argnames=("update_penalty",),
        donate_argnums=0,
        out_shardings=parallel.replicated(mesh),
    )


def _loss_fn(
    state: TrainState,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    mixup_key: Key[Array, ""],
    settings: StepSettings,
) -> Callable[[PyTree], tuple[Float[Array, ""], tuple[Array, PyTree]]]:
    """Returns params -> (mean cross-entropy, (logits, new batch statistics))."""

    def loss_fn(params: PyTree) -> tuple[Float[Array, ""], tuple[Array, PyTree]]:
        if settings.mixup_beta:
            mixed = baselines.mixup(mixup_key, inputs, labels, settings.mixup_beta)
            logits, batch_stats = _apply_train(state, params, mixed.inputs)
            losses = mixed.weight * cross_entropy(logits, mixed.labels) + (
                1 - mixed.weight
            ) * cross_entropy(logits, mixed.partner_labels)
        else:
            logits, batch_stats = _apply_train(state, params, inputs)
            losses = cross_entropy(logits, labels)
        return jnp.mean(losses), (logits, batch_stats)

    return loss_fn


def _apply_train(
    state: TrainState, params: PyTree, inputs: Array
) -> tuple[Float[Array, "B C"], PyTree]:
    """Logits in train mode and the batch statistics after this batch."""
    variables = {"params": params, "batch_stats": state.batch_stats}
    logits, updated = state.apply_fn(
        variables, inputs, train=True, mutable=["batch_stats"]
    )
    return logits, updated.get("batch_stats", state.batch_stats)


def _update_penalty(
    state: TrainState,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    settings: StepSettings,
) -> TrainState:
    """Recomputes the penalty and its gradient at the state's parameters.

    Batch norm normalises by this batch, as in training, or by its running statistics,
    as ``settings.penalty.batch_norm`` says. The running statistics are left alone:
    the cross-entropy pass has updated them.
    """
    penalty = settings.penalty
    assert penalty is not None

    def logits_fn(params: PyTree, x: Any) -> Float[Array, "B C"]:
        if penalty.batch_norm == "train":
            return _apply_train(state, params, x)[0]
        variables = {"params": params, "batch_stats": state.batch_stats}
        return state.apply_fn(variables, x, train=False)

    penalty_fn = penalty_function(
        penalty,
        logits_fn,
        inputs[: penalty.num_examples],
        labels[: penalty.num_examples],
        key,
    )
    value, gradient = jax.value_and_grad(penalty_fn)(state.params)
    return state.replace(
        penalty_gradient=gradient,
        penalty_value=value,
        penalty_sum=state.penalty_sum + value,
        penalty_count=state.penalty_count + 1,
    )


def penalty_function(
    settings: PenaltySettings,
    logits_fn: Callable[[PyTree, Any], Float[Array, "B C"]],
    inputs: Float[Array, "B ..."],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
) -> Callable[[PyTree], Float[Array, ""]]:
    """Returns params -> penalty, the one that ``settings.name`` says.

    Raises:
        ValueError: unknown name.
    """
    method = settings.method
    functions: dict[str, Callable[[PyTree], Float[Array, ""]]] = {
        "fisher": lambda params: penalties.fisher_penalty(
            logits_fn, params, inputs, key, draw=settings.draw, method=method
        ),
        "fisher_single": lambda params: penalties.single_example_fisher_penalty(
            logits_fn, params, inputs, key, method=method
        ),
        "gradient": lambda params: penalties.gradient_penalty(
            logits_fn, params, inputs, labels, method=method
        ),
        "random_label": lambda params: penalties.random_label_penalty(
            logits_fn, params, inputs, key, method=method
        ),
        "input_gradient": lambda params: penalties.input_gradient_penalty(
            logits_fn, params, inputs, labels
        ),
    }
    if settings.name not in functions:
        raise ValueError(
            f"unknown penalty {settings.name!r}, one of {', '.join(functions)}"
        )
    return functions[settings.name]


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    # A sum is not finite as soon as one term is not, and costs one fused pass.
    return jnp.isfinite(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree)))
