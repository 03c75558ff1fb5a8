import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax.data.device import (
    augment,
    channel_statistics,
    crop_randomly,
    flip_horizontally,
    normalise,
)
from fisher_jax.errors import DataError


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def all_crops(image: np.ndarray, padding: int = 4) -> np.ndarray:
    """Returns the crops of a padded image: [9, 9, H, W, C] for a padding of 4."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    shifts = range(2 * padding + 1)
    return np.stack(
        [
            np.stack([padded[i : i + height, j : j + width] for j in shifts])
            for i in shifts
        ]
    )


def test_none_changes_nothing():
    images = random_images(3, 8, 8, 1)
    result = augment(jax.random.key(0), images, "none")
    np.testing.assert_array_equal(result, images)


def test_flip_mirrors_about_half_of_the_images_and_no_other_thing():
    images = random_images(2000, 2, 3, 1)
    result = np.asarray(augment(jax.random.key(0), images, "flip"))
    is_same = (result == images).all(axis=(1, 2, 3))
    is_mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert np.all(is_same ^ is_mirrored)
    assert abs(is_mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 8, 1), (32, 32, 3)])
def test_a_crop_is_one_of_the_81(shape):
    images = random_images(20, *shape)
    result = np.asarray(crop_randomly(jax.random.key(1), images))
    assert result.shape == images.shape
    for image, cropped in zip(images, result, strict=True):
        is_equal = (all_crops(image) == cropped).all(axis=(2, 3, 4))
        assert is_equal.any()


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_crop_of_another_padding(padding):
    images = random_images(400, 4, 4, 1)
    result = augment(jax.random.key(1), images, "standard", padding)
    seen = {
        (int(place[0]), int(place[1]))
        for image, cropped in zip(images, np.asarray(result), strict=True)
        for turned in (cropped, cropped[:, ::-1])
        for place in np.argwhere((all_crops(image, padding) == turned).all((2, 3, 4)))
    }
    assert len(seen) == (2 * padding + 1) ** 2


def test_all_81_crops_are_equally_likely():
    num_images = 8100
    one_image = random_images(1, 9, 9, 1)
    images = jnp.asarray(np.repeat(one_image, num_images, axis=0))
    result = np.asarray(crop_randomly(jax.random.key(2), images))
    crops = all_crops(one_image[0]).reshape(81, -1)
    is_equal = (result.reshape(num_images, 1, -1)[:, :, :] == crops).all(axis=2)
    assert is_equal.sum() == num_images
    frequencies = is_equal.mean(axis=0)
    sem = np.sqrt(1 / 81 * 80 / 81 / num_images)
    assert np.abs(frequencies - 1 / 81).max() < 4.5 * sem


def test_standard_crops_and_flips():
    images = random_images(40, 8, 8, 3)
    result = np.asarray(augment(jax.random.key(3), images, "standard"))
    num_flipped = 0
    for image, changed in zip(images, result, strict=True):
        crops = all_crops(image)
        is_crop = (crops == changed).all(axis=(2, 3, 4)).any()
        is_flipped = (crops[..., ::-1, :] == changed).all(axis=(2, 3, 4)).any()
        assert is_crop or is_flipped
        num_flipped += is_flipped and not is_crop
    assert 5 < num_flipped < 35


@pytest.mark.parametrize("mode", ["flip", "standard"])
def test_a_function_of_the_key_compiled_or_not(mode):
    images = random_images(8, 8, 8, 3)
    compiled = jax.jit(augment, static_argnames="mode")
    eager = augment(jax.random.key(4), images, mode)
    np.testing.assert_array_equal(compiled(jax.random.key(4), images, mode), eager)
    assert np.any(np.asarray(augment(jax.random.key(5), images, mode)) != eager)
    assert eager.dtype == np.float32
    half = augment(jax.random.key(4), images.astype(jnp.bfloat16), mode)
    assert half.dtype == jnp.bfloat16


def test_crop_and_flip_are_drawn_independently():
    key = jax.random.key(6)
    crop_key, flip_key = jax.random.split(key)
    images = random_images(16, 8, 8, 3)
    expected = flip_horizontally(flip_key, crop_randomly(crop_key, images))
    np.testing.assert_array_equal(augment(key, images, "standard"), expected)


def test_unknown_mode():
    with pytest.raises(DataError, match="'strong' must be one of none, flip, standard"):
        augment(jax.random.key(0), random_images(1, 8, 8, 1), "strong")


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (7, 5, 3, 1), (1100, 32, 32, 3)])
def test_channel_statistics_against_float64(shape):
    images = random_bytes(*shape)
    images[..., 0] //= 3
    mean, std = channel_statistics(images)
    assert mean.dtype == std.dtype == np.float32
    pixels = images.reshape(-1, shape[-1]).astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-7)
    expected_std = pixels.std(axis=0)
    expected_std[expected_std == 0] = 1
    np.testing.assert_allclose(std, expected_std, rtol=1e-7)


def test_channel_statistics_do_not_depend_on_the_order():
    images = random_bytes(500, 8, 8, 3)
    for value, shuffled in zip(
        channel_statistics(images), channel_statistics(images[::-1]), strict=True
    ):
        np.testing.assert_array_equal(value, shuffled)


def test_a_constant_channel_has_standard_deviation_one():
    mean, std = channel_statistics(np.full((3, 4, 4, 2), [0, 51], np.uint8))
    np.testing.assert_array_equal(mean, np.float32([0, 0.2]))
    np.testing.assert_array_equal(std, [1, 1])


def test_a_nearly_constant_channel_is_exact():
    images = np.full((4000, 16, 16, 1), 200, np.uint8)
    images[0, 0, 0, 0] = 201
    count = images.size
    _, std = channel_statistics(images)
    expected = np.sqrt((1 / count) * (1 - 1 / count)) / 255
    np.testing.assert_allclose(std, expected, rtol=1e-7)


def test_normalised_images_have_mean_zero_and_deviation_one():
    images = random_bytes(200, 8, 8, 3)
    result = np.asarray(normalise(images, *channel_statistics(images)), np.float64)
    np.testing.assert_allclose(result.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std(axis=(0, 1, 2)), 1, rtol=1e-6)


def test_normalise_against_numpy():
    images = random_bytes(3, 4, 4, 2)
    mean, std = np.float32([0.2, 0.7]), np.float32([0.3, 1.5])
    result = normalise(images, mean, std)
    assert result.dtype == np.float32
    expected = (images.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


_ON_FOUR_DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from fisher_jax.data.device import augment

images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)
one = augment(jax.random.key(7), images, "standard")
mesh = Mesh(np.array(jax.devices()), ("batch",))
sharding = NamedSharding(mesh, PartitionSpec("batch"))
compiled = jax.jit(augment, static_argnames="mode", out_shardings=sharding)
spread = jax.device_put(images, sharding)
four = compiled(jax.random.key(7), spread, mode="standard")
assert len(four.sharding.device_set) == 4
np.testing.assert_array_equal(one, four)
text = compiled.lower(jax.random.key(7), spread, mode="standard").compile().as_text()
assert "all-gather" not in text, text
print("same")
"""


def test_the_same_on_four_devices_and_without_gathering_the_batch():
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, "-c", _ON_FOUR_DEVICES],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout == "same\n", process.stderr
