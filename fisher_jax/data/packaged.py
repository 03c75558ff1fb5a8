"""Sets that come with an installed package: scikit-learn's digits, so far.

digits are 1797 real handwritten images of 8×8 pixels. A set of your own is a function
and a line in PACKAGED.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int64

from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.random_bits import random_bits

_NUM_CLASSES = 10
_NUM_TRAIN = 1000
_SPLIT_SEED = 0
_LARGEST_VALUE = 16


def load_digits() -> Source:
    """Returns the 1797 images, 1000 to train on and 797 to test on.

    Values 0 to 16 are scaled to 0 to 255 and rounded. The split is fixed, whatever a
    run's seed: each class gives its share of the 1000 (largest remainders), and within
    a class the examples with the smallest random numbers of a fixed seed train. Both
    parts keep the file's order.

    Returns:
        Source with images uint8 [1000, 8, 8, 1] and [797, 8, 8, 1].
    """
    # Over a second of a start; sources.py keeps what is loaded in the cache.
    from sklearn import datasets

    digits = datasets.load_digits()
    scaled = np.rint(digits.data * (255 / _LARGEST_VALUE)).astype(np.uint8)
    images = scaled.reshape(-1, 8, 8, 1)
    labels = digits.target.astype(np.int32)
    train_ids = _stratified_ids(labels)
    test_ids = np.setdiff1d(np.arange(len(labels)), train_ids)
    return Source(
        name="digits",
        train=ImageSet(images[train_ids], labels[train_ids]),
        test=ImageSet(images[test_ids], labels[test_ids]),
        num_classes=_NUM_CLASSES,
        label_names=tuple(str(digit) for digit in range(_NUM_CLASSES)),
    )


def _stratified_ids(labels: np.ndarray) -> Int64[np.ndarray, "t"]:
    """Returns the sorted ids of the 1000 training examples."""
    shares = np.bincount(labels, minlength=_NUM_CLASSES) * (_NUM_TRAIN / len(labels))
    counts = shares.astype(np.int64)
    by_remainder = np.argsort(counts - shares, kind="stable")
    counts[by_remainder[: _NUM_TRAIN - counts.sum()]] += 1
    priority = random_bits(_SPLIT_SEED, "digits split", len(labels))[:, 0]
    order = np.argsort(priority, kind="stable")
    chosen = [
        order[labels[order] == digit][:count] for digit, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(chosen))


# What loads each set, and the package that it comes with.
PACKAGED: Mapping[str, tuple[Callable[[], Source], str]] = {
    "digits": (load_digits, "scikit-learn"),
}
