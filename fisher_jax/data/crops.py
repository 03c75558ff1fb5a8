"""Which part of a photograph the network sees, and that part at the network's size.

A box and the resizing of what is in it are one operation, so that no pixel is computed
that is cut off afterwards. Resampling is bilinear with antialiasing, Pillow's and
torchvision's default for photographs.

Pillow takes more than half as long to resize a photograph as to decode it, so
cykooz_resizer does it where it is installed, with vector instructions. What the two
give differs by one in 255 here and there.
"""

import functools
import math
import threading
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt64

from fisher_jax.data.random_bits import integers_below, unit_interval
from fisher_jax.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_ATTEMPTS = 10
_WORDS_PER_ATTEMPT = 4
NUM_WORDS = _ATTEMPTS * _WORDS_PER_ATTEMPT + 1
_SMALLEST_AREA = 0.08
_LARGEST_LOG_RATIO = math.log(4 / 3)
_this_thread = threading.local()


class Box(NamedTuple):
    """A part of an image, in pixels and fractions of pixels from its upper left."""

    left: float
    top: float
    right: float
    bottom: float


def centre_box(width: int, height: int, resize: int, crop: int) -> Box:
    """Returns the part that resizing and cropping the centre would keep.

    The shorter side is resized to ``resize``, the other in proportion (rounded down),
    then ``crop`` × ``crop`` pixels in the middle are kept.

    Args:
        resize: 256 for ImageNet.
        crop: 224 for ImageNet; at most ``resize``.
    """
    shorter = min(width, height)
    resized_width = resize * width // shorter
    resized_height = resize * height // shorter
    left = round((resized_width - crop) / 2)
    top = round((resized_height - crop) / 2)
    across, down = width / resized_width, height / resized_height
    return Box(
        left * across,
        top * down,
        min((left + crop) * across, width),
        min((top + crop) * down, height),
    )


def random_box(words: UInt64[np.ndarray, "n"], width: int, height: int) -> Box:
    """Draws a part of the image, as Szegedy et al. 2015 do to augment ImageNet.

    Its area is uniform between 8% and 100% of the image's, the logarithm of its aspect
    ratio between those of 3/4 and 4/3, its place uniform. The first of 10 draws that
    fits is taken; where none does, the largest centred box with such a ratio.
    """
    attempts = words[: NUM_WORDS - 1].reshape(_ATTEMPTS, _WORDS_PER_ATTEMPT)
    share = _SMALLEST_AREA + (1 - _SMALLEST_AREA) * unit_interval(attempts[:, 0])
    log_ratio = _LARGEST_LOG_RATIO * (2 * unit_interval(attempts[:, 1]) - 1)
    area, ratio = share * (width * height), np.exp(log_ratio)
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    if not fits.any():
        return _centred(width, height)
    first = int(np.argmax(fits))
    box_width, box_height = int(widths[first]), int(heights[first])
    left = int(integers_below(attempts[first, 2:3], width - box_width + 1)[0])
    top = int(integers_below(attempts[first, 3:4], height - box_height + 1)[0])
    return Box(left, top, left + box_width, top + box_height)


def _centred(width: int, height: int) -> Box:
    """Returns the largest centred box of an aspect ratio between 3/4 and 4/3."""
    largest = math.exp(_LARGEST_LOG_RATIO)
    box_width = max(1, min(width, round(height * largest)))
    box_height = max(1, min(height, round(width * largest)))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return Box(left, top, left + box_width, top + box_height)


def needs_words(augment: str) -> bool:
    """Says whether a mode of augmentation draws random numbers.

    Raises:
        DataError: where the mode is none of "none", "flip" and "standard".
    """
    if augment not in ("none", "flip", "standard"):
        raise DataError(
            f"dataset.augment={augment!r} must be one of none, flip, standard"
        )
    return augment != "none"


def crop_pixels(
    image: "Image",
    augment: str,
    words: UInt64[np.ndarray, "n"] | None,
    *,
    resize: int,
    crop: int,
) -> UInt8[np.ndarray, "crop crop c"]:
    """Returns the part of an image that the network sees.

    Args:
        augment: "none": the centre; "flip": that, mirrored left to right with
            probability one half; "standard": a random box, then such a flip.
        words: ``NUM_WORDS`` random words; unused for "none".
        resize: see ``centre_box``; unused for "standard".

    Returns:
        uint8 [crop, crop, C]; may be a view that runs backwards.
    """
    if words is not None and augment == "standard":
        box = random_box(words, image.width, image.height)
    else:
        box = centre_box(image.width, image.height, resize, crop)
    pixels = _resized(image, box, crop).reshape(crop, crop, -1)
    is_flipped = words is not None and unit_interval(words[-1:])[0] < 0.5
    return pixels[:, ::-1] if is_flipped else pixels


def _resized(image: "Image", box: Box, size: int) -> UInt8[np.ndarray, "size size ..."]:
    """Returns what is in a box, at ``size`` × ``size`` pixels."""
    import PIL.Image

    fast = _fast_resizer()
    # Pillow multiplies colours by their alpha before resampling; leave that to it.
    if fast is None or image.mode not in ("L", "RGB"):
        bilinear = PIL.Image.Resampling.BILINEAR
        return np.asarray(image.resize((size, size), bilinear, box=box))
    result = _result_image(image.mode, size)
    # What rounding adds to a box that reaches the edge would be refused.
    width = min(box.right - box.left, image.width - box.left)
    height = min(box.bottom - box.top, image.height - box.top)
    options = fast.ResizeOptions(
        resize_alg=fast.ResizeAlg.convolution(fast.FilterType.bilinear),
        crop_box=fast.CropBox(box.left, box.top, width, height),
        use_alpha=False,
    )
    # A resizer may serve one thread at a time, and making one costs nothing.
    fast.Resizer().resize_pil(image, result, options)
    return np.asarray(result)  # a copy


def _result_image(mode: str, size: int) -> "Image":
    """Returns this thread's image to resize into; every resizing overwrites all of it.

    A new one each time would take a third of the time of resizing into it.
    """
    import PIL.Image

    image = getattr(_this_thread, "result", None)
    if image is None or (image.mode, image.size) != (mode, (size, size)):
        image = _this_thread.result = PIL.Image.new(mode, (size, size))
    return image


@functools.cache
def _fast_resizer() -> ModuleType | None:
    """Returns the package that resizes fast; None where it is not installed."""
    try:
        import cykooz_resizer
    except ImportError:
        return None
    return cykooz_resizer
