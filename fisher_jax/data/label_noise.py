"""Uniform label noise, drawn once per example id."""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from fisher_jax.data.errors import DataError
from fisher_jax.data.random_bits import integers_below, random_bits, unit_interval


class NoisyLabels(NamedTuple):
    """Labels after noise.

    Attributes:
        labels: int32 [N].
        is_noisy: bool [N], true where the label differs from the true one.
        effective_rate: Fraction of labels that differ; on average
            rate * (1 - 1/num_classes), because a draw may hit the true class.
    """

    labels: Int32[np.ndarray, "n"]
    is_noisy: Bool[np.ndarray, "n"]
    effective_rate: float


def add_label_noise(
    seed: int,
    example_ids: Int[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    num_classes: int,
    rate: float,
) -> NoisyLabels:
    """Replaces each label, with probability ``rate``, by a uniform draw of a class.

    The draw is over all classes and may hit the true one: such an example counts as
    clean. What happens to an example is a function of (seed, id, rate), so it is the
    same in every subset, order, batch and process; the examples changed at a rate
    are among those changed at a higher rate, to the same labels.

    Args:
        seed: Selects the draw.
        example_ids: [N] ids, each at least 0.
        labels: [N] true labels.
        num_classes: Number of classes.
        rate: Probability in [0, 1].

    Returns:
        NoisyLabels with N entries, in the order given.

    Raises:
        DataError: Where the rate is outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise DataError(f"dataset.label_noise={rate} must be between 0 and 1")
    true_labels = np.asarray(labels, np.int32)
    num_blocks = int(np.max(example_ids, initial=-1)) + 1
    bits = random_bits(seed, "label noise", num_blocks)[example_ids]
    is_replaced = unit_interval(bits[:, 0]) < rate
    drawn = integers_below(bits[:, 1], num_classes).astype(np.int32)
    noisy_labels = np.where(is_replaced, drawn, true_labels)
    is_noisy = noisy_labels != true_labels
    effective_rate = float(is_noisy.mean()) if is_noisy.size else 0.0
    return NoisyLabels(noisy_labels, is_noisy, effective_rate)


def label_hash(example_ids: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"]) -> str:
    """Returns 32 hex digits that identify which label each example has.

    Args:
        example_ids: [N] ids.
        labels: [N] labels.

    Returns:
        The hash of the (id, label) pairs in the order of the ids, so the order in
        which they are given does not matter; the same on every machine.
    """
    order = np.argsort(example_ids, kind="stable")
    pairs = np.stack([np.asarray(example_ids), np.asarray(labels)], axis=1)[order]
    return hashlib.blake2b(pairs.astype("<i8").tobytes(), digest_size=16).hexdigest()
