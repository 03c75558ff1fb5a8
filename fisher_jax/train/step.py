"""One training step, pure: cross-entropy plus α times a penalty (eq. 3), then SGD.

The optimizer is a chain of the published ``add_penalty``, weight decay and SGD. The
penalty's gradient is renewed when ``renew`` is set (every f = 10 steps in the
paper) and the latest one is added in the steps between. The caller knows from the
step's number which it is, so that each form is compiled without a conditional.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fisher_jax import parallel
from fisher_jax.axes import AxisName
from fisher_jax.data.device import (
    NO_AUGMENTATION,
    Augmentation,
    TrainingBatch,
    UngatheredBatches,
    training_batch,
)
from fisher_jax.penalties import add_penalty
from fisher_jax.train import gradients
from fisher_jax.train.gradients import BatchScores, Examples, StepSettings

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


class TrainState(train_state.TrainState):
    """All that changes from step to step: Flax's, and two more.

    Attributes:
        batch_stats: running statistics of batch norm; empty without it.
        key: the run's typed key; never changes, steps fold their number into it.
    """

    batch_stats: PyTree
    key: Key[Array, ""]


class StepMetrics(NamedTuple):
    """Of one minibatch, before its update."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    # In QUANTITIES: which is not finite; 0 = all are. Of several steps in one call the
    # first's, plus len(QUANTITIES) for each step since.
    first_bad: Int[Array, ""]


class RandomKeys(NamedTuple):
    """Of one step's draws; functions of (seed, step) only."""

    penalty: Key[Array, ""]
    mixup: Key[Array, ""]


def random_keys(key: Key[Array, ""], step: Int[Array, ""] | int) -> RandomKeys:
    """Folds the global step into the run's key, so that any step can be redone."""
    return RandomKeys(*jax.random.split(jax.random.fold_in(key, step)))


def step_decay(
    learning_rate: float,
    decay_factor: float,
    decay_epochs: Sequence[int],
    steps_per_epoch: int,
) -> optax.Schedule:
    """Returns step -> learning_rate * decay_factor^(number of epochs passed).

    The rate changes with the first step of each epoch in ``decay_epochs``, counted
    from 0, as PyTorch's MultiStepLR does.
    """
    boundaries = {epoch * steps_per_epoch: decay_factor for epoch in decay_epochs}
    schedule = optax.piecewise_constant_schedule(learning_rate, boundaries)
    # Optax promotes its integers to floats, which JAX may have been told to refuse.
    return lambda step: schedule(jnp.asarray(step, jnp.float32))


def injected_penalty(coefficient: float) -> optax.GradientTransformation:
    """``add_penalty`` with its coefficient in the optimizer's state.

    It is then no constant of the program, and a sweep over α compiles once. When the
    penalty is renewed ``train_step`` is told, so that ``add_penalty``'s own count is
    never asked.
    """
    # Its two numbers stay what they are by default, and static.
    injected = optax.inject_hyperparams(add_penalty, ("update_every", "first_step"))
    return injected(coefficient)


