"""The real CIFAR-10, if it is there; folders and users for file permissions."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

SHARED_TFDS_DATA = Path(__file__).parents[3] / "shared" / "tfds_data"


@pytest.fixture
def cifar10_data_dir() -> Path:
    """The folder of the real CIFAR-10 beside the repository."""
    if not (SHARED_TFDS_DATA / "cifar10").is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no real CIFAR-10 in {SHARED_TFDS_DATA}")
    return SHARED_TFDS_DATA


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A temporary folder that every user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """A context in which even root's tests meet file permissions."""

    @contextmanager
    def context() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    return context
