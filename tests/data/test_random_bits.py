import numpy as np
import pytest

from fisher_jax.data.random_bits import (
    integers_below,
    random_bits,
    random_words,
    unit_interval,
)


def test_values_never_change():
    """Runs of different versions must see the same noise, splits and batches."""
    assert [hex(word) for word in random_bits(0, "label noise", 3)[:, 0]] == [
        "0x2142868f0d4dc472",
        "0x3fddd0fa27f9ca9b",
        "0x3ad1b5429a0395fd",
    ]
    assert [hex(word) for word in random_bits(-1, "split", 1, epoch=2)[0]] == [
        "0x8033c26332dd98c9",
        "0x13f966f7f42cb5af",
        "0x693d3e772eb77a4b",
        "0xc4905b7d1ebf3c1d",
    ]


@pytest.mark.parametrize("num_examples", [0, 1, 2, 17, 999])
def test_rows_do_not_depend_on_the_number_of_examples(num_examples):
    all_rows = random_bits(5, "split", 1000)
    rows = random_bits(5, "split", num_examples)
    assert rows.shape == (num_examples, 4)
    assert rows.dtype == np.uint64
    np.testing.assert_array_equal(rows, all_rows[:num_examples])


def test_seeds_purposes_and_epochs_share_no_words():
    blocks = [
        random_bits(seed, purpose, 200, epoch=epoch)
        for seed in (0, 1, 2**63)
        for purpose in ("split", "label noise")
        for epoch in (0, 1, 1000)
    ]
    words = np.concatenate([block.ravel() for block in blocks])
    assert len(np.unique(words)) == len(words)


def test_words_are_uniform_and_uncorrelated():
    num_examples = 100_000
    uniform = np.stack(
        [unit_interval(column) for column in random_bits(0, "test", num_examples).T]
    )
    assert uniform.min() >= 0
    assert uniform.max() < 1
    sem = np.sqrt(1 / 12 / num_examples)
    np.testing.assert_array_less(np.abs(uniform.mean(axis=1) - 0.5), 4 * sem)
    correlations = np.corrcoef(np.concatenate([uniform, np.roll(uniform, 1, axis=1)]))
    off_diagonal = correlations[~np.eye(8, dtype=bool)]
    assert np.abs(off_diagonal).max() < 4.5 / np.sqrt(num_examples)


def test_unit_interval_at_its_ends():
    ends = np.array([0, 2**64 - 1], np.uint64)
    np.testing.assert_array_equal(unit_interval(ends), [0, 1 - 2.0**-53])


@pytest.mark.parametrize("bound", [1, 2, 10, 1000, 2**32])
def test_integers_below_cover_the_range_evenly(bound):
    ends = integers_below(np.array([0, 2**64 - 1], np.uint64), bound)
    np.testing.assert_array_equal(ends, [0, bound - 1])
    num_draws = 50_000
    drawn = integers_below(random_bits(1, "test", num_draws)[:, 0], bound)
    scaled = (drawn.astype(float) + 0.5) / bound
    assert abs(scaled.mean() - 0.5) < 4 * np.sqrt(1 / 12 / num_draws)


def test_words_of_rows_and_steps_are_their_own():
    rows = [
        random_words(seed, "crop", 41, step=step, row=row)
        for seed in (0, 1)
        for step in (0, 1, 10**6)
        for row in (0, 1, 255)
    ]
    assert len(np.unique(rows)) == 41 * len(rows)
    again = random_words(1, "crop", 7, step=10**6, row=255)
    np.testing.assert_array_equal(again, rows[-1][:7])
    assert not np.isin(random_words(0, "crop", 41, step=1, row=0), rows[0]).any()
