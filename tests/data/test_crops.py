import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.synthetic_images import photograph
from fisher_jax.data import crops
from fisher_jax.data.crops import NUM_WORDS, centre_box, crop_pixels, random_box
from fisher_jax.data.random_bits import random_words
from fisher_jax.errors import DataError

SIZES = [(500, 375), (375, 500), (256, 256), (60, 300), (100, 75), (227, 224)]
has_fast_resizer = pytest.mark.skipif(
    crops._fast_resizer() is None, reason="SKIPPED LOUDLY: needs cykooz_resizer"
)


@pytest.fixture
def only_pillow(monkeypatch):
    monkeypatch.setattr(crops, "_fast_resizer", lambda: None)


def image_of(width: int, height: int, mode: str = "RGB") -> Image.Image:
    encoded = photograph(np.random.default_rng(0), width, height)
    return Image.open(io.BytesIO(encoded)).convert(mode)


def words(row: int) -> np.ndarray:
    return random_words(0, "crop and flip", NUM_WORDS, step=3, row=row)


def resized_then_cropped(image: Image.Image) -> np.ndarray:
    """As torchvision's Resize(256) and CenterCrop(224) do it."""
    shorter = min(image.size)
    width, height = (256 * side // shorter for side in image.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def check_equal_but_for_rounding(pixels: np.ndarray, expected: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    difference = np.abs(pixels.astype(int) - expected.astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.5


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_is_what_resizing_and_cropping_keep_with_pillow(size, only_pillow):
    image = image_of(*size)
    pixels = crop_pixels(image, "none", None, resize=256, crop=224)
    check_equal_but_for_rounding(pixels, resized_then_cropped(image))


@has_fast_resizer
@pytest.mark.parametrize("size", SIZES)
def test_the_centre_is_what_resizing_and_cropping_keep(size):
    image = image_of(*size)
    pixels = crop_pixels(image, "none", None, resize=256, crop=224)
    check_equal_but_for_rounding(pixels, resized_then_cropped(image))


@has_fast_resizer
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_both_resizers_agree(mode, monkeypatch):
    image = image_of(301, 207, mode)
    for row in range(5):
        both = []
        for fast in (crops._fast_resizer(), None):
            monkeypatch.setattr(crops, "_fast_resizer", lambda fast=fast: fast)
            both.append(
                crop_pixels(image, "standard", words(row), resize=256, crop=224)
            )
            monkeypatch.undo()
        difference = np.abs(both[0].astype(int) - both[1])
        assert difference.max() <= 1
        assert both[0].shape == (224, 224, {"L": 1, "RGB": 3, "RGBA": 4}[mode])


def test_a_random_box_fits_and_has_the_right_area_and_ratio():
    boxes = [random_box(words(row), 500, 375) for row in range(2000)]
    for box in boxes:
        assert 0 <= box.left < box.right <= 500
        assert 0 <= box.top < box.bottom <= 375
    width = np.array([box.right - box.left for box in boxes])
    height = np.array([box.bottom - box.top for box in boxes])
    area, ratio = width * height / (500 * 375), width / height
    assert 0.078 < area.min() < 0.09
    assert 0.9 < area.max() <= 1.0
    assert 0.74 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.35
    expected = expected_areas(np.random.default_rng(0), 20_000)
    error = area.std() / len(area) ** 0.5
    assert abs(area.mean() - expected.mean()) < 4 * error
    assert abs(area.std() - expected.std()) < 4 * error


def expected_areas(generator: np.random.Generator, count: int) -> np.ndarray:
    """Shares of a 500×375 image, drawn until they fit, as the definition says it."""
    areas = []
    while len(areas) < count:
        area = generator.uniform(0.08, 1) * 500 * 375
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if width <= 500 and height <= 375:
            areas.append(width * height / (500 * 375))
    return np.array(areas)


def test_a_random_box_lies_anywhere_with_equal_probability():
    boxes = [random_box(words(row), 64, 64) for row in range(4000)]
    room = [(b.left, 64 - b.right) for b in boxes if 64 - b.right + b.left > 0]
    shares = np.array([left / (left + right) for left, right in room])
    # A mean of uniform numbers over [0, 1]: standard error about 0.29 / sqrt(n).
    assert abs(shares.mean() - 0.5) < 4 * 0.35 / len(shares) ** 0.5
    assert (shares == 0).any()
    assert (shares == 1).any()


@pytest.mark.parametrize("size", [(2000, 10), (10, 2000), (1, 1), (1, 50)])
def test_a_shape_that_no_draw_fits(size):
    for row in range(5):
        box = random_box(words(row), *size)
        assert 0 <= box.left < box.right <= size[0]
        assert 0 <= box.top < box.bottom <= size[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (699, 3), (333, 257), (257, 256)])
@pytest.mark.parametrize("augment", ["none", "flip", "standard"])
def test_any_size_of_image_can_be_cropped(size, augment):
    image = Image.new("RGB", size, (10, 20, 30))
    for row in range(20):
        pixels = crop_pixels(image, augment, words(row), resize=256, crop=224)
        np.testing.assert_array_equal(pixels, np.full((224, 224, 3), (10, 20, 30)))


def test_half_of_the_images_are_flipped():
    image = image_of(100, 75)
    plain = crop_pixels(image, "none", None, resize=40, crop=32)
    flipped = 0
    for row in range(400):
        pixels = crop_pixels(image, "flip", words(row), resize=40, crop=32)
        is_flipped = (pixels == plain[:, ::-1]).all()
        assert is_flipped or (pixels == plain).all()
        flipped += is_flipped
    assert abs(flipped - 200) < 4 * 10


def test_boxes_of_the_centre():
    assert centre_box(256, 256, 256, 224) == (16, 16, 240, 240)
    assert centre_box(512, 256, 256, 256) == (128, 0, 384, 256)
    assert centre_box(128, 128, 256, 224) == (8, 8, 120, 120)


def test_an_unknown_augmentation():
    with pytest.raises(DataError, match=r"dataset.augment='crop' must be one of none"):
        crops.needs_words("crop")
