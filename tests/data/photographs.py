"""A prepared set of generated photographs, of the size and weight of ImageNet's."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.conftest import (
    image_feature,
    label_feature,
    serialise,
    write_description,
    write_shards,
)

WIDTH, HEIGHT = 500, 375


def photograph(
    generator: np.random.Generator, width: int = WIDTH, height: int = HEIGHT
) -> bytes:
    """A JPEG of quality 90 whose spectrum falls as a photograph's does: some 100 kB."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1

    def noise() -> np.ndarray:
        spectrum = generator.normal(size=(2, *frequency.shape))
        spectrum = (spectrum[0] + 1j * spectrum[1]) / frequency**1.1
        plane = np.fft.irfft2(spectrum, (height, width))
        return plane / plane.std()

    brightness = noise()
    planes = [brightness + 0.4 * noise() for _ in range(3)]
    pixels = np.clip(128 + 50 * np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_photographs(
    data_dir: Path,
    num_images: int,
    num_files: int = 4,
    num_test: int = 8,
    sizes: tuple[tuple[int, int], ...] = ((WIDTH, HEIGHT),),
    name: str = "photos",
    num_classes: int = 10,
) -> dict[str, list[bytes]]:
    """Writes data_dir/name/1.0.0 with images of any shape, as imagenet2012 has.

    Returns the encoded images of each split; image i has label i modulo the classes.
    """
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    written, splits = {}, {}
    for split, size, files in (("train", num_images, num_files), ("test", num_test, 1)):
        written[split] = [
            photograph(generator, *sizes[i % len(sizes)]) for i in range(size)
        ]
        records = [
            serialise(image, i % num_classes) for i, image in enumerate(written[split])
        ]
        per_file = -(-size // files)
        splits[split] = [
            records[start : start + per_file] for start in range(0, size, per_file)
        ]
        write_shards(folder, name, split, splits[split])
    label = label_feature(num_classes)
    features = {"image": image_feature((-1, -1, 3)), "label": label}
    write_description(folder, name, splits, features)
    return written
