"""Random numbers as a pure function of (seed, purpose, example id).

They come from numpy's Philox, a counter-based generator: its key is (seed, purpose)
and example id i owns the i-th block of its counter. So the numbers of an example do
not depend on how many examples there are, on a batch, a subset, an order, a device
or a process, and numpy promises that a bit generator's raw output never changes.
"""

import hashlib

import numpy as np
from jaxtyping import Float64, UInt64

_WORDS_PER_BLOCK = 4
_WORD = 2**64


def _purpose_word(purpose: str) -> int:
    """Returns 64 bits that stand for a purpose, so that purposes never share draws."""
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest())


def random_bits(
    seed: int, purpose: str, num_examples: int, *, epoch: int = 0
) -> UInt64[np.ndarray, "n 4"]:
    """Returns four random 64-bit words for each of the examples 0 to num_examples - 1.

    Args:
        seed: any integer; seeds equal modulo 2^64 give the same numbers.
        purpose: what the numbers are for, such as "label noise". Numbers for
            different purposes are independent.
        num_examples: number of examples N.
        epoch: selects another, independent block of numbers; at least 0.

    Returns:
        uint64 [N, 4], uniform over 0 to 2^64 - 1. Row i is a function of (seed,
        purpose, epoch, i) alone.
    """
    # The epoch is the highest word of the 256-bit counter, which counting through
    # examples never reaches.
    generator = np.random.Philox(
        key=np.array([seed % _WORD, _purpose_word(purpose)], np.uint64),
        counter=np.array([0, 0, 0, epoch], np.uint64),
    )
    words = generator.random_raw(_WORDS_PER_BLOCK * num_examples)
    return words.reshape(num_examples, _WORDS_PER_BLOCK)


def random_words(
    seed: int, purpose: str, num_words: int, *, step: int, row: int
) -> UInt64[np.ndarray, "n"]:
    """Returns random 64-bit words for one row of one step's batch.

    Args:
        purpose: as for ``random_bits``, and none that it is used for.
        num_words: number of words N; a smaller one gives the first of a larger one's.
        step: counted from 0 over the run.

    Returns:
        uint64 [N], uniform over 0 to 2^64 - 1; a function of the arguments alone.
    """
    # Words of one row count up the lowest word of the counter.
    generator = np.random.Philox(
        key=np.array([seed % _WORD, _purpose_word(purpose)], np.uint64),
        counter=np.array([0, row, 0, step], np.uint64),
    )
    return generator.random_raw(num_words)


def unit_interval(bits: UInt64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Maps random words to float64 in [0, 1), multiples of 2^-53."""
    return (bits >> np.uint64(11)) * 2.0**-53


def integers_below(
    bits: UInt64[np.ndarray, "n"], bound: int
) -> UInt64[np.ndarray, "n"]:
    """Maps random words to integers 0 to bound - 1, each of near-equal probability.

    The product of the upper 32 bits with ``bound`` is shifted down, so probabilities
    differ from 1/bound by less than 2^-32.

    Args:
        bound: between 1 and 2^32.
    """
    return ((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)
