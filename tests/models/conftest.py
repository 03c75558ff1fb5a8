"""One thread for LAPACK while these tests run."""

import pytest
import scipy.linalg  # noqa: F401  its LAPACK is jax's; only loaded libraries are limited
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="package")
def single_threaded_lapack():
    """Orthogonal initialisation takes a QR of a small matrix per layer.

    OpenBLAS's threads spin while they wait: on a busy machine that takes 10 s for a
    network instead of 0.1 s.
    """
    with threadpool_limits(1, user_api="blas"):
        yield
