import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from fisher_jax import penalties
from fisher_jax.curvature import Categorical
from fisher_jax.penalties import add_penalty, fisher_penalty
from fisher_jax.train.gradients import PenaltySettings, StepSettings
from fisher_jax.train.step import (
    create_state,
    injected_penalty,
    penalty_value,
    random_keys,
    sgd,
    train_step,
)
from tests.curvature import networks


def penalty_of(problem, key):
    return lambda p: fisher_penalty(problem.logits_fn, p, problem.inputs, key)


def step_of(optimizer, problem):
    """A training step as a user writes it."""

    @jax.jit
    def step(params, state, key):
        gradient = jax.grad(problem.loss)(params)
        updates, state = optimizer.update(
            gradient, state, params, penalty_fn=penalty_of(problem, key)
        )
        return optax.apply_updates(params, updates), state

    return step


def trained(problem, steps, keys, **options):
    """Parameters after some steps with ``add_penalty``, and the optimizer's state."""
    optimizer = optax.chain(add_penalty(0.7, **options), optax.sgd(0.1, momentum=0.9))
    step = step_of(optimizer, problem)
    params, state = problem.params, optimizer.init(problem.params)
    for i in range(steps):
        params, state = step(params, state, keys[i])
    return params, state


def by_hand(problem, steps, keys, update_every, first_step):
    """The paper's text as a Python loop; also the penalty's latest value."""
    params = problem.params
    velocity = stale = jax.tree.map(jnp.zeros_like, params)
    value = 0
    for i in range(steps):
        if i >= first_step and (i - first_step) % update_every == 0:
            value, stale = jax.value_and_grad(penalty_of(problem, keys[i]))(params)
        velocity = jax.tree.map(
            lambda v, g, s: 0.9 * v + g + 0.7 * s,
            velocity,
            jax.grad(problem.loss)(params),
            stale,
        )
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
    return params, value


@pytest.mark.parametrize(("update_every", "first_step"), [(10, 0), (3, 4), (1, 0)])
def test_the_latest_gradient_is_added_in_every_step(update_every, first_step):
    with jax.enable_x64(True):
        problem = networks.build("mlp_tanh")
        keys = jax.random.split(jax.random.key(0), 12)
        options = {"update_every": update_every, "first_step": first_step}
        params, state = trained(problem, 12, keys, **options)
        expected, value = by_hand(problem, 12, keys, **options)
        assert_allclose(ravel_pytree(params)[0], ravel_pytree(expected)[0], rtol=1e-12)
        assert_allclose(state[0].penalty_value, value, rtol=1e-12)
        assert state[0].step == 12


def test_a_schedule_is_asked_at_every_step():
    params, alpha = jnp.arange(1.0, 4.0), optax.linear_schedule(0.0, 1.0, 4)
    optimizer = add_penalty(alpha, update_every=2)
    state = optimizer.init(params)
    update = jax.jit(
        lambda state: optimizer.update(
            jnp.zeros(3), state, params, penalty_fn=lambda p: jnp.sum(p**2)
        )
    )
    for step in range(6):
        added, state = update(state)
        assert_allclose(added, min(step / 4, 1) * 2 * params, rtol=1e-6)


def test_nothing_is_added_before_the_first_step():
    with jax.enable_x64(True):
        problem = networks.build("mlp_tanh")
        keys = jax.random.split(jax.random.key(0), 3)
        params, state = trained(problem, 3, keys, first_step=3)
        plain = optax.sgd(0.1, momentum=0.9)
        expected, plain_state = problem.params, plain.init(problem.params)
        for _ in range(3):
            gradient = jax.grad(problem.loss)(expected)
            updates, plain_state = plain.update(gradient, plain_state)
            expected = optax.apply_updates(expected, updates)
        assert_allclose(ravel_pytree(params)[0], ravel_pytree(expected)[0], rtol=1e-12)
        assert state[0].penalty_value == 0


