import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fisher_jax.baselines import mixup
from fisher_jax.curvature import Categorical, sample_labels
from fisher_jax.penalties import is_penalty_update
from fisher_jax.train import gradients
from fisher_jax.train.gradients import (
    PenaltySettings,
    StepSettings,
    named_penalty,
)
from fisher_jax.train.step import (
    create_state,
    injected_penalty,
    penalty_value,
    random_keys,
    sgd,
)
from fisher_jax.train.step import train_step as eager_train_step
from tests.tiers import some

BATCH, CLASSES = 6, 3
SHAPE = (4, 4, 1)
train_step = jax.jit(eager_train_step, static_argnames=("settings", "renew"))
NAMES = ("fisher", "fisher_single", "gradient", "random_label", "input_gradient")


class SmallNet(nn.Module):
    """A convolution, batch norm where asked for, ReLU, a dense layer."""

    batch_norm: bool = False

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.Conv(3, (3, 3))(inputs)
        if self.batch_norm:
            hidden = nn.BatchNorm(use_running_average=not train, momentum=0.9)(hidden)
        hidden = nn.relu(hidden)
        return nn.Dense(CLASSES)(hidden.reshape(hidden.shape[0], -1))


@pytest.fixture
def batch():
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.normal(size=(BATCH, *SHAPE)), jnp.float32)
    return inputs, jnp.asarray(generator.integers(0, CLASSES, BATCH), jnp.int32)


def make_state(batch_norm=False, alpha=None):
    """``alpha`` None: without a penalty."""
    penalty = None if alpha is None else injected_penalty(alpha)
    optimizer = sgd(optax.constant_schedule(0.1), 0.9, 0.0, penalty)
    return create_state(SmallNet(batch_norm), optimizer, SHAPE, 0)


def logits_of(state):
    return lambda params, inputs: state.apply_fn({"params": params}, inputs)


def naive_penalty(name, logits_fn, params, inputs, labels, key):
    """Each penalty from its definition in the paper, differentiated twice by grad."""

    def mean_loss(p, x, y):
        return jnp.mean(Categorical().loss(logits_fn(p, x), y))

    def squared_norm(tree):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))

    logits = jax.lax.stop_gradient(logits_fn(params, inputs))
    if name == "input_gradient":
        total = jax.grad(lambda x: len(labels) * mean_loss(params, x, labels))(inputs)
        return squared_norm(total) / len(labels)
    if name == "fisher_single":
        inputs, logits = inputs[:1], logits[:1]
    if name in ("fisher", "fisher_single"):
        gumbel = jax.random.gumbel(key, logits.shape)
        labels = jnp.argmax(logits + gumbel, axis=-1)
    if name == "random_label":
        pytest.skip("its draw is the penalty's own; its value is tested in penalties")
    return squared_norm(jax.grad(mean_loss)(params, inputs, labels))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_adds_alpha_times_the_penaltys_gradient(name, batch):
    inputs, labels = batch
    state = make_state(alpha=0.7)
    logits_fn = logits_of(state)
    key = random_keys(state.key, state.step).penalty

    @jax.jit
    def by_definition(params):
        plain = jax.grad(
            lambda p: jnp.mean(Categorical().loss(logits_fn(p, inputs), labels))
        )(params)
        return plain, jax.value_and_grad(
            lambda p: naive_penalty(name, logits_fn, p, inputs, labels, key)
        )(params)

    plain, (value, penalty) = by_definition(state.params)
    expected = jax.tree.map(
        lambda p, g, h: p - 0.1 * (g + 0.7 * h), state.params, plain, penalty
    )
    settings = StepSettings(PenaltySettings(name))
    new, metrics = train_step(state, inputs, labels, settings=settings, renew=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        new.params,
        expected,
    )
    np.testing.assert_allclose(penalty_value(new), value, rtol=1e-5)
    assert new.step == 1
    assert metrics.first_bad == 0


def test_a_penalty_with_a_parameter_that_nothing_is_for_is_refused(monkeypatch):
    def penalty(logits_fn, params, inputs, num_group=1):
        return jnp.sum(logits_fn(params, inputs))

    monkeypatch.setitem(gradients.PENALTIES, "misspelt", penalty)
    with pytest.raises(TypeError, match="'misspelt' has the parameter 'num_group'"):
        named_penalty(PenaltySettings("misspelt"), None, None, None, None)


