import numpy as np
import pytest

from fisher_jax.data.selection import add_label_noise, label_hash, split_examples
from fisher_jax.errors import DataError

IDS = np.arange(20)
LABELS = IDS % 10


def test_drawn_examples_never_change():
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


def test_splits_of_seeds_differ_and_every_example_is_equally_likely():
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


def test_noise_never_changes():
    noisy = add_label_noise(0, IDS, LABELS, 10, 0.5)
    expected = [4, 5, 7, 6, 8, 5, 7, 8, 1, 9, 3, 0, 9, 0, 4, 5, 7, 2, 6, 1]
    assert noisy.labels.tolist() == expected
    assert label_hash(IDS, noisy.labels) == "e486ba4917f6133ad71bd68615938ef6"


def test_what_is_returned():
    noisy = add_label_noise(0, IDS, LABELS, 10, 0.5)
    assert noisy.labels.dtype == np.int32
    assert noisy.is_noisy.dtype == bool
    np.testing.assert_array_equal(noisy.is_noisy, noisy.labels != LABELS)
    assert noisy.effective_rate == noisy.is_noisy.mean()


def test_no_noise_changes_nothing():
    noisy = add_label_noise(3, IDS, LABELS, 10, 0.0)
    np.testing.assert_array_equal(noisy.labels, LABELS)
    assert noisy.effective_rate == 0.0


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_noise_statistics(rate, num_classes):
    num_examples = 50_000
    ids = np.arange(num_examples)
    labels = ids % num_classes
    noisy = add_label_noise(1, ids, labels, num_classes, rate)
    expected = rate * (1 - 1 / num_classes)
    sem = np.sqrt(expected * (1 - expected) / num_examples)
    assert abs(noisy.effective_rate - expected) < 4 * sem
    # Every wrong class is as likely as any other, whatever the true one.
    shift = (noisy.labels - labels)[noisy.is_noisy] % num_classes
    counts = np.bincount(shift, minlength=num_classes)[1:] / len(shift)
    probability = 1 / (num_classes - 1)
    sem = np.sqrt(probability * (1 - probability) / len(shift))
    assert np.abs(counts - probability).max() <= 5 * sem


def test_what_happens_to_an_example_depends_on_its_id_alone():
    ids = np.arange(1000)
    labels = ids % 7
    everything = add_label_noise(4, ids, labels, 7, 0.4)
    subset = np.random.default_rng(0).permutation(1000)[:123]
    part = add_label_noise(4, subset, labels[subset], 7, 0.4)
    np.testing.assert_array_equal(part.labels, everything.labels[subset])
    np.testing.assert_array_equal(part.is_noisy, everything.is_noisy[subset])


def test_a_higher_rate_changes_more_and_the_same_to_the_same():
    ids = np.arange(5000)
    low = add_label_noise(4, ids, ids % 7, 7, 0.2)
    high = add_label_noise(4, ids, ids % 7, 7, 0.6)
    assert low.is_noisy.sum() < high.is_noisy.sum()
    np.testing.assert_array_equal(low.labels[low.is_noisy], high.labels[low.is_noisy])


def test_noise_of_seeds_differs():
    drawn = {
        add_label_noise(seed, IDS, LABELS, 10, 0.5).labels.tobytes()
        for seed in range(10)
    }
    assert len(drawn) == 10


def test_no_examples():
    noisy = add_label_noise(0, np.arange(0), np.arange(0), 10, 0.5)
    assert noisy.labels.shape == (0,)
    assert noisy.effective_rate == 0.0


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
def test_impossible_rate(rate):
    with pytest.raises(DataError, match=r"label_noise=.* must be between 0 and 1"):
        add_label_noise(0, IDS, LABELS, 10, rate)


def test_hash_knows_pairs_and_not_their_order():
    order = np.random.default_rng(0).permutation(20)
    assert label_hash(IDS, LABELS) == label_hash(IDS[order], LABELS[order])
    as_int32 = label_hash(IDS.astype(np.int32), LABELS.astype(np.int32))
    assert label_hash(IDS, LABELS) == as_int32
    assert label_hash(IDS, LABELS) != label_hash(IDS + 1, LABELS)
    changed = LABELS.copy()
    changed[7] += 1
    assert label_hash(IDS, LABELS) != label_hash(IDS, changed)
