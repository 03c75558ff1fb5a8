"""Programs are for the platform they are lowered for, whatever machine traces them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from fisher_jax import loops
from fisher_jax.curvature import fisher_trace
from fisher_jax.models.simple_cnn import SimpleCNN
from fisher_jax.penalties import fisher_penalty
from fisher_jax.train.assemble import step_settings
from fisher_jax.train.config import load_config
from fisher_jax.train.step import TrainState, injected_penalty, sgd, train_step
from tests.command import ROOT

BASE = str(ROOT / "experiments" / "base.py")
PLATFORMS = ("cpu", "cuda", "tpu")
NETWORK = SimpleCNN(num_classes=10)


def logits_of(params, inputs):
    return NETWORK.apply({"params": params}, inputs, train=False)


def trace(params, inputs, key):
    return fisher_trace(logits_of, params, inputs, key).mean


def penalty(params, inputs, key):
    return jax.value_and_grad(
        lambda p: fisher_penalty(logits_of, p, inputs, key, chunk_size=4)
    )(params)


def step(params, inputs, key):
    model = SimpleCNN(num_classes=10)
    settings = step_settings(load_config(BASE, [("penalty.name", "fisher")]))
    optimizer = sgd(lambda _: 0.1, 0.9, 0.0, injected_penalty(0.1))
    state = TrainState.create(
        apply_fn=model.apply, params=params, tx=optimizer, batch_stats={}, key=key
    ).replace(step=jnp.zeros((), jnp.int32))
    labels = jnp.arange(inputs.shape[0]) % 10
    new, metrics = train_step(state, inputs, labels, settings=settings, renew=True)
    return new.params, metrics


@pytest.fixture(scope="module")
def arguments():
    inputs = np.random.default_rng(0).normal(size=(16, 8, 8, 1))
    inputs = jnp.asarray(inputs, jnp.float32)
    params = NETWORK.init(jax.random.key(0), inputs[:1], train=False)["params"]
    return params, inputs, jax.random.key(1)


@pytest.mark.parametrize("function", [trace, penalty, step])
def test_an_exported_program_is_that_of_its_platform(function, arguments):
    compiled = jax.jit(function)
    counts = {}
    for platform in PLATFORMS:
        exported = export.export(compiled, platforms=[platform])(*arguments)
        counts[platform] = exported.mlir_module().count("stablehlo.while")
        if platform == jax.default_backend():
            got, expected = exported.call(*arguments), compiled(*arguments)
            jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert counts["cuda"] == counts["tpu"]
    if function is trace and jax.device_count() == 1:
        # On one CPU examples of the widest layers go one by one.
        assert counts["tpu"] == 0 < counts["cpu"]


def test_the_forms_of_two_platforms_give_one_number(arguments, monkeypatch):
    expected = jax.jit(trace)(*arguments)
    monkeypatch.setattr(
        loops, "on_one_cpu", lambda function, *args, cpu: function(*args)
    )
    got = jax.jit(lambda *args: trace(*args))(*arguments)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