def sgd(
    schedule: optax.Schedule,
    momentum: float,
    weight_decay: float,
    penalty: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Returns SGD with v <- momentum v + (g + α h + weight_decay w), w <- w - rate v.

    Weight decay is coupled (it enters the momentum) and acts on every parameter,
    biases included, as in PyTorch's ``torch.optim.SGD``.

    Args:
        penalty: what adds α h, the gradient of a penalty; None for no penalty.
    """
    return optax.chain(
        optax.identity() if penalty is None else penalty,
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.sgd(schedule, momentum=momentum or None),
    )


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Initialises model and optimizer from the seed.

    Args:
        image_shape: height, width, channels.

    Raises:
        ValueError: the model cannot take images of this shape.
    """

    # As one program: a start from a warm cache reads one, and not one for each shape.
    @jax.jit
    def initial(key: Key[Array, ""]) -> TrainState:
        init_key, run_key = jax.random.split(key)
        variables = model.init(init_key, jnp.zeros((1, *image_shape), jnp.float32))
        state = TrainState.create(
            apply_fn=model.apply,
            params=variables["params"],
            tx=optimizer,
            batch_stats=variables.get("batch_stats", {}),
            key=run_key,
        )
        # Flax starts at a Python 0, which would compile once more than an array.
        return state.replace(step=jnp.zeros((), jnp.int32))

    return initial(jax.random.key(seed))


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


def penalty_value(state: TrainState) -> Float[Array, ""]:
    """The penalty at its latest update, without α; 0 before the first or without."""
    value = optax.tree_utils.tree_get(state.opt_state, "penalty_value")
    return jnp.zeros(()) if value is None else value


def train_step(
    state: TrainState,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    *,
    settings: StepSettings,
    renew: bool,
    mesh: Mesh | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Takes one step on the global batch.

    Args:
        state: whose optimizer has ``add_penalty`` in it if the settings have a penalty.
        settings: static.
        renew: static; recompute the penalty's gradient at these parameters.
        mesh: static; the devices over which the batch is split, None for one.
    """
    keys = random_keys(state.key, state.step)
    examples = gradients.mix(inputs, labels, keys.mixup, settings.mixup_beta)
    # Never mixed ones.
    seen = slice(settings.penalty.num_examples if settings.penalty else None)
    penalised = inputs[seen], labels[seen]
    step = _over_mesh(mesh, settings, renew, len(penalised[1]))
    new, scores, gradient = step(state, examples, penalised, keys.penalty)
    kept = optax.tree_utils.tree_get(new.opt_state, "penalty_gradient")
    met = (
        inputs,
        state.params,
        scores.loss,
        penalty_value(new),
        (gradient, kept),
        new.params,
    )
    first_bad = _first_bad([_all_finite(quantity) for quantity in met])
    return new, StepMetrics(scores.loss, scores.accuracy, first_bad)


def train_steps(
    state: TrainState,
    batches: UngatheredBatches,
    *,
    settings: StepSettings,
    augmentation: Augmentation,
    renew: bool,
    mesh: Mesh,
) -> tuple[TrainState, StepMetrics]:
    """Takes consecutive steps, their gathers and augmentation included.

    Args:
        state, settings, mesh: as in ``train_step``.
        batches: one for each step.
        augmentation: static.
        renew: static; of the first step. The others take its gradient.

    Returns:
        The state after the last step, and its metrics with the ``first_bad`` of all.
    """
    split = parallel.split_over_devices(mesh)

    def one(
        state: TrainState, rows: Int[Array, " B"], renew: bool
    ) -> tuple[TrainState, StepMetrics]:
        batch = training_batch(
            batches.split,
            rows,
            batches.augment_key,
            state.step,
            augmentation=augmentation,
        )
        # Nothing of a step is fused with its neighbours: its rounding stays its own.
        state, batch = jax.lax.optimization_barrier(
            (state, jax.lax.with_sharding_constraint(batch, split))
        )
        return jax.lax.optimization_barrier(
            train_step(state, *batch, settings=settings, renew=renew, mesh=mesh)
        )

    state, first = one(state, batches.rows[0], renew)
    state, others = jax.lax.scan(
        partial(one, renew=False),
        state,
        batches.rows[1:],
        # XLA:CPU is slow on convolutions in loops, and what cures that
        # (loops.loop_body) rounds otherwise than a step alone.
        unroll=parallel.is_on_cpu(mesh),
    )
    of_all = jnp.concatenate((first.first_bad[None], others.first_bad))
    bad_step = jnp.argmax(of_all != 0)
    steps_since = len(of_all) - 1 - bad_step
    first_bad = of_all[bad_step]
    first_bad += jnp.where(first_bad, len(QUANTITIES) * steps_since, 0)
    last = StepMetrics(others.loss[-1], others.accuracy[-1], first_bad)
    return state, last


def compile_step(
    settings: StepSettings,
    mesh: Mesh | None = None,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Returns (state, batch, *, renew) -> ..., compiled; it donates the state.

    That is ``train_step`` for the inputs and labels of one step, split over the mesh,
    and ``train_steps`` for the ungathered batches of several.
    """

    def step(
        state: TrainState, batch: TrainingBatch | UngatheredBatches, *, renew: bool
    ) -> tuple[TrainState, StepMetrics]:
        if not isinstance(batch, UngatheredBatches):
            return train_step(state, *batch, settings=settings, renew=renew, mesh=mesh)
        assert mesh is not None
        return train_steps(
            state,
            batch,
            settings=settings,
            augmentation=augmentation,
            renew=renew,
            mesh=mesh,
        )

    return jax.jit(step, static_argnames=("renew",), donate_argnums=0)


def _over_mesh(
    mesh: Mesh | None, settings: StepSettings, renew: bool, num_penalised: int
) -> Callable[..., tuple[TrainState, BatchScores, PyTree]]:
    """Returns ``_device_step`` for one device, or under shard_map for all of a mesh."""
    step = partial(_device_step, settings=settings, renew=renew)
    if mesh is None or mesh.size == 1:
        return step
    same, share = PartitionSpec(), PartitionSpec(mesh.axis_names)
    # Where the devices do not divide what the penalty sees, each computes all of it.
    is_split = num_penalised % mesh.size == 0
    return jax.shard_map(
        partial(
            step,
            axis_name=mesh.axis_names,
            penalty_axis_name=mesh.axis_names if is_split else None,
        ),
        mesh=mesh,
        in_specs=(same, share, share if is_split else same, same),
        out_specs=(same, same, same),
    )


def _device_step(
    state: TrainState,
    examples: Examples,
    penalised: tuple[Float[Array, "n H W channels"], Int[Array, " n"]],
    penalty_key: Key[Array, ""],
    *,
    settings: StepSettings,
    renew: bool,
    axis_name: AxisName = None,
    penalty_axis_name: AxisName = None,
) -> tuple[TrainState, BatchScores, PyTree]:
    """The new state, the scores of the batch and the gradient of its loss.

    Each device sees its share of the examples and takes the same step.
    """
    network = gradients.Network(state.apply_fn, state.params, state.batch_stats)
    scores, gradient = gradients.loss_gradient(network, examples, settings, axis_name)
    penalty_fn = None
    if settings.penalty is not None and renew:
        chunk_size = None
        if settings.microbatches > 1:
            chunk_size = -(-len(penalised[1]) // settings.microbatches)
        penalty_fn = gradients.penalty_of_step(
            network,
            *penalised,
            penalty_key,
            settings.penalty,
            chunk_size,
            penalty_axis_name,
        )
    # The run's schedule decides: add_penalty's own count would take a conditional.
    updates, opt_state = optax.with_extra_args_support(state.tx).update(
        gradient,
        state.opt_state,
        state.params,
        penalty_fn=penalty_fn,
        renew=renew,
    )
    new = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        batch_stats=scores.batch_stats,
    )
    return new, scores, gradient


def _first_bad(are_finite: Sequence[Bool[Array, ""]]) -> Int[Array, ""]:
    """The place, from 1, of the first that is not; 0 if all are."""
    is_bad = jnp.stack([jnp.bool_(False), *(~finite for finite in are_finite)])
    return jnp.argmax(is_bad).astype(jnp.int32)


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    # A sum is not finite as soon as one term is not, and costs one fused pass.
    return jnp.isfinite(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree)))
