"""One training step, pure: cross-entropy plus alpha times a penalty (eq. 3).

The penalty's gradient is recomputed when ``update_penalty`` is set (every f = 10 steps
in the paper) and the latest one is added in the steps between. The caller knows from
the step's number which it is, so that each form is compiled without a conditional.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fisher_jax import parallel
from fisher_jax.axes import AxisName, total
from fisher_jax.train import gradients
from fisher_jax.train.gradients import StepSettings
from fisher_jax.train.state import TrainState

# What may be the first that is not finite, in the order in which a step meets them.
QUANTITIES = (
    "nothing",
    "the data",
    "the parameters before the step",
    "the loss",
    "the penalty",
    "the gradient",
    "the parameters after the step",
)


class StepMetrics(NamedTuple):
    """Of one minibatch, before its update."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    first_bad: Int[Array, ""]  # in QUANTITIES: which is not finite; 0 = all are

    @property
    def is_finite(self) -> Bool[Array, ""]:
        """Whether all quantities of the step are."""
        return self.first_bad == 0


class StepKeys(NamedTuple):
    """The keys of one step; functions of (seed, step) only."""

    penalty: Key[Array, ""]
    mixup: Key[Array, ""]


def step_keys(key: Key[Array, ""], step: Int[Array, ""] | int) -> StepKeys:
    """Folds the global step into the run's key, so that any step can be redone."""
    return StepKeys(*jax.random.split(jax.random.fold_in(key, step)))


