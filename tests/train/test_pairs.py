"""Any two options of training together: right by a plain step, or refused in a line."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fisher_jax.penalties import is_penalty_update
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
    "groups": {"penalty.num_groups": 2},
    "start": {"penalty.start_epoch": 1},
    "running statistics": {"penalty.batch_norm": "eval"},
    "fisher": {"penalty.name": "fisher"},
    "signs": {"penalty.name": "fisher", "penalty.draw": "rademacher"},
    "importance": {"penalty.name": "fisher", "penalty.draw": "importance"},
    "single": {"penalty.name": "fisher_single"},
    "gradient": {"penalty.name": "gradient"},
    "random_label": {"penalty.name": "random_label"},
    "input_gradient": {"penalty.name": "input_gradient"},
    "gradient_norm": {"penalty.name": "gradient_norm"},
    "weight decay": {"optimizer.weight_decay": 0.1},
}
PAIRS = [
    (a, b)
    for a, b in itertools.combinations(OPTIONS, 2)
    if not OPTIONS[a].keys() & OPTIONS[b].keys()
]
FEW = [
    ("mixup", "gradient_norm"),
    ("sam", "fisher"),
    ("mixup", "parts"),
    ("groups", "importance"),
    ("parts", "signs"),
    ("running statistics", "random_label"),
    ("start", "gradient_norm"),
]


class Network(nn.Module):
    """With batch norm where that is asked for."""

    normalised: bool = False

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.Dense(4)(inputs.reshape(inputs.shape[0], -1))
        if self.normalised:
            hidden = nn.BatchNorm(use_running_average=not train, momentum=0.9)(hidden)
        return nn.Dense(CLASSES)(nn.tanh(hidden))


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


def squared_mean_gradients(config, key, logits_of, images, true):
    """The penalty as a function of params: labels or cotangents, squared by group."""
    count = len(true)

    def cotangents(params):
        """∂(the summed loss)/∂logits; what is drawn is a constant, S(θ) is not."""
        logits = logits_of(params, images)
        p = jax.nn.softmax(logits)
        if config.penalty.name == "gradient":
            return p - true
        if config.penalty.name == "random_label":
            drawn = jax.random.randint(key, (count,), 0, CLASSES)
            return p - jax.nn.one_hot(drawn, CLASSES)
        if config.penalty.draw == "rademacher":
            signs = jax.random.rademacher(key, logits.shape, logits.dtype)
            root = jnp.sqrt(p)
            return root * signs - p * jnp.sum(root * signs, axis=-1, keepdims=True)
        if config.penalty.draw == "importance":
            noise_key, sign_key = jax.random.split(key)
            fixed = jax.lax.stop_gradient(p)
            # ‖p − onehot(c)‖² for every c, and the law that it gives.
            lengths = jnp.sum(
                (fixed[:, None, :] - jnp.eye(CLASSES)[None]) ** 2, axis=-1
            )
            law = fixed * lengths
            law = law / jnp.sum(law, axis=-1, keepdims=True)
            noise = jax.random.gumbel(noise_key, logits.shape, logits.dtype)
            drawn = jnp.argmax(jnp.log(law) + noise, axis=-1)
            rows = jnp.arange(count)
            sign = jax.random.rademacher(sign_key, (count, 1), logits.dtype)
            weight = jnp.sqrt(p[rows, drawn] / law[rows, drawn])[:, None]
            return sign * weight * (p - jax.nn.one_hot(drawn, CLASSES))
        noise = jax.random.gumbel(key, logits.shape)
        return p - jax.nn.one_hot(jnp.argmax(logits + noise, axis=-1), CLASSES)

    def penalty(params):
        total = 0.0
        for rows in jnp.split(jnp.arange(count), config.penalty.num_groups):
            # Reverse over reverse: J(θ)ᵀ v(θ), squared, differentiated in both.
            _, pull = jax.vjp(lambda p, rows=rows: logits_of(p, images)[rows], params)
            (slopes,) = pull(cotangents(params)[rows] / count)
            total = total + optax.tree.norm(slopes, squared=True)
        return total

    return penalty


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

    def logits_of(params, images, train=True):
        variables = {"params": params, "batch_stats": state.batch_stats}
        if not train:
            return state.apply_fn(variables, images)
        return state.apply_fn(variables, images, train=True, mutable=["batch_stats"])[0]

    def logits_of_penalty(params, images):
        return logits_of(params, images, config.penalty.batch_norm == "train")

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
    elif name != "none" and not config.penalty.start_epoch:
        count = 1 if name == "fisher_single" else config.penalty.num_examples
        images, true = inputs[:count], one_hot[:count]

        def input_gradients(params):
            def summed(images):
                logits = logits_of_penalty(params, images)
                return len(true) * cross_entropy(logits, true)

            return jnp.sum(jax.grad(summed)(images) ** 2) / len(true)

        penalty = input_gradients
        if name != "input_gradient":
            penalty = squared_mean_gradients(
                config, keys.penalty, logits_of_penalty, images, true
            )
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
    # Batch norm with parts of a batch is refused where the network is known.
    is_normalised = "running statistics" in (first, second) and first != "parts"
    network = Network(is_normalised)
    state = create_state(network, assemble.make_optimizer(config, 1), SHAPE, 0)
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.normal(size=(BATCH, *SHAPE)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, CLASSES, BATCH), jnp.int32)
    step = jax.jit(train_step, static_argnames=("settings", "update_penalty"))
    new, _ = step(
        state,
        inputs,
        labels,
        settings=assemble.step_settings(config),
        update_penalty=config.penalty.name not in ("none", "gradient_norm")
        and is_penalty_update(0, config.penalty.start_epoch, 10),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        new.params,
        plain_step(config, state, inputs, labels),
    )
