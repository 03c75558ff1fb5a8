"""Any two options of training together: right by a plain step, or refused in a line."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from fisher_jax.errors import UserError
from fisher_jax.train import assemble
from fisher_jax.train.step import compile_step, create_state
from tests.command import ROOT
from tests.compilation import quickly
from tests.tiers import some
from tests.train import pairs

BY_DEFAULT = [
    ("mixup", "gradient_norm"),
    ("sam", "fisher"),
    ("mixup", "parts"),
    ("two groups", "importance"),
    ("parts", "signs"),
    ("running statistics", "random_label"),
    ("start", "gradient_norm"),
]
ON_EIGHT_DEVICES = [
    ("mixup", "fisher"),
    ("parts", "signs"),
    ("two groups", "signs"),  # refused
    ("eight groups", "importance"),
    ("four examples", "gradient"),
    ("running statistics", "random_label"),
    ("batch norm", "gradient_norm"),
]
IN_BFLOAT16 = [
    ("mixup", "gradient_norm"),  # refused by float32's errors
    ("parts", "signs"),
    ("batch norm", "fisher"),
]


@pytest.fixture(autouse=True)
def networks(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    with pairs.small_networks():
        yield


@pytest.fixture(scope="module")
def data():
    with pairs.small_networks():
        return pairs.digits()


@pytest.mark.parametrize(("first", "second"), some(pairs.PAIRS, BY_DEFAULT))
def test_two_options_together(first, second, data):
    pairs.outcome((first, second), data, num_devices=1)


@pytest.mark.parametrize(
    "chosen", [ON_EIGHT_DEVICES, pytest.param(pairs.PAIRS, marks=pytest.mark.slow)]
)
def test_two_options_on_eight_devices(chosen):
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.pairs", "8", *map(",".join, chosen)],
        cwd=ROOT,
        # NPROC: XLA's threads, of which there are to be more than devices.
        env=quickly("--xla_force_host_platform_device_count=8")
        | {"JAX_PLATFORMS": "cpu", "NPROC": "16"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    last = done.stdout.splitlines()[-1].split()
    counts = dict(zip(last[::2], map(int, last[1::2]), strict=True))
    assert counts["wrong"] == 0, done.stdout[:8000]
    assert counts["right"] + counts["refused"] == len(chosen)
    assert counts["right"] > len(chosen) / 3


@pytest.mark.parametrize(("first", "second"), some(pairs.PAIRS, IN_BFLOAT16))
def test_two_options_in_bfloat16(first, second, data):
    """Refused on CPU; the step itself, of products without convolutions, is right.

    Within 2% of the length of the way that the parameters go: the network rounds to
    eight bits, and the plain step's derivatives round in another order.
    """
    options = (
        pairs.OPTIONS[first]
        | pairs.OPTIONS[second]
        | {"model.compute_dtype": "bfloat16"}
    )
    try:
        config = pairs.configured(options)
    except UserError as error:
        pairs.refusal_of(error, options)
        return
    if jax.default_backend() == "cpu":
        with pytest.raises(UserError) as caught:
            pairs.parameters_after(options, data, num_devices=1)
        assert "compute_dtype=bfloat16" in pairs.refusal_of(caught.value, options)
    state = create_state(
        assemble.make_model(config, pairs.CLASSES),
        assemble.make_optimizer(config, 1),
        pairs.SHAPE,
        0,
    )
    if config.train.microbatches > 1 and state.batch_stats:
        return  # refused in float32, too
    images, labels = pairs.batch()
    plain = jax.jit(functools.partial(pairs.plain_step, config))
    expected = plain(state, images, labels)
    step = compile_step(assemble.step_settings(config))
    update = config.penalty.name != "none" and not config.penalty.start_epoch
    new, _ = step(jax.tree.map(jnp.copy, state), (images, labels), renew=update)
    assert pairs.error_of_way(state.params, new.params, expected) < 0.02
