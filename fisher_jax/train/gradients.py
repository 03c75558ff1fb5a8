"""The gradient of a step: cross-entropy and penalty, each device its share.

Under shard_map every device differentiates its part of the batch and the sum over
devices is taken once, of cross-entropy plus alpha times penalty: an update of the
penalty needs one more, of the gradient inside its square. What is kept of the penalty's
gradient for the steps to come lies scattered over the devices, each holding a piece,
which it adds to its own part of the sum.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fisher_jax import axes, baselines, loops, penalties
from fisher_jax.losses import cross_entropy


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
    microbatches: int = 1  # parts of each device's batch that are computed in turn


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


class Scores(NamedTuple):
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
) -> tuple[Scores, PyTree]:
    """Returns the scores of the batch and this device's part of the loss's gradient."""
    batch = examples.labels.shape[0] * axes.size(axis_name)

    def summed_loss(params: PyTree, part: Examples) -> tuple[Array, tuple[Array, Any]]:
        logits, batch_stats = network.train_mode(params, part.inputs)
        losses = part.weights * cross_entropy(logits, part.labels)
        if settings.mixup_beta:
            others = cross_entropy(logits, part.partner_labels)
            losses = losses + (1 - part.weights) * others
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == part.labels)
        return jnp.sum(losses) / batch, (correct / batch, batch_stats)

    def one_part(part: Examples) -> tuple[tuple[Array, tuple[Array, Any]], PyTree]:
        params = axes.vary(network.params, axes.names(axis_name))
        return jax.value_and_grad(summed_loss, has_aux=True)(params, part)

    if settings.microbatches == 1:
        (loss, (accuracy, batch_stats)), gradient = one_part(examples)
    else:
        parts = jax.tree.map(
            lambda a: a.reshape(settings.microbatches, -1, *a.shape[1:]), examples
        )
        # Networks with batch norm are refused, so that there are no statistics.
        (loss, (accuracy, batch_stats)), gradient = loops.sum_slices(one_part, parts)
    loss, accuracy = axes.total((loss, accuracy), axis_name)
    return Scores(loss, accuracy, batch_stats), gradient


def perturbed_gradient(
    network: Network,
    examples: Examples,
    coefficient: Float[Array, ""] | float,
    settings: StepSettings,
    axis_name: axes.AxisName,
) -> tuple[Scores, PyTree]:
    """As ``loss_gradient`` for SAM and the gradient-norm penalty, but the whole sum.

    Both look for the gradient at parameters that the whole batch's gradient leads to.
    """

    def loss_fn(params: PyTree) -> tuple[Float[Array, ""], Scores]:
        at_params = network._replace(params=params)
        scores = whole_loss(at_params)
        return scores.loss, scores

    def whole_loss(network: Network) -> Scores:
        params = axes.vary(network.params, axes.names(axis_name))
        logits, batch_stats = network.train_mode(params, examples.inputs)
        losses = cross_entropy(logits, examples.labels)
        correct = jnp.argmax(logits, axis=-1) == examples.labels
        batch = losses.shape[0] * axes.size(axis_name)
        sums = jnp.sum(losses) / batch, jnp.sum(correct) / batch
        loss, accuracy = axes.total(sums, axis_name)
        return Scores(loss, accuracy, batch_stats)

    if settings.sam_radius:
        (_, scores), gradient = baselines.sam_gradient(
            loss_fn, network.params, settings.sam_radius, has_aux=True
        )
    else:
        (_, scores), gradient = baselines.gradient_norm_gradient(
            loss_fn,
            network.params,
            settings.gradient_norm_radius,
            coefficient / settings.gradient_norm_radius,
            has_aux=True,
        )
    return scores, gradient


def penalty_gradient(
    network: Network,
    inputs: Float[Array, "B H W channels"],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    settings: StepSettings,
    axis_name: axes.AxisName,
    is_split: bool,
) -> tuple[Float[Array, ""], PyTree]:
    """Returns the penalty and this device's part of its gradient.

    Batch norm normalises by these examples, as in training, or by its running
    statistics, as ``batch_norm`` says. The running statistics are left alone: the
    cross-entropy pass has updated them.

    Args:
        inputs, labels: this device's, or all where they are not split.
        is_split: whether they are. If not, all devices compute the same and the first
            one's part is all.
    """
    penalty = settings.penalty
    assert penalty is not None

    def logits_fn(params: PyTree, x: Any) -> Float[Array, "B C"]:
        if penalty.batch_norm == "train":
            return network.train_mode(params, x)[0]
        return network.eval_mode(params, x)

    split_over = axis_name if is_split else None
    chunk_size = None
    if settings.microbatches > 1:
        chunk_size = -(-labels.shape[0] // settings.microbatches)
    penalty_fn = penalty_function(
        penalty, logits_fn, inputs, labels, key, chunk_size, split_over
    )
    params = axes.vary(network.params, axes.names(split_over))
    value, gradient = jax.value_and_grad(penalty_fn)(params)
    return value, gradient if is_split else _on_the_first(gradient, axis_name)


class PenalisedBatch(NamedTuple):
    """What a penalty may look at beside the network."""

    inputs: Float[Array, "B ..."]
    labels: Int[Array, " B"]
    key: Key[Array, ""]


# The choices of ``penalty.name``; None: no penalty whose gradient is added.
PENALTIES: Mapping[str, Callable[..., Float[Array, ""]] | None] = {
    "none": None,
    "fisher": lambda logits_fn, params, batch, settings, options: (
        penalties.fisher_penalty(
            logits_fn,
            params,
            batch.inputs,
            batch.key,
            draw=settings.draw,
            method=settings.method,
            **options,
        )
    ),
    "fisher_single": lambda logits_fn, params, batch, settings, options: (
        penalties.single_example_fisher_penalty(
            logits_fn, params, batch.inputs, batch.key, method=settings.method
        )
    ),
    "gradient": lambda logits_fn, params, batch, settings, options: (
        penalties.gradient_penalty(
            logits_fn,
            params,
            batch.inputs,
            batch.labels,
            method=settings.method,
            **options,
        )
    ),
    "random_label": lambda logits_fn, params, batch, settings, options: (
        penalties.random_label_penalty(
            logits_fn,
            params,
            batch.inputs,
            batch.key,
            method=settings.method,
            **options,
        )
    ),
    "input_gradient": lambda logits_fn, params, batch, settings, options: (
        penalties.input_gradient_penalty(
            logits_fn, params, batch.inputs, batch.labels, **options
        )
    ),
    "gradient_norm": None,  # changes the gradient itself, in every step
}


def penalty_function(
    settings: PenaltySettings,
    logits_fn: Callable[[PyTree, Any], Float[Array, "B C"]],
    inputs: Float[Array, "B ..."],
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Callable[[PyTree], Float[Array, ""]]:
    """Returns params -> penalty, the one that ``settings.name`` says.

    Raises:
        ValueError: the name is not one of PENALTIES with a function.
    """
    penalty = PENALTIES.get(settings.name)
    if penalty is None:
        raise ValueError(f"no penalty {settings.name!r}, one of {', '.join(PENALTIES)}")
    batch = PenalisedBatch(inputs, labels, key)
    options = {"chunk_size": chunk_size, "axis_name": axis_name}
    return lambda params: penalty(logits_fn, params, batch, settings, options)


def kept_spec(shape: tuple[int, ...], devices: int, axis: str) -> PartitionSpec:
    """How a kept gradient of this shape is scattered: along what the devices divide.

    What they do not divide in any direction, a small array, every device keeps whole.
    """
    split = _split_dimension(shape, devices)
    if split is None:
        return PartitionSpec()
    return PartitionSpec(*[None] * split, axis)


def keep(part: PyTree, axis_name: axes.AxisName) -> PyTree:
    """Sums the devices' parts of a gradient and leaves each with its piece."""
    names = axes.names(axis_name)
    if not names:
        return part

    def one(leaf: Array) -> Array:
        split = _split_dimension(leaf.shape, axes.size(names))
        if split is None:
            return jax.lax.psum(leaf, names)
        return jax.lax.psum_scatter(leaf, names, scatter_dimension=split, tiled=True)

    return jax.tree.map(one, part)


