import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from fisher_jax.models.batch_norm import batch_norm, reestimate_batch_stats
from fisher_jax.train.step import create_state


class TwoNorms(nn.Module):
    """Batch norm twice, so that the second sees what the first makes of the batch."""

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.relu(batch_norm(train, jnp.float32)(nn.Conv(4, (3, 3))(inputs)))
        hidden = batch_norm(train, jnp.float32)(nn.Dense(5)(hidden))
        return nn.Dense(3)(hidden.mean((1, 2)))


def test_statistics_are_the_means_over_batches():
    state = create_state(TwoNorms(), optax.sgd(0.1), (4, 4, 2), 0)
    generator = np.random.default_rng(0)
    batches = [
        jnp.asarray(generator.normal(i, 1 + i, (6, 4, 4, 2)), jnp.float32)
        for i in range(3)
    ]
    stats = reestimate_batch_stats(
        state.apply_fn, state.params, state.batch_stats, batches
    )
    means, variances = [], []
    for inputs in batches:
        _, seen = state.apply_fn(
            {"params": state.params, "batch_stats": state.batch_stats},
            inputs,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Dense),
        )
        hidden = np.asarray(seen["intermediates"]["Dense_0"]["__call__"][0], np.float64)
        means.append(hidden.mean((0, 1, 2)))
        variances.append(hidden.var((0, 1, 2)))
    layer = stats["BatchNorm_1"]
    np.testing.assert_allclose(layer["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer["var"], np.mean(variances, 0), rtol=1e-4)


def test_one_batch_gives_that_batchs_normalisation():
    """Evaluated with its own statistics a batch has the logits of train mode."""
    state = create_state(TwoNorms(), optax.sgd(0.1), (4, 4, 2), 0)
    inputs = jax.random.normal(jax.random.key(1), (8, 4, 4, 2))
    stats = reestimate_batch_stats(
        state.apply_fn, state.params, state.batch_stats, [inputs]
    )
    variables = {"params": state.params, "batch_stats": stats}
    train, _ = state.apply_fn(variables, inputs, train=True, mutable=["batch_stats"])
    evaluated = state.apply_fn(variables, inputs, train=False)
    np.testing.assert_allclose(evaluated, train, rtol=1e-4, atol=1e-5)
