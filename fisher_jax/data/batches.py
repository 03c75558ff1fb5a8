"""Which examples a step trains or is measured on: a pure function of (seed, step).

So there is nothing to save for resuming: step 1234 draws the same batch whether the
run was interrupted or not, and any step can be asked for at once.
"""

import functools

import numpy as np
from jaxtyping import Int32

from fisher_jax.data.random_bits import integers_below, random_bits, random_words
from fisher_jax.errors import DataError


# Every step of an epoch asks for the same order, and sorting costs milliseconds.
@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_examples: int) -> Int32[np.ndarray, "n"]:
    """Returns the order in which an epoch visits the examples.

    Returns:
        int32 [N], a uniformly random permutation of 0 to N - 1; read-only, because
        callers share it.
    """
    priority = random_bits(seed, "epoch order", num_examples, epoch=epoch)[:, 0]
    order = np.argsort(priority, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns the number of whole batches in an epoch.

    The examples that fill no whole batch are left out, others in each epoch.

    Raises:
        DataError: where the batch size is below 1 or above num_examples.
    """
    if not 1 <= batch_size <= num_examples:
        raise DataError(
            f"train.batch_size={batch_size} must be between 1 and {num_examples}, the "
            "number of training examples"
        )
    return num_examples // batch_size


def batch_indices(
    seed: int, step: int, num_examples: int, batch_size: int
) -> Int32[np.ndarray, "b"]:
    """Returns the rows of the training set that a step trains on.

    Args:
        seed: selects the orders of a run.
        step: counted from 0 over the whole run; step // steps_per_epoch is the epoch.
        num_examples: number of training examples N.
        batch_size: examples a batch, B.

    Returns:
        int32 [B], distinct rows in [0, N); read-only. Within an epoch no row comes
        twice.

    Raises:
        DataError: where the batch size is below 1 or above num_examples.
    """
    epoch, position = divmod(step, steps_per_epoch(num_examples, batch_size))
    start = position * batch_size
    return epoch_order(seed, epoch, num_examples)[start : start + batch_size]


def fresh_indices(
    seed: int, step: int, num_examples: int, count: int
) -> Int32[np.ndarray, "c"]:
    """Returns rows that are drawn anew at each step, for measuring at every step.

    Floyd's algorithm: every set of rows is equally likely, in time that does not grow
    with the number of examples.

    Returns:
        int32 [C], distinct rows in [0, N), increasing.
    """
    words = random_words(seed, "fresh examples", count, step=step, row=0)
    chosen: set[int] = set()
    for word, last in zip(
        words, range(num_examples - count, num_examples), strict=True
    ):
        row = int(integers_below(word, last + 1))
        chosen.add(last if row in chosen else row)
    return np.array(sorted(chosen), np.int32)