def kept_part(kept: PyTree, like: PyTree, axis_name: axes.AxisName) -> PyTree:
    """This device's part of a kept gradient: its piece, and zeros elsewhere.

    Args:
        kept: the device's pieces.
        like: of the whole gradient's shapes.
    """
    names = axes.names(axis_name)
    if not names:
        return kept

    def one(piece: Array, whole: Array) -> Array:
        split = _split_dimension(whole.shape, axes.size(names))
        if split is None:
            return _on_the_first(piece, names)
        zeros = axes.vary(jnp.zeros(whole.shape, piece.dtype), names)
        first = jax.lax.axis_index(names) * piece.shape[split]
        return jax.lax.dynamic_update_slice_in_dim(zeros, piece, first, split)

    return jax.tree.map(one, kept, like)


def _split_dimension(shape: tuple[int, ...], devices: int) -> int | None:
    return next((i for i, n in enumerate(shape) if n and n % devices == 0), None)


def _on_the_first(tree: PyTree, axis_name: axes.AxisName) -> PyTree:
    """Zeros but on the first device, so that the sum over devices is the tree."""
    names = axes.names(axis_name)
    if not names:
        return tree
    is_first: Bool[Array, ""] = jax.lax.axis_index(names) == 0
    return jax.tree.map(lambda a: jnp.where(is_first, a, jnp.zeros_like(a)), tree)
