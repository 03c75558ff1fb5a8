"""One network written in several ways gives one answer."""

import equinox
import flax.linen
import flax.nnx
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from fisher_jax import curvature, penalties, trees

BATCH = 4


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.relu(flax.linen.Conv(4, (3, 3), name="conv")(x))
        x = flax.linen.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return flax.linen.Dense(3, name="out")(x)


class Nnx(flax.nnx.Module):
    def __init__(self, rngs):
        self.conv = flax.nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.out = flax.nnx.Linear(36, 3, rngs=rngs)

    def __call__(self, x):
        x = flax.nnx.relu(self.conv(x))
        x = flax.nnx.max_pool(x, (2, 2), (2, 2))
        return self.out(x.reshape(x.shape[0], -1))


class Equinox(equinox.Module):
    conv: equinox.nn.Conv2d
    out: equinox.nn.Linear

    def __init__(self, key):
        self.conv = equinox.nn.Conv2d(2, 4, 3, padding="SAME", key=key)
        self.out = equinox.nn.Linear(36, 3, key=key)

    def __call__(self, x):
        """Logits of ONE example [6, 6, 2]; Equinox's layers know no batch."""
        x = jax.nn.relu(self.conv(jnp.moveaxis(x, -1, 0)))
        x = equinox.nn.MaxPool2d(2, 2)(x)
        return self.out(jnp.moveaxis(x, 0, -1).reshape(-1))


def haiku_network(x):
    x = jax.nn.relu(haiku.Conv2D(4, (3, 3), name="conv")(x))
    x = haiku.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID").reshape(x.shape[0], -1)
    return haiku.Linear(3, name="out")(x)


def plain_network(params, x):
    conv, out = params["conv"], params["out"]
    x = jax.lax.conv_general_dilated(
        x, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + conv["bias"])
    x = x.reshape(x.shape[0], 3, 2, 3, 2, 4).max(axis=(2, 4))
    return x.reshape(x.shape[0], -1) @ out["kernel"] + out["bias"]


def weights():
    random = np.random.default_rng(0)
    shapes = {
        "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "out": {"kernel": (36, 3), "bias": (3,)},
    }
    return jax.tree.map(
        lambda s: jnp.asarray(0.5 * random.normal(size=s), jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )


def plain():
    return plain_network, weights()


def linen():
    return lambda p, x: Linen().apply({"params": p}, x), weights()


def nnx():
    graph, state = flax.nnx.split(Nnx(flax.nnx.Rngs(0)))
    values = weights()
    for layer in ("conv", "out"):
        for name in ("kernel", "bias"):
            state[layer][name] = state[layer][name].replace(values[layer][name])
    return lambda p, x: flax.nnx.merge(graph, p)(x), state


def haiku_functions():
    network = haiku.without_apply_rng(haiku.transform(haiku_network))
    values = {
        layer: {"w": arrays["kernel"], "b": arrays["bias"]}
        for layer, arrays in weights().items()
    }
    return network.apply, values


def equinox_module():
    # Parameters are the module itself; what is not an array stays out of them.
    params, static = equinox.partition(Equinox(jax.random.key(0)), equinox.is_array)
    values = weights()
    params = equinox.tree_at(
        lambda m: (m.conv.weight, m.conv.bias, m.out.weight, m.out.bias),
        params,
        (
            jnp.transpose(values["conv"]["kernel"], (3, 2, 0, 1)),
            values["conv"]["bias"].reshape(4, 1, 1),
            values["out"]["kernel"].T,
            values["out"]["bias"],
        ),
    )
    return lambda p, x: jax.vmap(equinox.combine(p, static))(x), params


FRAMEWORKS = [plain, linen, nnx, haiku_functions, equinox_module]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_network_in_every_framework(framework):
    logits_fn, params = framework()
    random = np.random.default_rng(1)
    inputs = jnp.asarray(random.normal(size=(BATCH, 6, 6, 2)), jnp.float32)
    labels = jnp.asarray([0, 1, 2, 0], jnp.int32)

    def quantities(logits_fn, params):
        key = jax.random.key(0)
        network = (logits_fn, params, inputs)

        def loss(p):
            logits = logits_fn(p, inputs)
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels])

        value, slope = jax.value_and_grad(
            lambda p: penalties.fisher_penalty(logits_fn, p, inputs, key)
        )(params)
        return {
            "norms": curvature.squared_gradient_norms(*network, labels),
            "exact": curvature.fisher_trace(*network, estimator="exact").mean,
            "signs": curvature.fisher_trace(*network, key, chunk_size=2).mean,
            "layers": sum(
                jax.tree.leaves(curvature.layer_fisher_traces(*network, key))
            ),
            "eigenvalue": curvature.largest_eigenvalue(loss, params, key).value,
            "product": trees.squared_norm(curvature.hvp(loss, params, params)),
            "penalty": value,
            "slope": trees.squared_norm(slope),
        }

    got = jax.jit(lambda p: quantities(logits_fn, p))(params)
    expected = jax.jit(lambda p: quantities(plain_network, p))(weights())
    for name, value in expected.items():
        assert_allclose(got[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_probes_in_parameter_space_in_every_framework(framework):
    logits_fn, params = framework()
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, 6, 6, 2)))
    inputs = inputs.astype(jnp.float32)
    key = jax.random.key(3)

    def loss(p):
        return -jnp.mean(jax.nn.log_softmax(logits_fn(p, inputs))[:, 0])

    @jax.jit
    def traces(params):
        network = (logits_fn, params, inputs)
        exact = curvature.fisher_trace(*network, estimator="exact").mean
        forward = curvature.fisher_trace(
            *network, key, estimator="forward", num_draws=60
        )
        return exact, [
            forward,
            *(
                curvature.hessian_trace(loss, params, key, num_probes=60, method=method)
                for method in ("reverse", "forward")
            ),
        ]

    # The order of the parameters, and so the probes, differ between frameworks.
    exact, estimates = traces(params)
    for estimate in estimates:
        assert 0 < estimate.sem < 0.5 * exact
        assert abs(estimate.mean - exact) <= 4 * estimate.sem
