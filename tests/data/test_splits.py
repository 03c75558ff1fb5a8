import numpy as np
import pytest

from fisher_jax.data.errors import DataError
from fisher_jax.data.splits import split_examples


def test_values_never_change():
    train_ids, validation_ids = split_examples(3, 20, 4, 6)
    assert train_ids.tolist() == [3, 5, 6, 9, 15, 16]
    assert validation_ids.tolist() == [11, 14, 17, 19]


@pytest.mark.parametrize("num_train", [None, 1, 30, 90])
def test_parts_are_sorted_disjoint_and_of_the_right_size(num_train):
    train_ids, validation_ids = split_examples(0, 100, 10, num_train)
    assert train_ids.dtype == validation_ids.dtype == np.int64
    assert len(validation_ids) == 10
    assert len(train_ids) == (num_train or 90)
    both = np.concatenate([train_ids, validation_ids])
    assert len(np.unique(both)) == len(both)
    assert both.min() >= 0
    assert both.max() < 100
    for ids in (train_ids, validation_ids):
        np.testing.assert_array_equal(ids, np.sort(ids))


def test_subsets_are_nested_and_share_the_validation_examples():
    small, validation = split_examples(7, 1000, 100, 50)
    large, same_validation = split_examples(7, 1000, 100, 500)
    assert set(small) < set(large)
    np.testing.assert_array_equal(validation, same_validation)


def test_seeds_differ_and_every_example_is_equally_likely():
    counts = np.zeros(50)
    num_seeds = 2000
    for seed in range(num_seeds):
        counts[split_examples(seed, 50, 10, None)[1]] += 1
    sem = np.sqrt(0.2 * 0.8 / num_seeds)
    assert np.abs(counts / num_seeds - 0.2).max() < 4.5 * sem


def test_nothing_held_out():
    train_ids, validation_ids = split_examples(0, 5, 0, None)
    np.testing.assert_array_equal(train_ids, np.arange(5))
    assert len(validation_ids) == 0


@pytest.mark.parametrize(
    ("num_validation", "num_train", "message"),
    [
        (-1, None, "num_validation=-1 must be between 0 and 99"),
        (100, None, "num_validation=100 must be between 0 and 99"),
        (10, 91, "num_train=91 must be between 1 and 90"),
        (10, 0, "num_train=0 must be between 1 and 90"),
        (0, -5, "num_train=-5 must be between 1 and 100"),
    ],
)
def test_impossible_sizes(num_validation, num_train, message):
    with pytest.raises(DataError, match=message):
        split_examples(0, 100, num_validation, num_train)