def test_the_latest_gradient_is_reused_between_updates(batch):
    """Ten steps at f = 4 from step 3 on, against the paper's text as a Python loop."""
    inputs, labels = batch
    settings = StepSettings(PenaltySettings("fisher", draw="rademacher"))
    state = make_state(alpha=0.5)
    params, velocity = state.params, jax.tree.map(jnp.zeros_like, state.params)
    stale = jax.tree.map(jnp.zeros_like, params)
    logits_fn = logits_of(state)

    @jax.jit
    def penalty_gradient(params, key):
        return jax.grad(
            named_penalty(settings.penalty, logits_fn, inputs, labels, key)
        )(params)

    @jax.jit
    def plain_gradient(params):
        return jax.grad(
            lambda p: jnp.mean(Categorical().loss(logits_fn(p, inputs), labels))
        )(params)

    updates = []
    for step in range(10):
        update = is_penalty_update(step, first_step=3, update_every=4)
        updates += [step] if update else []
        if update:
            key = random_keys(state.key, jnp.int32(step)).penalty
            stale = penalty_gradient(params, key)
        plain = plain_gradient(params)
        velocity = jax.tree.map(
            lambda v, g, h: 0.9 * v + g + 0.5 * h, velocity, plain, stale
        )
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
        state, _ = train_step(state, inputs, labels, settings=settings, renew=update)
    assert updates == [3, 7]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        state.params,
        params,
    )


def test_the_penalty_sees_only_its_examples(batch):
    inputs, labels = batch
    settings = PenaltySettings("gradient", num_examples=2)
    state, _ = train_step(
        make_state(alpha=1.0), inputs, labels, settings=StepSettings(settings),
        renew=True,
    )  # fmt: skip
    logits_fn = logits_of(make_state())
    alone = jax.jit(
        lambda p: naive_penalty("gradient", logits_fn, p, inputs[:2], labels[:2], None)
    )(make_state().params)
    np.testing.assert_allclose(penalty_value(state), alone, rtol=1e-5)


def test_a_penalty_in_groups_is_the_sum_of_its_groups(batch):
    inputs, labels = batch
    state = make_state(alpha=1.0)
    logits_fn = logits_of(state)
    key = random_keys(state.key, state.step).penalty
    drawn = sample_labels(key, logits_fn(state.params, inputs))

    def penalty(params):
        def mean_loss(params, rows):
            logits = logits_fn(params, inputs[rows])
            return jnp.sum(Categorical().loss(logits, drawn[rows])) / BATCH

        gradients = [jax.grad(mean_loss)(params, slice(k, k + 2)) for k in (0, 2, 4)]
        return sum(optax.tree.norm(g, squared=True) for g in gradients)

    settings = StepSettings(PenaltySettings("fisher", num_groups=3))
    new, _ = train_step(state, inputs, labels, settings=settings, renew=True)
    kept = optax.tree_utils.tree_get(new.opt_state, "penalty_gradient")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (penalty_value(new), kept),
        jax.jit(jax.value_and_grad(penalty))(state.params),
    )


@pytest.mark.parametrize("name", some(NAMES, ["fisher"]))
def test_running_statistics_move_once_a_step_whatever_the_penalty(name, batch):
    inputs, labels = batch
    plain, _ = train_step(
        make_state(batch_norm=True), inputs, labels,
        settings=StepSettings(), renew=False,
    )  # fmt: skip
    state = make_state(batch_norm=True, alpha=0.1)
    penalised, _ = train_step(
        state, inputs, labels, settings=StepSettings(PenaltySettings(name)),
        renew=True,
    )  # fmt: skip
    jax.tree.map(
        np.testing.assert_array_equal, penalised.batch_stats, plain.batch_stats
    )
    moved = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)), plain.batch_stats, state.batch_stats
    )
    assert all(jax.tree.leaves(moved))


def test_mixup_trains_on_the_mixed_loss(batch):
    inputs, labels = batch
    state = make_state()
    settings = StepSettings(mixup_beta=0.8)
    _, metrics = train_step(state, inputs, labels, settings=settings, renew=False)
    mixed = mixup(random_keys(state.key, state.step).mixup, inputs, labels, 0.8)
    logits = logits_of(state)(state.params, mixed.inputs)
    expected = mixed.weight * Categorical().loss(logits, labels) + (
        1 - mixed.weight
    ) * Categorical().loss(logits, mixed.partner_labels)
    np.testing.assert_allclose(metrics.loss, expected.mean(), rtol=1e-6)


def test_sam_descends_along_the_gradient_at_the_worst_neighbour(batch):
    inputs, labels = batch
    state = make_state()
    logits_fn = logits_of(state)

    def loss_fn(params):
        return jnp.mean(Categorical().loss(logits_fn(params, inputs), labels))

    @jax.jit
    def by_definition(params):
        gradient = jax.grad(loss_fn)(params)
        norm = optax.tree.norm(gradient)
        worst = jax.tree.map(lambda p, g: p + 0.3 * g / norm, params, gradient)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(worst))

    expected = by_definition(state.params)
    new, metrics = train_step(
        state, inputs, labels, settings=StepSettings(sam_radius=0.3),
        renew=False,
    )  # fmt: skip
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        new.params,
        expected,
    )
    np.testing.assert_allclose(metrics.loss, loss_fn(state.params), rtol=1e-6)