def test_the_penalty_is_computed_only_where_it_is_renewed():
    evaluated = []
    optimizer = add_penalty(1.0, update_every=4)

    @jax.jit
    def update(state, params, number):
        def penalty(p):
            jax.debug.callback(lambda n: evaluated.append(int(n)), number)
            return jnp.sum(p**2)

        return optimizer.update(params, state, params, penalty_fn=penalty)

    params = jnp.ones(3)
    state = optimizer.init(params)
    for i in range(9):
        _, state = update(state, params, i)
    jax.effects_barrier()
    assert evaluated == [0, 4, 8]


@pytest.mark.parametrize("renew", [True, False])
def test_a_loop_that_knows_the_step_compiles_no_conditional(renew):
    with jax.enable_x64(True):
        problem = networks.build("mlp_tanh")
        key = jax.random.key(0)
        optimizer = add_penalty(0.7, update_every=3)
        # A step that renews (the 3rd) and one that does not, by the number alone.
        state = optimizer.init(problem.params)._replace(
            step=jnp.int32(3 if renew else 1),
            penalty_gradient=jax.tree.map(jnp.ones_like, problem.params),
        )
        gradient = jax.grad(problem.loss)(problem.params)

        def update(state, params, **options):
            return optimizer.update(gradient, state, params, **options)

        by_number = jax.jit(
            lambda s, p: update(s, p, penalty_fn=penalty_of(problem, key))
        )
        told = jax.jit(
            lambda s, p: update(
                s,
                p,
                penalty_fn=penalty_of(problem, key) if renew else None,
                renew=renew,
            )
        )
        arguments = state, problem.params
        jax.tree.map(
            lambda a, b: assert_allclose(a, b, rtol=1e-12),
            told(*arguments),
            by_number(*arguments),
        )
        assert "cond[" in str(jax.make_jaxpr(by_number)(*arguments))
        assert "cond[" not in str(jax.make_jaxpr(told)(*arguments))


def test_a_sweep_over_the_coefficient_compiles_once():
    traced = []

    def penalty(p):
        traced.append(1)
        return jnp.sum(p**2)

    injected = optax.inject_hyperparams(add_penalty, ("update_every", "first_step"))
    update = jax.jit(
        lambda state, p: injected(0.0).update(p, state, p, penalty_fn=penalty)[0]
    )
    params = jnp.ones(3)
    for coefficient in (0.5, 2.0, 7.0):
        total = update(injected(coefficient).init(params), params)
        assert_allclose(total, 1 + 2 * coefficient)
    assert len(traced) == 1


class Network(nn.Module):
    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.relu(nn.Conv(3, (3, 3))(inputs))
        return nn.Dense(3)(hidden.reshape(hidden.shape[0], -1))


@pytest.mark.parametrize("draw", ["labels", "rademacher"])
def test_any_optax_loop_takes_the_steps_of_main(draw):
    """Twelve steps of ``train_step``, which main.py takes, and of a loop of one's own.

    From the same parameters, on the same batches, with the same keys.
    """
    random = np.random.default_rng(0)
    inputs = jnp.asarray(random.normal(size=(12, 8, 4, 4, 1)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 3, (12, 8)), jnp.int32)
    schedule = optax.constant_schedule(0.1)
    theirs = create_state(
        Network(), sgd(schedule, 0.9, 1e-3, injected_penalty(0.5)), (4, 4, 1), 0
    )
    settings = StepSettings(PenaltySettings("fisher", draw=draw))
    main_step = jax.jit(train_step, static_argnames=("settings", "renew"))

    optimizer = optax.chain(
        add_penalty(0.5, update_every=5),
        optax.add_decayed_weights(1e-3),
        optax.sgd(0.1, momentum=0.9),
    )
    start = params = theirs.params
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, inputs, labels, key):
        def logits_fn(p, x):
            return Network().apply({"params": p}, x)

        gradient = jax.grad(
            lambda p: jnp.mean(Categorical().loss(logits_fn(p, inputs), labels))
        )(params)
        updates, state = optimizer.update(
            gradient,
            state,
            params,
            penalty_fn=lambda p: fisher_penalty(logits_fn, p, inputs, key, draw=draw),
        )
        return optax.apply_updates(params, updates), state

    for i in range(12):
        key = random_keys(theirs.key, i).penalty
        params, state = step(params, state, inputs[i], labels[i], key)
        update = penalties.is_penalty_update(i, 0, 5)
        theirs, _ = main_step(
            theirs,
            inputs[i],
            labels[i],
            settings=settings,
            renew=update,
        )
    moved = ravel_pytree(theirs.params)[0]
    assert np.linalg.norm(moved - ravel_pytree(start)[0]) > 0.1
    assert_allclose(ravel_pytree(params)[0], moved, rtol=1e-5, atol=1e-7)
    assert_allclose(state[0].penalty_value, penalty_value(theirs), rtol=1e-5)