def train_step(
    state: TrainState,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    coefficient: Float[Array, ""] | float,
    *,
    settings: StepSettings,
    update_penalty: bool,
    mesh: Mesh | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Takes one step on the global batch.

    Args:
        coefficient: alpha. Not static: a sweep over alpha compiles once.
        settings: static.
        update_penalty: static; recompute the penalty's gradient at these parameters.
        mesh: static; the devices over which the batch is split, None for one.
    """
    keys = step_keys(state.key, state.step)
    examples = gradients.mix(inputs, labels, keys.mixup, settings.mixup_beta)
    num_examples = settings.penalty and settings.penalty.num_examples
    if settings.penalty is not None and settings.penalty.name == "fisher_single":
        num_examples = 1
    penalised = inputs[:num_examples], labels[:num_examples]
    compute = _computed_by(mesh, settings, update_penalty, state, penalised)
    result = compute(
        state.params,
        state.batch_stats,
        state.penalty_gradient,
        jnp.asarray(coefficient, jnp.float32),
        examples,
        penalised,
        keys.penalty,
    )
    if result.penalty_value is not None:
        state = state.replace(
            penalty_gradient=result.kept,
            penalty_value=result.penalty_value,
            penalty_sum=state.penalty_sum + result.penalty_value,
            penalty_count=state.penalty_count + 1,
        )
    scores, before = result.scores, state.params
    state = state.apply_gradients(grads=result.gradient, batch_stats=scores.batch_stats)
    met = (
        inputs,
        before,
        scores.loss,
        state.penalty_value,
        result.gradient,
        state.params,
    )
    first_bad = _first_bad([_all_finite(quantity) for quantity in met])
    return state, StepMetrics(scores.loss, scores.accuracy, first_bad)


class _Result(NamedTuple):
    scores: gradients.Scores
    gradient: PyTree  # of the whole batch: cross-entropy and alpha times penalty
    penalty_value: Float[Array, ""] | None  # None without an update
    kept: PyTree | None


def _computed_by(
    mesh: Mesh | None,
    settings: StepSettings,
    update_penalty: bool,
    state: TrainState,
    penalised: tuple[Array, Array],
) -> Callable[..., _Result]:
    """Returns ``_compute`` for one device, or under shard_map for all of a mesh."""
    is_split = mesh is None or penalised[1].shape[0] % mesh.size == 0
    compute = partial(
        _compute,
        apply_fn=state.apply_fn,
        settings=settings,
        update_penalty=update_penalty,
        is_split=is_split,
    )
    if mesh is None or mesh.size == 1:
        return compute
    same, share = PartitionSpec(), PartitionSpec(mesh.axis_names)
    kept = kept_specs(state.penalty_gradient, mesh)
    is_updated = update_penalty and settings.penalty is not None
    specs: Any = (same, same, *((same, kept) if is_updated else (None, None)))
    return jax.shard_map(
        partial(compute, axis_name=mesh.axis_names),
        mesh=mesh,
        in_specs=(same, same, kept, same, share, share if is_split else same, same),
        out_specs=_Result(*specs),
    )


def kept_specs(penalty_gradient: PyTree, mesh: Mesh) -> PyTree:
    """How the kept gradient of a penalty lies on the devices."""
    (axis,) = mesh.axis_names
    if mesh.size == 1:
        return jax.tree.map(lambda leaf: PartitionSpec(), penalty_gradient)
    return jax.tree.map(
        lambda leaf: gradients.kept_spec(leaf.shape, mesh.size, axis), penalty_gradient
    )


def place_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Puts a state on the devices: all of it on each, but for the kept gradient."""
    placed = parallel.place(
        state.replace(penalty_gradient=None), parallel.replicated(mesh)
    )
    kept = jax.tree.map(
        lambda leaf, spec: parallel.place(leaf, NamedSharding(mesh, spec)),
        state.penalty_gradient,
        kept_specs(state.penalty_gradient, mesh),
    )
    return placed.replace(penalty_gradient=kept)


def _compute(
    params: PyTree,
    batch_stats: PyTree,
    kept: PyTree | None,
    coefficient: Float[Array, ""],
    examples: gradients.Examples,
    penalised: tuple[Float[Array, "B H W channels"], Int[Array, " B"]],
    penalty_key: Key[Array, ""],
    *,
    apply_fn: Callable[..., Any],
    settings: StepSettings,
    update_penalty: bool,
    is_split: bool,
    axis_name: AxisName = None,
) -> _Result:
    """What a step needs of the batch, of which each device sees its share."""
    network = gradients.Network(apply_fn, params, batch_stats)
    is_perturbed = bool(settings.sam_radius or settings.gradient_norm_radius)
    if is_perturbed:
        scores, whole = gradients.perturbed_gradient(
            network, examples, coefficient, settings, axis_name
        )
        part = None
    else:
        scores, part = gradients.loss_gradient(network, examples, settings, axis_name)
    value = None
    if settings.penalty is not None:
        if update_penalty:
            value, penalty = gradients.penalty_gradient(
                network, *penalised, penalty_key, settings, axis_name, is_split
            )
            kept = gradients.keep(penalty, axis_name)
        else:
            penalty = gradients.kept_part(kept, params, axis_name)
        penalty = jax.tree.map(lambda leaf: coefficient * leaf, penalty)
        part = penalty if part is None else jax.tree.map(jnp.add, part, penalty)
    if part is not None:
        part = total(part, axis_name)
    if is_perturbed:
        part = whole if part is None else jax.tree.map(jnp.add, whole, part)
    return _Result(scores, part, value, kept if value is not None else None)


def compile_train_step(
    settings: StepSettings, mesh: Mesh
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Returns ``train_step`` for a batch split over the mesh; it donates the state."""
    return jax.jit(
        partial(train_step, settings=settings, mesh=mesh),
        static_argnames=("update_penalty",),
        donate_argnums=0,
    )


def _first_bad(are_finite: Sequence[Bool[Array, ""]]) -> Int[Array, ""]:
    """The place, from 1, of the first that is not; 0 if all are."""
    is_bad = jnp.stack([jnp.bool_(False), *(~finite for finite in are_finite)])
    return jnp.argmax(is_bad).astype(jnp.int32)


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    # A sum is not finite as soon as one term is not, and costs one fused pass.
    return jnp.isfinite(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree)))
