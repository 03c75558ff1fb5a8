"""What all tests share: one compilation cache, and the real CIFAR-10 if it is here."""

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Compiles each program once for all tests and the commands they start."""
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla")
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if shutil.which("nvidia-smi") is not None:
        use_gpu_precisely()
    # `make test-all` compiles as users do.
    elif config.option.markexpr == "not slow" and not config.getvalue("numprocesses"):
        compile_quickly()


def use_gpu_precisely():
    """On GPUs, where tests that compare bits or digits would see TF32 and atomics.

    Float64 max pooling keeps failing there: JAX takes its gradient in float32.
    """
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    # Several workers share the GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def compile_quickly():
    """Halves the time of the default tests, most of which is XLA's.

    In this process only: most commands that tests start compile as users' commands do.
    """
    import jax

    from tests.compilation import quickly

    with mock.patch.dict(os.environ, quickly()):
        jax.jit(lambda x: x + 1)(0.0)  # XLA reads its flags once, here


@pytest.fixture(scope="session")
def tfds_data():
    """The folder with CIFAR-10 in TFDS's layout."""
    folder = ROOT.parent / "shared" / "tfds_data"
    if not (folder / "cifar10").exists():
        pytest.skip(f"REAL DATA ABSENT: {folder}/cifar10; CIFAR-10 is not tested")
    return folder
