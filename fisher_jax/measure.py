"""What is recorded along a run, computed from a state and fixed probe examples.

Everything here is in evaluation mode: no augmentation, batch norm with its running
statistics. Values are floats under the metric names of a run's metrics.jsonl.
``logits_fn`` is a ``jax.tree_util.Partial`` (a function of constants that are arrays,
such as running statistics), so that new constants do not compile anew.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fisher_jax import parallel
from fisher_jax.axes import AxisName
from fisher_jax.curvature.estimates import Estimate
from fisher_jax.curvature.fisher import (
    Estimator,
    fisher_trace,
    minibatch_fisher_trace,
)
from fisher_jax.curvature.hessian import hessian_trace
from fisher_jax.curvature.likelihoods import Categorical, Draw, OutputsFn
from fisher_jax.data.device import (
    DeviceSplit,
    ScoredBatch,
    ScoredBatches,
    examples_at,
    filled,
    normalised,
)
from fisher_jax.trees import Precision, highest_precision, inner, unknown

# Batches that may be under way on the device: enough to keep it busy, few enough that
# those read from disk do not fill its memory.
_BATCHES_UNDER_WAY = 3


class MeasureSettings(NamedTuple):
    """How Tr(F) and Tr(H) are estimated.

    Attributes:
        estimator_repeats: of every estimator, to tell its error; 0: not told.
        precision: of the matrix products of Tr(F) and Tr(H); see ``fisher_trace``.
        minibatch_size: B of Tr(F_B).
        chunk_size: examples of Tr(F) in memory at a time, on each device.
        mesh: the devices over which examples are spread; None: the default device.
    """

    fisher_estimator: Estimator = "per_example"
    fisher_draw: Draw = "rademacher"
    hessian_probes: int = 0
    minibatch_size: int = 128
    chunk_size: int = 128
    mesh: Mesh | None = None
    estimator_repeats: int = 0
    precision: Precision = "highest"


class Splits(NamedTuple):
    """What is scored of each split; ``train`` may be a part of what is trained on."""

    train: ScoredBatches
    validation: ScoredBatches | None
    test: ScoredBatches


class Probe(NamedTuple):
    """Rows, of training examples, for each quantity; empty = not measured."""

    fisher_ids: Int[np.ndarray, " F"]
    hessian_ids: Int[np.ndarray, " H"]
    clean_ids: Int[np.ndarray, " G"]
    noisy_ids: Int[np.ndarray, " G"]


class SplitScores(NamedTuple):
    """Mean loss and accuracies of a split; nan where there is no such example."""

    loss: float
    accuracy: float
    clean_accuracy: float
    noisy_accuracy: float


class _Sums(NamedTuple):
    """Sums over the valid examples of one batch."""

    loss: Float[Array, ""]
    examples: Int[Array, ""]
    correct: Int[Array, ""]
    noisy_examples: Int[Array, ""]
    noisy_correct: Int[Array, ""]


def choose_probe(
    order: Int[np.ndarray, " N"],
    is_noisy: Bool[np.ndarray, " N"],
    *,
    fisher_examples: int,
    hessian_examples: int,
    gradient_examples: int,
) -> Probe:
    """Takes the first examples of a fixed random order for each quantity.

    Gradients are compared of as many clean as noisy examples: of none where all labels
    are clean, or all are noisy.
    """
    in_order_noisy = is_noisy[order]
    clean, noisy = order[~in_order_noisy], order[in_order_noisy]
    number = min(gradient_examples, clean.size, noisy.size)
    clean, noisy = clean[:number], noisy[:number]
    return Probe(order[:fisher_examples], order[:hessian_examples], clean, noisy)


def score(
    logits_fn: OutputsFn, params: PyTree, batches: Iterable[ScoredBatch]
) -> SplitScores:
    """Returns the mean loss and accuracies of all valid examples of the batches."""
    sums: list[_Sums] = []
    for batch in batches:
        sums.append(score_batch(logits_fn, params, *batch))
        jax.block_until_ready(sums[-_BATCHES_UNDER_WAY:][0])
    totals = np.sum(np.array(jax.device_get(sums), np.float64), axis=0)
    loss, examples, correct, noisy_examples, noisy_correct = totals.tolist()
    return SplitScores(
        loss=loss / examples,
        accuracy=correct / examples,
        clean_accuracy=_ratio(correct - noisy_correct, examples - noisy_examples),
        noisy_accuracy=_ratio(noisy_correct, noisy_examples),
    )


def measure_scores(
    logits_fn: OutputsFn, params: PyTree, splits: Splits
) -> dict[str, float]:
    """Returns train/*, validation/* and test/*: mean cross-entropy and accuracies."""
    train = _score_split(logits_fn, params, splits.train)
    values = {
        "train/loss": train.loss,
        "train/accuracy": train.accuracy,
        "train/clean_accuracy": train.clean_accuracy,
        "train/noisy_accuracy": train.noisy_accuracy,
    }
    for name, split in (("validation", splits.validation), ("test", splits.test)):
        if split is not None:
            scores = _score_split(logits_fn, params, split)
            values[f"{name}/accuracy"] = scores.accuracy
            values[f"{name}/loss"] = scores.loss
    return values


def measure_fisher(
    logits_fn: OutputsFn,
    params: PyTree,
    train: DeviceSplit,
    ids: Int[np.ndarray, " F"],
    key: Key[Array, ""],
    settings: MeasureSettings,
) -> dict[str, float]:
    """Returns Tr(F) with its standard error, and the paper's Tr(F_B) of one batch.

    Spread over the devices where they divide the number of examples.
    """
    estimate_key, minibatch_key = jax.random.split(key)
    rows = parallel.place_rows(ids, settings.mesh)
    estimate = estimate_fisher(
        logits_fn, params, train, rows, estimate_key, settings=settings
    )
    rows = parallel.place_rows(ids[: settings.minibatch_size], settings.mesh)
    minibatch = estimate_fisher(
        logits_fn,
        params,
        train,
        rows,
        minibatch_key,
        settings=settings,
        of_minibatch=True,
    )
    return {
        "trace/fisher": float(estimate.mean),
        "trace/fisher_sem": float(estimate.sem),
        "trace/fisher_minibatch": float(minibatch.mean),
    }


def measure_hessian(
    logits_fn: OutputsFn,
    params: PyTree,
    train: DeviceSplit,
    ids: Int[np.ndarray, " H"],
    key: Key[Array, ""],
    settings: MeasureSettings,
) -> dict[str, float]:
    """Returns Tr(H) of the mean training loss, by Gaussian probes as in App. B."""
    padded = filled(ids, parallel.round_up(ids.size, settings.mesh))
    estimate = estimate_hessian(
        logits_fn,
        params,
        train,
        parallel.place_rows(padded, settings.mesh),
        ids.size,
        key,
        num_probes=settings.hessian_probes,
        precision=settings.precision,
    )
    return {
        "trace/hessian": float(estimate.mean),
        "trace/hessian_sem": float(estimate.sem),
    }


def measure_gradients(
    logits_fn: OutputsFn,
    params: PyTree,
    train: DeviceSplit,
    clean_ids: Int[np.ndarray, " G"],
    noisy_ids: Int[np.ndarray, " G"],
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Compares the mean gradients of clean and of noisy examples (section 4.1).

    Returns:
        Their norms ‖g_clean‖ and ‖g_noisy‖ and cosine(g_clean, g_noisy), nan where
        a norm is zero. Gradients are of the mean cross-entropy with the labels that
        are trained on.
    """
    size = parallel.round_up(max(clean_ids.size, noisy_ids.size), mesh)
    clean, noisy = (
        _mean_gradient(
            logits_fn,
            params,
            train,
            parallel.place_rows(filled(ids, size), mesh),
            ids.size,
        )
        for ids in (clean_ids, noisy_ids)
    )
    clean_norm = float(inner(clean, clean)) ** 0.5
    noisy_norm = float(inner(noisy, noisy)) ** 0.5
    product = clean_norm * noisy_norm
    return {
        "gradient/clean_norm": clean_norm,
        "gradient/noisy_norm": noisy_norm,
        "gradient/cosine": _ratio(float(inner(clean, noisy)), product),
    }


def online_fisher(
    total: float, squares: float, updates: float, num_examples: int
) -> dict[str, float]:
    """Returns B times the mean of a Fisher penalty's values since the last record.

    E‖(1/B) Σ g(x_i, ŷ_i)‖² = Tr(F)/B, so this estimates Tr(F) along the way without
    any further pass; its standard error from two updates on. It is that of a network
    that stands still: the trend between the updates counts as spread.

    Args:
        total, squares: sums of the penalty's values and of their squares.
        updates: how many they are; of none the result is empty.
        num_examples: B.
    """
    if not updates:
        return {}
    mean = total / updates
    online = {"trace/fisher_online": num_examples * mean}
    if updates > 1:
        variance = max(squares / updates - mean**2, 0.0) / (updates - 1)
        online["trace/fisher_online_sem"] = num_examples * variance**0.5
    return online


def _score_split(
    logits_fn: OutputsFn, params: PyTree, split: ScoredBatches
) -> SplitScores:
    # A signal may break this off: what reads the batches must not go on reading.
    with closing(split()) as batches:
        return score(logits_fn, params, batches)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


@partial(jax.jit, static_argnames=("settings", "of_minibatch"))
def estimate_fisher(
    logits_fn: OutputsFn,
    params: PyTree,
    split: DeviceSplit,
    rows: Int[Array, " F"],
    key: Key[Array, ""],
    *,
    settings: MeasureSettings,
    of_minibatch: bool = False,
) -> Estimate:
    """Tr(F), or Tr(F_B), of rows of a split that lies on every device.

    Each device sees its share of the rows where the devices divide them. In a plain
    jit, gradients per example of a batch that is split over devices would be gathered
    on all of them.
    """
    function = partial(_fisher, settings=settings, of_minibatch=of_minibatch)
    mesh = settings.mesh
    if mesh is not None and mesh.size > 1 and rows.shape[0] % mesh.size == 0:
        same, share = PartitionSpec(), PartitionSpec(mesh.axis_names)
        function = jax.shard_map(
            partial(function, axis_name=mesh.axis_names),
            mesh=mesh,
            in_specs=(same, same, same, share, same),
            out_specs=same,
        )
    return function(logits_fn, params, split, rows, key)


def _fisher(
    logits_fn: OutputsFn,
    params: PyTree,
    split: DeviceSplit,
    rows: Int[Array, " F"],
    key: Key[Array, ""],
    *,
    settings: MeasureSettings,
    of_minibatch: bool,
    axis_name: AxisName = None,
) -> Estimate:
    inputs, _ = examples_at(split, rows)
    if of_minibatch:
        trace = minibatch_fisher_trace(
            logits_fn,
            params,
            inputs,
            key,
            axis_name=axis_name,
            precision=settings.precision,
        )
        return Estimate(trace, unknown(trace))
    return fisher_trace(
        logits_fn,
        params,
        inputs,
        key,
        estimator=settings.fisher_estimator,
        draw=settings.fisher_draw,
        chunk_size=min(settings.chunk_size, rows.shape[0]),
        axis_name=axis_name,
        precision=settings.precision,
    )


@partial(jax.jit, static_argnames=("num_probes", "precision"))
def estimate_hessian(
    logits_fn: OutputsFn,
    params: PyTree,
    split: DeviceSplit,
    indices: Int[Array, " B"],
    num_valid: Int[Array, ""] | int,
    key: Key[Array, ""],
    *,
    num_probes: int,
    precision: Precision,
) -> Estimate:
    """Tr(H) of the mean loss of the first ``num_valid`` of the rows."""
    mean_loss = _mean_loss(logits_fn, split, indices, num_valid)
    return hessian_trace(
        mean_loss, params, key, num_probes=num_probes, precision=precision
    )


@jax.jit
@highest_precision
def _mean_gradient(
    logits_fn: OutputsFn,
    params: PyTree,
    split: DeviceSplit,
    indices: Int[Array, " B"],
    num_valid: Int[Array, ""] | int,
) -> PyTree:
    return jax.grad(_mean_loss(logits_fn, split, indices, num_valid))(params)


def _mean_loss(
    logits_fn: OutputsFn,
    split: DeviceSplit,
    indices: Int[Array, " B"],
    num_valid: Int[Array, ""] | int,
) -> Callable[[PyTree], Float[Array, ""]]:
    """params -> the mean cross-entropy of the first ``num_valid`` examples."""
    inputs, labels = examples_at(split, indices)

    def mean_loss(p: PyTree) -> Float[Array, ""]:
        losses = Categorical().loss(logits_fn(p, inputs), labels)
        is_valid = jnp.arange(indices.shape[0]) < num_valid
        return jnp.sum(jnp.where(is_valid, losses, 0.0)) / num_valid

    return mean_loss


@jax.jit
def score_batch(
    logits_fn: OutputsFn,
    params: PyTree,
    examples: DeviceSplit,
    num_valid: Int[Array, ""] | int,
) -> _Sums:
    """The sums of one batch, over its first ``num_valid`` examples."""
    labels = examples.labels
    logits = logits_fn(params, normalised(examples))
    is_valid = jnp.arange(labels.shape[0]) < num_valid
    is_correct = (jnp.argmax(logits, axis=-1) == labels) & is_valid
    is_noisy = examples.is_noisy & is_valid
    return _Sums(
        loss=jnp.sum(jnp.where(is_valid, Categorical().loss(logits, labels), 0.0)),
        examples=jnp.sum(is_valid),
        correct=jnp.sum(is_correct),
        noisy_examples=jnp.sum(is_noisy),
        noisy_correct=jnp.sum(is_correct & is_noisy),
    )
