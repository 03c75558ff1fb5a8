"""Pairs of options of training: each right by a plain step, or refused in one line.

Run by test_pairs.py, for several devices in a process of its own. A pair is assembled
as main.py assembles a run, from its configuration, with a network so small that it
compiles quickly. Prints a line for each pair that is wrong.

python -m tests.train.pairs NUM_DEVICES [FIRST,SECOND ...]
"""

import functools
import itertools
import math
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from fisher_jax import parallel
from fisher_jax.errors import UserError
from fisher_jax.models import MODELS
from fisher_jax.models.batch_norm import batch_norm
from fisher_jax.train import assemble
from fisher_jax.train.config import load_config
from fisher_jax.train.step import random_keys
from fisher_jax.train.surroundings import check_mesh

BATCH, CLASSES, SHAPE = 16, 10, (4, 4, 1)
ALPHA, RADIUS, RATE = 0.7, 0.1, 0.1
OPTIONS = {
    "mixup": {"mixup.beta": 0.8},
    "sam": {"sam.radius": RADIUS},
    "parts": {"train.microbatches": 2},
    # On eight devices: one each, and all on every device.
    "eight examples": {"penalty.num_examples": 8},
    "four examples": {"penalty.num_examples": 4},
    "eight groups": {"penalty.num_groups": 8},
    "two groups": {"penalty.num_groups": 2},
    "start": {"penalty.start_epoch": 1},
    "batch norm": {"model.name": "tiny_normalised"},
    "running statistics": {
        "model.name": "tiny_normalised",
        "penalty.batch_norm": "eval",
    },
    "fisher": {"penalty.name": "fisher"},
    "signs": {"penalty.name": "fisher", "penalty.draw": "rademacher"},
    "importance": {"penalty.name": "fisher", "penalty.draw": "importance"},
    "single": {"penalty.name": "fisher_single"},
    "gradient": {"penalty.name": "gradient"},
    "random_label": {"penalty.name": "random_label"},
    "input_gradient": {"penalty.name": "input_gradient"},
    "gradient_norm": {"penalty.name": "gradient_norm"},
    "differences": {"penalty.method": "finite_difference"},
    "weight decay": {"optimizer.weight_decay": 0.1},
}
PAIRS = [
    (a, b)
    for a, b in itertools.combinations(OPTIONS, 2)
    if not OPTIONS[a].keys() & OPTIONS[b].keys()
]


class Tiny(nn.Module):
    """Two layers."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    is_normalised = False

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.Dense(4, dtype=self.dtype)(inputs.reshape(inputs.shape[0], -1))
        if self.is_normalised:
            hidden = batch_norm(train, self.dtype)(hidden)
        return nn.Dense(self.num_classes, dtype=self.dtype)(nn.tanh(hidden))


class TinyNormalised(Tiny):
    """With batch norm in between."""

    is_normalised = True


def small_networks():
    """The two are among the models while this context lasts."""
    return mock.patch.dict(MODELS, {"tiny": Tiny, "tiny_normalised": TinyNormalised})


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
            drawn = drawn_in_blocks(noise_key, law)
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


def drawn_in_blocks(key, law):
    """Classes by the law: a block of about √C of them, then one of the block."""
    count, size = len(law), math.ceil(math.sqrt(CLASSES))
    uniforms = jax.random.uniform(key, (count, 2), law.dtype)
    blocks = jnp.pad(law, ((0, 0), (0, -CLASSES % size))).reshape(count, -1, size)

    def first_above(weights, uniform):
        sums = jnp.cumsum(weights, axis=-1)
        return jnp.argmax(sums > uniform[:, None] * sums[:, -1:], axis=-1)

    block = first_above(blocks.sum(axis=-1), uniforms[:, 0])
    return size * block + first_above(blocks[jnp.arange(count), block], uniforms[:, 1])


def plain_step(config, state, inputs, labels):
    """The parameters after a step, as papers write it; only the keys are ours."""
    keys = random_keys(state.key, state.step)
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
            return state.apply_fn(variables, images).astype(jnp.float32)
        logits, _ = state.apply_fn(
            variables, images, train=True, mutable=["batch_stats"]
        )
        return logits.astype(jnp.float32)

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


def configured(options):
    """The configuration with these options, checked; alpha and radius are always on."""
    chosen = {
        "dataset.name": "digits",
        "dataset.image_size": SHAPE[0],
        "dataset.num_train": 4 * BATCH,
        "model.name": "tiny",
        "train.batch_size": BATCH,
        "penalty.coefficient": ALPHA,
        "penalty.radius": RADIUS,
        "optimizer.learning_rate": RATE,
        "optimizer.momentum": 0.0,
        **options,
    }
    texts = [(key, str(value)) for key, value in chosen.items()]
    return load_config("experiments/base.py", texts)


def digits():
    """What every pair's run takes of its data set."""
    return assemble.load_data(configured({}))