def test_the_gradient_norm_penalty_adds_lambda_times_the_norms_gradient(batch):
    inputs, labels = batch
    state = make_state()
    logits_fn = logits_of(state)
    radius, coefficient = 1e-2, 0.3

    def loss_fn(params):
        return jnp.mean(Categorical().loss(logits_fn(params, inputs), labels))

    def penalised(params):
        return loss_fn(params) + coefficient * optax.tree.norm(
            jax.grad(loss_fn)(params)
        )

    exact = jax.tree.map(
        lambda p, g: p - 0.1 * g,
        state.params,
        jax.jit(jax.grad(penalised))(state.params),
    )
    new, _ = train_step(
        state, inputs, labels, renew=False,
        settings=StepSettings(
            gradient_norm_radius=radius, gradient_norm_coefficient=coefficient
        ),
    )  # fmt: skip
    # To first order in the radius: the error is that of a difference quotient.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), new.params, exact
    )
    plain, _ = train_step(state, inputs, labels, settings=StepSettings(), renew=False)
    moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), plain.params, exact)
    assert max(jax.tree.leaves(moved)) > 1e-2


@pytest.mark.parametrize("kind", ["sam", "gradient_norm"])
def test_mixup_under_a_perturbed_gradient_is_the_mixed_loss(kind, batch):
    """Both gradients, at the parameters and ahead of them, are of the mixed loss."""
    inputs, labels = batch
    radius, coefficient = 0.1, 0.03
    state = make_state()
    logits_fn = logits_of(state)
    mixed = mixup(random_keys(state.key, state.step).mixup, inputs, labels, 0.8)
    one_hot = mixed.weight * jax.nn.one_hot(labels, CLASSES) + (
        1 - mixed.weight
    ) * jax.nn.one_hot(mixed.partner_labels, CLASSES)

    def loss_fn(params):
        log_p = jax.nn.log_softmax(logits_fn(params, mixed.inputs))
        return -jnp.mean(jnp.sum(one_hot * log_p, axis=-1))

    gradient = jax.jit(jax.grad(loss_fn))
    here = gradient(state.params)
    norm = optax.tree.norm(here)
    ahead = gradient(
        jax.tree.map(lambda p, g: p + radius * g / norm, state.params, here)
    )
    share = 1.0 if kind == "sam" else coefficient / radius
    expected = jax.tree.map(
        lambda p, g, h: p - 0.1 * ((1 - share) * g + share * h),
        state.params,
        here,
        ahead,
    )
    chosen = (
        {"sam_radius": radius}
        if kind == "sam"
        else {"gradient_norm_radius": radius, "gradient_norm_coefficient": coefficient}
    )
    new, metrics = train_step(
        state, inputs, labels, settings=StepSettings(mixup_beta=0.8, **chosen),
        renew=False,
    )  # fmt: skip
    np.testing.assert_allclose(metrics.loss, loss_fn(state.params), rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        new.params,
        expected,
    )


@pytest.mark.parametrize("where", ["inputs", "params"])
def test_what_is_not_finite_is_reported(where, batch):
    inputs, labels = batch
    state = make_state()
    if where == "inputs":
        inputs = inputs.at[0, 0, 0, 0].set(jnp.nan)
    else:
        state = state.replace(params=jax.tree.map(lambda p: p * jnp.inf, state.params))
    _, metrics = train_step(state, inputs, labels, settings=StepSettings(), renew=False)
    assert metrics.first_bad != 0


def test_keys_depend_on_seed_and_step_alone():
    def bits(seed, step):
        keys = random_keys(jax.random.key(seed), jnp.int32(step))
        return [tuple(jax.random.key_data(key).tolist()) for key in keys]

    assert bits(0, 5) == bits(0, 5)
    drawn = [b for seed in (0, 1) for step in (0, 1) for b in bits(seed, step)]
    assert len(set(drawn)) == len(drawn)


def test_updates_start_at_the_first_step():
    steps = [step for step in range(20) if is_penalty_update(step, 6, 5)]
    assert steps == [6, 11, 16]


def test_eval_mode_makes_the_penalty_use_running_statistics(batch):
    inputs, labels = batch
    state = make_state(batch_norm=True, alpha=0.1)

    def logits_fn(params, x):
        variables = {"params": params, "batch_stats": state.batch_stats}
        return state.apply_fn(variables, x, train=False)

    key = random_keys(state.key, state.step).penalty
    expected = jax.jit(
        lambda p: naive_penalty("fisher", logits_fn, p, inputs, labels, key)
    )(state.params)
    values = {}
    for mode in ("train", "eval"):
        settings = StepSettings(PenaltySettings("fisher", batch_norm=mode))
        new, _ = train_step(state, inputs, labels, settings=settings, renew=True)
        values[mode] = float(penalty_value(new))
    np.testing.assert_allclose(values["eval"], expected, rtol=1e-5)
    assert abs(values["train"] - values["eval"]) > 1e-3 * values["eval"]
