"""The gradient of a step's cross-entropy, and its penalty as a function of params.

Under shard_map every device sees its share of the batch. The sum over devices is taken
once for the cross-entropy; an update of the penalty needs two more, of the gradient
inside its square (not of groups, which are whole on a device) and of its own gradient,
which every device then holds whole.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from fisher_jax import axes, baselines, loops, penalties
from fisher_jax.curvature import Categorical

# The choices of ``penalty.name``; None: no penalty whose gradient is added.
PENALTIES: Mapping[str, Callable[..., Float[Array, ""]] | None] = {
    "none": None,
    "fisher": penalties.fisher_penalty,
    "fisher_single": penalties.single_example_fisher_penalty,
    "gradient": penalties.gradient_penalty,
    "random_label": penalties.random_label_penalty,
    "input_gradient": penalties.input_gradient_penalty,
    "gradient_norm": None,  # changes the gradient itself, in every step
}


class PenaltySettings(NamedTuple):
    """Which penalty, how it is computed, and of which examples.

    Its α is in the optimizer's state: ``step.injected_penalty``.
    """

    name: str
    draw: penalties.Draw = "labels"
    num_examples: int | None = None  # the batch's first; None: all. fisher_single: 1
    method: penalties.Method = "exact"
    batch_norm: str = "train"  # or "eval": by the running statistics
    num_groups: int = 1


class StepSettings(NamedTuple):
    """What is fixed when a step is compiled."""

    penalty: PenaltySettings | None = None
    mixup_beta: float = 0.0
    sam_radius: float = 0.0
    gradient_norm_radius: float = 0.0  # r of Zhao et al. 2022
    gradient_norm_coefficient: float = 0.0  # its λ
    microbatches: int = 1  # of each device's share of the batch, computed in turn


class Examples(NamedTuple):
    """A batch to compute the cross-entropy of, mixed or not.

    Attributes:
        labels, partner_labels: of an example and of what is mixed into it; the same
            where nothing is.
        weights: λ, the share of ``labels`` in the loss.
    """

    inputs: Float[Array, "B H W channels"]
    labels: Int[Array, " B"]
    partner_labels: Int[Array, " B"]
    weights: Float[Array, " B"]


class Network(NamedTuple):
    """A network at some parameters.

    Attributes:
        apply_fn: a Flax module's ``apply``.
        batch_stats: running statistics of batch norm; empty without it.
    """

    apply_fn: Callable[..., Any]
    params: PyTree
    batch_stats: PyTree

    def train_mode(self, params: PyTree, inputs: Array) -> tuple[Array, PyTree]:
        """Logits by this batch's statistics, and the running ones after it."""
        variables = {"params": params, "batch_stats": self.batch_stats}
        logits, updated = self.apply_fn(
            variables, inputs, train=True, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", self.batch_stats)

    def eval_mode(self, params: PyTree, inputs: Array) -> Array:
        """Logits by the running statistics."""
        variables = {"params": params, "batch_stats": self.batch_stats}
        return self.apply_fn(variables, inputs, train=False)


class BatchScores(NamedTuple):
    """Of the whole batch.

    Attributes:
        loss: the mean cross-entropy.
        accuracy: by ``labels``, of an unmixed batch.
        batch_stats: the running statistics after this batch.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    batch_stats: PyTree


def mix(
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    beta: float,
) -> Examples:
    """Returns the batch as mixup makes it, or as it is for ``beta`` 0."""
    ones = jnp.ones(labels.shape, jnp.float32)
    if not beta:
        return Examples(inputs, labels, labels, ones)
    mixed = baselines.mixup(key, inputs, labels, beta)
    return Examples(
        mixed.inputs, mixed.labels, mixed.partner_labels, mixed.weight * ones
    )


def loss_gradient(
    network: Network,
    examples: Examples,
    settings: StepSettings,
    axis_name: axes.AxisName,
) -> tuple[BatchScores, PyTree]:
    """Returns the scores of the whole batch and the gradient that its loss gives.

    That of the mean loss; or what SAM or the gradient-norm penalty make of it, who look
    for it at parameters that the whole batch's gradient leads to.
    """
    batch = examples.labels.shape[0] * axes.size(axis_name)

    def summed_loss(params: PyTree, some: Examples) -> tuple[Array, tuple[Array, Any]]:
        params = axes.vary(params, axes.names(axis_name))
        logits, batch_stats = network.train_mode(params, some.inputs)
        if settings.mixup_beta:
            losses = baselines.mixup_loss(
                Categorical().loss,
                logits,
                baselines.Mixed(
                    some.inputs, some.labels, some.partner_labels, some.weights
                ),
            )
        else:
            losses = Categorical().loss(logits, some.labels)
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == some.labels)
        return jnp.sum(losses) / batch, (correct / batch, batch_stats)

    def whole_loss(params: PyTree) -> tuple[Float[Array, ""], BatchScores]:
        loss, (accuracy, batch_stats) = summed_loss(params, examples)
        loss, accuracy = axes.total((loss, accuracy), axis_name)
        return loss, BatchScores(loss, accuracy, batch_stats)

    if settings.sam_radius:
        (_, scores), gradient = baselines.sam_gradient(
            whole_loss, network.params, settings.sam_radius, has_aux=True
        )
        return scores, gradient
    if settings.gradient_norm_radius:
        radius = settings.gradient_norm_radius
        balance = jnp.float32(settings.gradient_norm_coefficient) / radius
        (_, scores), gradient = baselines.gradient_norm_gradient(
            whole_loss, network.params, radius, balance, has_aux=True
        )
        return scores, gradient

    def one_microbatch(
        some: Examples,
    ) -> tuple[tuple[Array, tuple[Array, Any]], PyTree]:
        # This device's share of the gradient: the sum over devices is taken once.
        own = axes.vary(network.params, axes.names(axis_name))
        return jax.value_and_grad(summed_loss, has_aux=True)(own, some)

    if settings.microbatches == 1:
        (loss, (accuracy, batch_stats)), gradient = one_microbatch(examples)
    else:
        in_turn = jax.tree.map(
            lambda a: a.reshape(settings.microbatches, -1, *a.shape[1:]), examples
        )
        # Networks with batch norm are refused, so that there are no statistics.
        (loss, (accuracy, batch_stats)), gradient = loops.sum_slices(
            one_microbatch, in_turn
        )
    loss, accuracy, gradient = axes.total((loss, accuracy, gradient), axis_name)
    return BatchScores(loss, accuracy, batch_stats), gradient


def penalty_of_step(
    network: Network,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    settings: PenaltySettings,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Callable[[PyTree], Float[Array, ""]]:
    """Returns params -> penalty of the batch, by the statistics ``batch_norm`` says.

    Batch norm normalises by these examples, as in training, or by its running
    statistics. These are left alone: the cross-entropy pass updates them.

    Args:
        inputs, labels: this device's share; all of them with ``axis_name`` None.
        chunk_size: examples in memory at a time.
    """

    def logits_fn(params: PyTree, x: Any) -> Float[Array, "B C"]:
        if settings.batch_norm == "train":
            return network.train_mode(params, x)[0]
        return network.eval_mode(params, x)

    return named_penalty(
        settings, logits_fn, inputs, labels, key, chunk_size, axis_name
    )


def named_penalty(
    settings: PenaltySettings,
    logits_fn: Callable[[PyTree, Any], Float[Array, "B C"]],
    inputs: Float[Array, "B ..."],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Callable[[PyTree], Float[Array, ""]]:
    """Returns params -> penalty, the one of PENALTIES that ``settings.name`` says.

    After the network and params it gets what its signature names of the rest: so one
    line in PENALTIES is all that a penalty needs, whichever of them it takes.

    Raises:
        ValueError: the name is not one of PENALTIES with a function.
        TypeError: the function has a parameter that nothing here is for.
    """
    penalty = PENALTIES.get(settings.name)
    if penalty is None:
        raise ValueError(
            f"unknown penalty {settings.name!r}; choose one of {', '.join(PENALTIES)}"
        )
    offered: dict[str, Any] = {
        "inputs": inputs,
        "labels": labels,
        "key": key,
        "draw": settings.draw,
        "num_groups": settings.num_groups,
        "method": settings.method,
        "chunk_size": chunk_size,
        "axis_name": axis_name,
    }
    _, _, *names = inspect.signature(penalty).parameters
    # Those of a classifier's step have their defaults.
    unknown = set(names) - set(offered) - {"likelihood", "mask"}
    if unknown:
        raise TypeError(
            f"penalty {settings.name!r} has the parameter {min(unknown)!r}, which is "
            f"none of {', '.join(offered)}"
        )
    taken = {name: offered[name] for name in names if name in offered}
    return lambda params: penalty(logits_fn, params, **taken)
