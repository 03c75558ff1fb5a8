from collections import Counter

import numpy as np
import pytest

from fisher_jax.data.batches import (
    batch_indices,
    epoch_order,
    fresh_indices,
    steps_per_epoch,
)
from fisher_jax.errors import DataError


def test_values_never_change():
    order = [9, 1, 6, 11, 0, 4, 8, 3, 2, 5, 10, 7]
    assert epoch_order(0, 0, 12).tolist() == order
    assert batch_indices(7, 5, 10, 4).tolist() == [8, 7, 2, 6]


def test_an_order_is_a_permutation_and_cannot_be_written():
    order = epoch_order(1, 2, 1000)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    with pytest.raises(ValueError, match="read-only"):
        order[0] = 0


def test_seeds_and_epochs_have_their_own_orders():
    orders = {
        epoch_order(seed, epoch, 50).tobytes()
        for seed in range(5)
        for epoch in range(20)
    }
    assert len(orders) == 100


def test_every_place_is_equally_likely():
    num_orders = 4000
    orders = np.stack([epoch_order(0, epoch, 8) for epoch in range(num_orders)])
    frequencies = np.stack([(orders == i).mean(axis=0) for i in range(8)])
    sem = np.sqrt(1 / 8 * 7 / 8 / num_orders)
    assert np.abs(frequencies - 1 / 8).max() < 4.5 * sem


def test_batches_of_an_epoch_are_its_order():
    num_examples, batch_size = 103, 10
    assert steps_per_epoch(num_examples, batch_size) == 10
    for epoch in range(3):
        steps = range(10 * epoch, 10 * epoch + 10)
        batches = [batch_indices(5, step, num_examples, batch_size) for step in steps]
        assert {batch.shape for batch in batches} == {(10,)}
        order = epoch_order(5, epoch, num_examples)
        np.testing.assert_array_equal(np.concatenate(batches), order[:100])


def test_a_step_can_be_asked_for_at_once():
    in_turn = [batch_indices(5, step, 64, 16).copy() for step in range(40)]
    epoch_order.cache_clear()
    np.testing.assert_array_equal(batch_indices(5, 37, 64, 16), in_turn[37])


def test_other_examples_are_left_out_in_each_epoch():
    left_out = {int(epoch_order(0, epoch, 101)[100]) for epoch in range(50)}
    assert len(left_out) > 30


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_impossible_batch_size(batch_size):
    with pytest.raises(DataError, match=r"batch_size=.* must be between 1 and 10"):
        steps_per_epoch(10, batch_size)
    with pytest.raises(DataError, match=r"batch_size=.* must be between 1 and 10"):
        batch_indices(0, 0, 10, batch_size)


def test_fresh_rows_are_distinct_and_others_at_each_step_and_seed():
    drawn = [fresh_indices(seed, step, 100, 40) for seed in (0, 1) for step in range(9)]
    for rows in drawn:
        assert len(set(rows.tolist())) == 40
        assert 0 <= rows.min() <= rows.max() < 100
    assert len({rows.tobytes() for rows in drawn}) == len(drawn)
    assert fresh_indices(5, 3, 7, 7).tolist() == list(range(7))
    assert fresh_indices(7, 5, 20, 4).tolist() == fresh_indices(7, 5, 20, 4).tolist()


def test_every_set_of_fresh_rows_is_equally_likely():
    """All 15 pairs of 6 rows; 4.5 standard errors of each frequency."""
    num_steps = 6000
    pairs = Counter(tuple(fresh_indices(0, step, 6, 2)) for step in range(num_steps))
    assert len(pairs) == 15
    frequencies = np.array(list(pairs.values())) / num_steps
    sem = np.sqrt(1 / 15 * 14 / 15 / num_steps)
    assert np.abs(frequencies - 1 / 15).max() < 4.5 * sem
