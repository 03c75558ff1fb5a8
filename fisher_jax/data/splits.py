"""Which examples of a training split are trained on, and which validate."""

import numpy as np
from jaxtyping import Int64

from fisher_jax.data.errors import DataError
from fisher_jax.data.random_bits import random_bits


def split_examples(
    seed: int, num_examples: int, num_validation: int, num_train: int | None
) -> tuple[Int64[np.ndarray, "t"], Int64[np.ndarray, "v"]]:
    """Draws disjoint training and validation examples.

    Every example gets a random 64-bit number, a function of (seed, id). In the order
    of these numbers the first ``num_validation`` validate and the next ``num_train``
    train. So a smaller ``num_train`` takes a subset of the larger one's examples, and
    the validation examples are the same for every ``num_train``.

    Args:
        seed: Selects the draw.
        num_examples: Number of examples N in the split; ids are 0 to N - 1.
        num_validation: Number of examples to hold out, 0 or more.
        num_train: Number of examples to train on; None takes all that remain.

    Returns:
        (train_ids, validation_ids), both int64 and sorted.

    Raises:
        DataError: Where a size is negative, no training example would remain, or
            more examples are asked for than there are.
    """
    if not 0 <= num_validation < num_examples:
        raise DataError(
            f"dataset.num_validation={num_validation} must be between 0 and "
            f"{num_examples - 1}: there are {num_examples} training examples"
        )
    num_left = num_examples - num_validation
    num_train = num_left if num_train is None else num_train
    if not 1 <= num_train <= num_left:
        raise DataError(
            f"dataset.num_train={num_train} must be between 1 and {num_left}: there "
            f"are {num_examples} training examples, {num_validation} of them held "
            "out for validation"
        )
    priority = random_bits(seed, "split", num_examples)[:, 0]
    order = np.argsort(priority, kind="stable")
    validation_ids = order[:num_validation]
    train_ids = order[num_validation : num_validation + num_train]
    return np.sort(train_ids), np.sort(validation_ids)
