"""Area resampling against a plain loop over pixels, in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from fisher_jax.data.image_set import area_means, resample
from fisher_jax.data.sources import load_source
from fisher_jax.errors import DataError


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def by_a_loop(image, size):
    """Each output pixel: the sum over all pixels of covered area times value."""
    height, width, channels = image.shape
    out = np.zeros((size, size, channels), np.uint8)

    def covered(index, pixel, length):
        side = Fraction(length, size)
        start, end = max(index * side, pixel), min((index + 1) * side, pixel + 1)
        return max(end - start, Fraction(0)) / side

    for i, j, c in np.ndindex(out.shape):
        out[i, j, c] = round(
            sum(
                covered(i, y, height) * covered(j, x, width) * int(image[y, x, c])
                for y in range(height)
                for x in range(width)
            )
        )
    return out


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8, 1), 4), ((8, 8, 1), 3), ((7, 5, 3), 5), ((6, 9, 2), 4)]
)
def test_every_pixel_is_the_mean_of_its_area(shape, size):
    given = images(4, *shape)
    result = area_means(given, size)
    assert result.dtype == np.uint8
    for image, small in zip(given, result, strict=True):
        np.testing.assert_array_equal(small, by_a_loop(image, size))


def test_where_it_divides_it_is_the_mean_of_blocks():
    given = images(1001, 32, 32, 3)  # more than are computed at once
    blocks = given.reshape(1001, 16, 2, 16, 2, 3).astype(int).sum(axis=(2, 4))
    np.testing.assert_array_equal(area_means(given, 16), np.rint(blocks / 4))


def test_halves_go_to_the_even_neighbour():
    given = np.array([[[0, 1], [1, 0]], [[1, 2], [2, 1]]], np.uint8)[..., None]
    np.testing.assert_array_equal(area_means(given, 1).ravel(), [0, 2])


def test_its_own_size_changes_nothing():
    given = images(3, 7, 7, 2)
    np.testing.assert_array_equal(area_means(given, 7), given)


def test_a_whole_source():
    digits = load_source("digits", None)
    assert resample(digits, None) is digits
    small = resample(digits, 4)
    assert small.train.images.shape == (1000, 4, 4, 1)
    assert small.test.images.shape == (797, 4, 4, 1)
    np.testing.assert_array_equal(small.test.labels, digits.test.labels)
    with pytest.raises(DataError, match=r"image_size=9 exceeds .* 8x8 pixels"):
        resample(digits, 9)
