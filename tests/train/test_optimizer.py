import jax.numpy as jnp
import numpy as np
import optax

from fisher_jax.train.step import sgd, step_decay


def test_the_rate_drops_with_the_first_step_of_its_epoch():
    schedule = step_decay(0.5, 0.1, (2, 3), steps_per_epoch=10)
    rates = [float(schedule(step)) for step in (0, 19, 20, 29, 30, 99)]
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-6)


def test_sgd_follows_pytorchs_definition():
    """d = g + wd w; v = m v + d; w = w - rate v (torch.optim.SGD's documentation)."""
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(6, 5))
    params = generator.normal(size=5)
    optimizer = sgd(step_decay(0.1, 0.5, (1,), 3), momentum=0.9, weight_decay=0.01)
    ours = jnp.asarray(params, jnp.float32)
    state = optimizer.init(ours)
    velocity = np.zeros(5)
    for step, gradient in enumerate(gradients):
        velocity = 0.9 * velocity + gradient + 0.01 * params
        params = params - (0.1 if step < 3 else 0.05) * velocity
        update, state = optimizer.update(jnp.asarray(gradient), state, ours)
        ours = optax.apply_updates(ours, update)
    np.testing.assert_allclose(ours, params, rtol=2e-6)
