"""Any two options of training together: right by a plain step, or refused in a line."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fisher_jax.train import assemble
from fisher_jax.train.config import ConfigError, load_config
from fisher_jax.train.step import create_state, step_keys, train_step
from tests.tiers import some

BATCH, CLASSES, SHAPE = 6, 3, (3, 3, 1)
ALPHA, RADIUS, RATE = 0.7, 0.1, 0.1
OPTIONS = {
    "mixup": {"mixup.beta": 0.8},
    "sam": {"sam.radius": RADIUS},
    "parts": {"train.microbatches": 2},
    "few examples": {"penalty.num_examples": 4},
    "fisher": {"penalty.name": "fisher"},
    "single": {"penalty.name": "fisher_single"},
    "gradient": {"penalty.name": "gradient"},
    "input_gradient": {"penalty.name": "input_gradient"},
    "gradient_norm": {"penalty.name": "gradient_norm"},
    "weight decay": {"optimizer.weight_decay": 0.1},
}
PAIRS = [
    (a, b)
    for a, b in itertools.combinations(OPTIONS, 2)
    if not OPTIONS[a].keys() & OPTIONS[b].keys()
]
FEW = [("mixup", "gradient_norm"), ("sam", "fisher"), ("mixup", "parts")]


class Network(nn.Module):
    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.tanh(nn.Dense(4)(inputs.reshape(inputs.shape[0], -1)))
        return nn.Dense(CLASSES)(hidden)


def configured(options):
    """The configuration with these options, checked; alpha and radius are always on."""
    chosen = {
        "train.batch_size": BATCH,
        "penalty.coefficient": ALPHA,
        "penalty.radius": RADIUS,
        "optimizer.learning_rate": RATE,
        "optimizer.momentum": 0.0,
        **options,
    }
    texts = [(key, str(value)) for key, value in chosen.items()]
    return load_config("experiments/base.py", texts)


def cross_entropy(logits, one_hot):
    return -jnp.mean(jnp.sum(one_hot * jax.nn.log_softmax(logits), axis=-1))


def plain_step(config, state, inputs, labels):
    """The parameters after a step, as papers write it; only the keys are ours."""
    keys = step_keys(state.key, state.step)
    one_hot = jax.nn.one_hot(labels, CLASSES)
    mixed, targets = inputs, one_hot
    if config.mixup.beta:
        weight_key, partner_key = jax.random.split(keys.mixup)
        weight = jax.random.beta(weight_key, config.mixup.beta, config.mixup.beta)
        partner = jax.random.permutation(partner_key, BATCH)
        mixed = weight * inputs + (1 - weight) * inputs[partner]
        targets = weight * one_hot + (1 - weight) * one_hot[partner]

    def logits_of(params, images):
        return Network().apply({"params": params}, images)

    def loss(params):
        return cross_entropy(logits_of(params, mixed), targets)

    here = jax.grad(loss)(state.params)
    norm = optax.tree.norm(here)
    uphill = jax.tree.map(lambda p, g: p + RADIUS * g / norm, state.params, here)
    gradient, name = here, config.penalty.name
    if config.sam.radius:
        gradient = jax.grad(loss)(uphill)
    if name == "gradient_norm":
        share, ahead = ALPHA / RADIUS, jax.grad(loss)(uphill)
        gradient = jax.tree.map(lambda g, h: (1 - share) * g + share * h, here, ahead)
    elif name != "none":
        count = 1 if name == "fisher_single" else config.penalty.num_examples
        images, true = inputs[:count], one_hot[:count]
        logits = logits_of(state.params, images)
        drawn = jnp.argmax(
            logits + jax.random.gumbel(keys.penalty, logits.shape), axis=-1
        )
        ys = jax.nn.one_hot(drawn, CLASSES) if name.startswith("fisher") else true

        def penalty(params):
            if name == "input_gradient":
                slopes = jax.grad(
                    lambda x: len(ys) * cross_entropy(logits_of(params, x), ys)
                )(images)
                return jnp.sum(slopes**2) / len(ys)
            slopes = jax.grad(lambda p: cross_entropy(logits_of(p, images), ys))(params)
            return optax.tree.norm(slopes, squared=True)

        gradient = jax.tree.map(
            lambda g, h: g + ALPHA * h, gradient, jax.grad(penalty)(state.params)
        )
    decay = config.optimizer.weight_decay
    return jax.tree.map(lambda p, g: p - RATE * (g + decay * p), state.params, gradient)


def refused(options):
    """What is said of options that exclude each other; None of those that do not."""
    try:
        configured(options)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("first", "second"), some(PAIRS, FEW))
def test_two_options_together(first, second, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    options = OPTIONS[first] | OPTIONS[second]
    refusal = refused(options)
    if refusal is not None:
        assert "\n" not in refusal
        assert any(key.rpartition(".")[2] in refusal for key in options)
        return
    config = configured(options)
    state = create_state(Network(), assemble.make_optimizer(config, 1), SHAPE, 0)
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.normal(size=(BATCH, *SHAPE)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, CLASSES, BATCH), jnp.int32)
    step = jax.jit(train_step, static_argnames=("settings", "update_penalty"))
    new, _ = step(
        state,
        inputs,
        labels,
        settings=assemble.step_settings(config),
        update_penalty=config.penalty.name not in ("none", "gradient_norm"),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        new.params,
        plain_step(config, state, inputs, labels),
    )
