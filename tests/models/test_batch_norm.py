"""Running statistics: when they change, to what, and on how many devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax import parallel
from fisher_jax.models.batch_norm import BATCH_AXIS, EPSILON, batch_norm
from tests.models.small import WITH_BATCH_NORM, build, images, initial, trained


def test_constants_are_pytorch_s_defaults():
    layer = batch_norm(train=True, dtype=jnp.float32)
    inputs = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 2)).astype(np.float32)
    variables = layer.init(jax.random.key(0), inputs)
    outputs, changed = layer.apply(variables, inputs, mutable=["batch_stats"])
    mean, variance = inputs.mean((0, 1, 2)), inputs.var((0, 1, 2))
    statistics = changed["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * variance, rtol=1e-4)
    expected = (inputs - mean) / np.sqrt(variance + EPSILON)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    assert EPSILON == 1e-5


@pytest.mark.parametrize("form", WITH_BATCH_NORM)
def test_statistics_change_in_train_mode_and_only_there(form):
    def updated(train):
        apply = build(form).apply
        _, changed = jax.jit(
            lambda v, x: apply(v, x, train=train, mutable=["batch_stats"])
        )(trained(form), images(form, 2))
        return jax.tree.leaves(changed["batch_stats"])

    before = jax.tree.leaves(trained(form)["batch_stats"])
    for old, new in zip(before, updated(train=True), strict=True):
        assert np.all(old != new)
    for old, new in zip(before, updated(train=False), strict=True):
        assert np.all(old == new)


@pytest.mark.parametrize("form", WITH_BATCH_NORM)
def test_statistics_start_at_zero_and_one(form):
    flat = jax.tree_util.tree_leaves_with_path(initial(form)["batch_stats"])
    for path, leaf in flat:
        assert np.all(leaf == (0 if path[-1].key == "mean" else 1))


TWO_DEVICES = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.models.small import build, images, trained

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
form = "resnet-batch_norm"
# The halves differ, so that statistics per device would be others.
inputs = images(form, 4) * np.array([1, 1, 3, 3], np.float32)[:, None, None, None]

@jax.jit
def step(variables, x):
    return build(form).apply(variables, x, train=True, mutable=["batch_stats"])

whole = jax.device_get(step(trained(form), inputs))
sharded = step(trained(form), jax.device_put(inputs, NamedSharding(mesh, P("batch"))))
for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(sharded), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
half = jax.device_get(step(trained(form), inputs[:2]))[1]
first = [jax.tree.leaves(tree)[0] for tree in (half, whole[1])]
assert not np.allclose(*first, rtol=1e-2)
"""


def test_statistics_on_two_devices_are_those_of_the_global_batch():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_statistics_are_summed_over_the_axis_that_batches_are_split_along():
    assert BATCH_AXIS == parallel.DATA_AXIS
