"""Small networks and their densely materialised curvature, in float64.

``build`` must run under ``jax.enable_x64``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

NUM_CLASSES = 4

# Small programs that run once: compiling them is what takes time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Problem(NamedTuple):
    logits_fn: Callable[[Any, Any], jax.Array]
    params: Any
    inputs: jax.Array
    labels: jax.Array

    def loss(self, params):
        return mean_cross_entropy(self.logits_fn, params, self.inputs, self.labels)


class Dense(NamedTuple):
    jacobian: np.ndarray  # [B, C, P]
    probabilities: np.ndarray  # [B, C]
    gauss_newton: np.ndarray  # [P, P]
    fisher: np.ndarray  # [P, P], by enumeration of the classes
    hessian: np.ndarray  # [P, P]
    class_gradients: np.ndarray  # [B, C, P], of each example's loss for each label


def mean_cross_entropy(logits_fn, params, inputs, labels):
    log_p = jax.nn.log_softmax(logits_fn(params, inputs).astype(jnp.float64))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


def _dense(p, x):
    return x @ p["kernel"] + p["bias"]


def _conv(x, kernel, **options):
    options = {"strides": (1, 1), "padding": "SAME"} | options
    options["window_strides"] = options.pop("strides")
    return jax.lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def _max_pool(x):
    window, init = (1, 2, 2, 1), -jnp.inf
    return jax.lax.reduce_window(x, init, jax.lax.max, window, window, "VALID")


def mlp_tanh(p, x):
    return _dense(p["out"], jnp.tanh(_dense(p["in"], x)))


def mlp_relu(p, x):
    return _dense(p["out"], jax.nn.relu(_dense(p["in"], x)))


def conv_pool(p, x):
    h = _max_pool(jax.nn.relu(_conv(x, p["conv"]["kernel"]) + p["conv"]["bias"]))
    return _dense(p["out"], h.reshape(h.shape[0], -1))


def conv_strided_grouped(p, x):
    h = jax.nn.relu(_conv(x, p["first"], strides=(2, 2)))
    h = _conv(h, p["grouped"], feature_group_count=2, padding="VALID")
    h = jax.nn.leaky_relu(h + p["bias"])
    return _dense(p["out"], h.mean(axis=(1, 2)))


def conv_deep_small_maps(p, x):
    # Few positions and many channels: where norms come from Gram matrices.
    h = jax.nn.relu(_conv(x, p["first"], strides=(3, 3)))
    h = jax.nn.relu(_conv(h, p["wide"], rhs_dilation=(2, 2), padding=((1, 2), (2, 2))))
    return _dense(p["out"], h.reshape(h.shape[0], -1))


def weight_norm(p, x):
    length = jnp.sqrt(jnp.sum(p["direction"] ** 2, axis=0))
    return _dense(p["out"], jnp.tanh(x @ (p["gain"] * p["direction"] / length)))


def conv_weight_norm(p, x):
    # Kernels that are no single parameter: their gradient is taken, then reduced.
    length = jnp.sqrt(jnp.sum(p["direction"] ** 2, axis=(0, 1, 2)))
    kernel = p["gain"] * p["direction"] / length
    h = jax.nn.relu(_conv(x, kernel, strides=(2, 1)))
    h = h + jax.nn.relu(_conv(h, p["shared"], feature_group_count=2))
    h = h + jax.nn.relu(_conv(h, p["shared"], feature_group_count=2))
    return _dense(p["out"], h.mean(axis=(1, 2)))


def batch_norm_eval(p, x):
    h = _conv(x, p["conv"])
    h = (h - 0.1) / jnp.sqrt(1.3 + 1e-5) * p["scale"] + p["bias"]
    h = _max_pool(jax.nn.relu(h))
    return _dense(p["out"], h.reshape(h.shape[0], -1))


def batch_norm_train(p, x):
    h = x @ p["in"]
    h = (h - h.mean(axis=0)) / jnp.sqrt(h.var(axis=0) + 1e-5) * p["scale"] + p["bias"]
    return _dense(p["out"], jax.nn.relu(h))


def shared_skip(p, x):
    h = _dense(p["in"], x)
    h = h + jax.nn.relu(h @ p["shared"])
    h = h + jax.nn.relu(h @ p["shared"])
    return _dense(p["out"], h)


def sequence(p, x):
    # Dense layers with several positions per example, a scan, a jitted block.
    h = jnp.tanh(x @ p["embed"])
    h = jax.jit(lambda h: jax.nn.relu(jnp.einsum("bti,oi->bto", h, p["wide"])))(h)

    def recur(carry, step):
        carry = jnp.tanh(step @ p["input"] + carry @ p["recurrent"])
        return carry, None

    start = jnp.zeros((x.shape[0], p["recurrent"].shape[0]), x.dtype)
    last, _ = jax.lax.scan(recur, start, jnp.moveaxis(h, 1, 0))
    return _dense(p["out"], last)


def _shapes(name):
    def dense(rows, columns):
        return {"kernel": (rows, columns), "bias": (columns,)}

    c = NUM_CLASSES
    image = (6, 6, 2)
    return {
        "mlp_tanh": ((5,), {"in": dense(5, 6), "out": dense(6, c)}),
        "mlp_relu": ((5,), {"in": dense(5, 6), "out": dense(6, c)}),
        "conv_pool": (
            image,
            {"conv": {"kernel": (3, 3, 2, 3), "bias": (3,)}, "out": dense(27, c)},
        ),
        "conv_strided_grouped": (
            image,
            {
                "first": (3, 3, 2, 4),
                "grouped": (2, 2, 2, 4),
                "bias": (4,),
                "out": dense(4, c),
            },
        ),
        "conv_deep_small_maps": (
            image,
            {"first": (3, 3, 2, 3), "wide": (2, 2, 3, 6), "out": dense(72, c)},
        ),
        "weight_norm": (
            (5,),
            {"direction": (5, 6), "gain": (6,), "out": dense(6, c)},
        ),
        "conv_weight_norm": (
            image,
            {
                "direction": (3, 3, 2, 4),
                "gain": (4,),
                "shared": (3, 3, 2, 4),
                "out": dense(4, c),
            },
        ),
        "batch_norm_eval": (
            image,
            {"conv": (3, 3, 2, 3), "scale": (3,), "bias": (3,), "out": dense(27, c)},
        ),
        "batch_norm_train": (
            (5,),
            {"in": (5, 6), "scale": (6,), "bias": (6,), "out": dense(6, c)},
        ),
        "shared_skip": (
            (5,),
            {"in": dense(5, 6), "shared": (6, 6), "out": dense(6, c)},
        ),
        "sequence": (
            (3, 5),
            {
                "embed": (5, 4),
                "wide": (9, 4),
                "input": (9, 4),
                "recurrent": (4, 4),
                "out": dense(4, c),
            },
        ),
    }[name]


# Where every logit is linear in each layer's weights, so that Tr(H) = Tr(F).
PIECEWISE_LINEAR = (
    "mlp_relu",
    "conv_pool",
    "conv_strided_grouped",
    "conv_deep_small_maps",
    "batch_norm_eval",
)
CURVED = ("mlp_tanh", "weight_norm", "conv_weight_norm", "shared_skip", "sequence")
NETWORKS = PIECEWISE_LINEAR + CURVED


@functools.cache
def build(name, batch=6, scale=0.4, seed=0):
    """A network with random parameters, inputs and labels.

    Args:
        name: one of NETWORKS or batch_norm_train.
        batch: examples.
        scale: of the parameters; larger ones make the model confident.
        seed: of everything.
    """
    assert jax.config.jax_enable_x64, "networks are built in float64"
    input_shape, shapes = _shapes(name)
    # NumPy: eager JAX would compile a program for every shape.
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda shape: jnp.asarray(scale * random.normal(size=shape)),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )
    inputs = jnp.asarray(random.normal(size=(batch, *input_shape)))
    labels = jnp.asarray(random.integers(NUM_CLASSES, size=batch), jnp.int32)
    return Problem(globals()[name], params, inputs, labels)


@functools.cache
def materialise(name, **options):
    """Jacobian, Fisher, Gauss–Newton and Hessian of ``build(name, **options)``."""
    problem = build(name, **options)
    flat, unravel = ravel_pytree(problem.params)

    def logits(v):
        return problem.logits_fn(unravel(v), problem.inputs)

    def losses(v):
        return -jax.nn.log_softmax(logits(v))

    def matrices(v):
        p = jax.nn.softmax(logits(v))
        jacobian, class_gradients = jax.jacrev(logits)(v), jax.jacrev(losses)(v)
        covariance = jax.vmap(lambda q: jnp.diag(q) - jnp.outer(q, q))(p)
        gauss_newton = jnp.einsum("bcp,bcd,bdq->pq", jacobian, covariance, jacobian)
        fisher = jnp.einsum("bc,bcp,bcq->pq", p, class_gradients, class_gradients)
        hessian = jax.hessian(lambda v: problem.loss(unravel(v)))(v)
        return Dense(
            jacobian,
            p,
            gauss_newton / len(p),
            fisher / len(p),
            hessian,
            class_gradients,
        )

    return jax.tree.map(np.asarray, jit(matrices)(flat))
