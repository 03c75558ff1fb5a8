"""How fast a run is: what is counted, and what the log says."""

import jax
import jax.numpy as jnp
import pytest

from fisher_jax.train.speed import StepWork, count_flops, on_cpu


@jax.jit
def product(a, b):
    return jnp.tanh(a @ b)


def test_operations_are_counted_as_written():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 4))
    counted = count_flops(product, a, b)
    assert counted == 2 * 8 * 16 * 4
    assert count_flops(product, *on_cpu((a, b))) == counted


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (StepWork(128, None, 1e12), "1280 examples/s"),
        (StepWork(128, 2e9, None), "1280 examples/s  0.02 TFLOP/s"),
        (StepWork(128, 2e9, 1e12), "1280 examples/s  0.02 TFLOP/s (2.0% of peak)"),
    ],
)
def test_what_the_log_says(work, text):
    assert work.describe(steps_per_second=10.0) == text
