"""What all tests share: one compilation cache, and the real CIFAR-10 if it is here."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Compiles each program once for all tests and the commands they start."""
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla")
    )


@pytest.fixture(scope="session")
def tfds_data():
    """The folder with CIFAR-10 in TFDS's layout."""
    folder = ROOT.parent / "shared" / "tfds_data"
    if not (folder / "cifar10").exists():
        pytest.skip(f"REAL DATA ABSENT: {folder}/cifar10; CIFAR-10 is not tested")
    return folder
