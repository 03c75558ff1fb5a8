"""FLOPs of a program that was not compiled for a device that can count them."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from fisher_jax.train.speed import Work, count_flops


@jax.jit
def product(a, b):
    return jnp.tanh(a @ b)


def test_a_device_that_does_not_count_has_the_cpu_count():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 4))
    counted = count_flops(product, a, b)
    assert counted == 2 * 8 * 16 * 4
    # As Lowered of GPUs and TPUs does.
    with mock.patch.object(jax.stages.Lowered, "cost_analysis", return_value=None):
        assert count_flops(product, a, b) == counted


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (Work(128, None, 1e12), "1280 examples/s"),
        (Work(128, 2e9, None), "1280 examples/s  0.02 TFLOP/s"),
        (Work(128, 2e9, 1e12), "1280 examples/s  0.02 TFLOP/s (2.0% of peak)"),
    ],
)
def test_what_the_log_says(work, text):
    assert work.describe(steps_per_second=10.0) == text