def batch():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(BATCH, *SHAPE)).astype(np.float32)
    return images, generator.integers(0, CLASSES, BATCH).astype(np.int32)


def parameters_after(options, data, num_devices):
    """(those before, after a step of the run, and after the plain step).

    Raises:
        UserError: the options are refused, as main.py refuses them.
    """
    config = configured(options)
    mesh = Mesh(np.array(jax.devices()[:num_devices]), (parallel.DATA_AXIS,))
    check_mesh(config, mesh)
    run, snapshot = assemble.build(config, data, mesh)
    images, labels = batch()
    # A copy: the step donates its state.
    alone = jax.device_put(jax.tree.map(jnp.copy, snapshot.state), jax.devices()[0])
    # Compiled whole: one by one its operations take ten times as long.
    plain = jax.jit(functools.partial(plain_step, config))
    expected = plain(alone, images, labels)
    rows = (parallel.place_rows(array, mesh) for array in (images, labels))
    renew = run.schedule.is_penalty_update(0)
    new, _ = run.step(snapshot.state, tuple(rows), renew=renew)
    return alone.params, new.params, expected


def error_of_way(before, got, expected):
    """How far ``got`` is from ``expected``, in lengths of the way to there."""
    before, got, expected = (
        np.asarray(ravel_pytree(jax.device_get(tree))[0])
        for tree in (before, got, expected)
    )
    assert got.dtype == np.float32
    return np.linalg.norm(got - expected) / np.linalg.norm(expected - before)


def refusal_of(error, options):
    """The text, if it is one line that names one of the options."""
    said = str(error)
    assert "\n" not in said, said
    assert any(key.rpartition(".")[2] in said for key in options), said
    return said


def outcome(pair, data, num_devices):
    """ "right", or the line by which the pair is refused."""
    options = OPTIONS[pair[0]] | OPTIONS[pair[1]]
    try:
        before, new, expected = parameters_after(options, data, num_devices)
    except UserError as error:
        return refusal_of(error, options)
    if "differences" in pair:
        # The error of a difference is of the order of its step.
        assert error_of_way(before, new, expected) < 0.01
        return "right"
    # The variance of one example is rounding, by which batch norm divides it.
    atol = 1e-5 if "single" in pair and "batch norm" in pair else 1e-6
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol),
        new,
        expected,
    )
    return "right"


def main(num_devices, *pairs):
    data, outcomes, wrong = digits(), [], 0
    for pair in [tuple(p.split(",")) for p in pairs] or PAIRS:
        try:
            outcomes.append(outcome(pair, data, int(num_devices)))
        except Exception as error:
            wrong += 1
            print(f"WRONG {pair}\n{type(error).__name__}: {str(error)[:1500]}")
    right = outcomes.count("right")
    print(f"right {right} refused {len(outcomes) - right} wrong {wrong}")


if __name__ == "__main__":
    with small_networks():
        main(*sys.argv[1:])