def test_any_chain_takes_it():
    """Adam behind a clipped gradient, with a coefficient that changes along the way."""
    with jax.enable_x64(True):
        problem = networks.build("mlp_tanh")
        key = jax.random.key(0)
        rest = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01))
        optimizer = optax.chain(
            optax.inject_hyperparams(add_penalty, ("update_every", "first_step"))(0.5),
            rest,
        )
        state = optimizer.init(problem.params)
        state[0].hyperparams["coefficient"] = jnp.float64(2.0)
        step = step_of(optimizer, problem)
        params, state = step(problem.params, state, key)
        gradient = jax.grad(
            lambda p: problem.loss(p) + 2 * penalty_of(problem, key)(p)
        )(problem.params)
        updates, _ = rest.update(gradient, rest.init(problem.params), problem.params)
        expected = optax.apply_updates(problem.params, updates)
        assert_allclose(ravel_pytree(params)[0], ravel_pytree(expected)[0], rtol=1e-12)


def test_low_precision_gradients_stay_so():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = add_penalty(jnp.float32(0.5))
    total, state = jax.jit(
        lambda s, p: optimizer.update(
            p, s, p, penalty_fn=lambda q: jnp.sum(q["w"].astype(jnp.float32) ** 2)
        )
    )(optimizer.init(params), params)
    assert total["w"].dtype == jnp.bfloat16
    assert state.penalty_value.dtype == jnp.float32
    assert_allclose(total["w"].astype(jnp.float32), 2.0)


def test_wrong_arguments_are_named():
    params = {"w": jnp.ones(3)}
    optimizer = add_penalty(0.1)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="params: needed"):
        optimizer.update(params, state, penalty_fn=lambda p: p["w"].sum())
    with pytest.raises(ValueError, match="penalty_fn: expected a function"):
        optimizer.update(params, state, params)
    with pytest.raises(TypeError, match=r"penalty_fn.*scalar.*3"):
        optimizer.update(params, state, params, penalty_fn=lambda p: p["w"])
    with pytest.raises(TypeError, match=r"renew: expected a Python bool.*int32"):
        optimizer.update(params, state, params, renew=jnp.int32(1))
    with pytest.raises(ValueError, match=r"update_every.*at least 1.*0"):
        add_penalty(0.1, update_every=0)
    with pytest.raises(ValueError, match=r"first_step.*at least 0.*-1"):
        add_penalty(0.1, first_step=-1)
    with pytest.raises(TypeError, match=r"params\['w'\].*int32"):
        optimizer.init({"w": jnp.arange(3)})


def test_inside_a_mask_it_says_where_it_belongs():
    params = {"w": jnp.ones(3), "frozen": jnp.ones(2)}
    labels = {"w": "trained", "frozen": "fixed"}
    wrapped = [
        optax.masked(penalties.add_penalty(0.1), {"w": True, "frozen": False}),
        optax.multi_transform(
            {"trained": penalties.add_penalty(0.1), "fixed": optax.set_to_zero()},
            labels,
        ),
    ]
    for optimizer in wrapped:
        with pytest.raises(ValueError, match=r"outside: optax.chain\(add_penalty"):
            optimizer.init(params)
    # Where nothing is hidden nothing is wrong.
    optax.masked(penalties.add_penalty(0.1), {"w": True, "frozen": True}).init(params)
