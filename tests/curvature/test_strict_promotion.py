"""With JAX's strict promotion of dtypes and ranks, everything of ours still traces."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from fisher_jax import curvature, penalties
from fisher_jax.curvature import Bernoulli, Categorical, Gaussian

KEY = jax.random.key(0)
LIKELIHOODS = (Categorical(), Bernoulli(), Gaussian(0.5))


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def network(p, x):
    h = jax.lax.conv_general_dilated(
        x, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(h) @ p["w"]


def loss(p):
    return network(p, jnp.ones((2, 3, 3, 2), p["k"].dtype)).astype(jnp.float32).sum()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_functions_of_outputs(likelihood, dtype):
    params = {"k": jnp.ones((3, 3, 2, 4), dtype), "w": jnp.ones((4, 3), dtype)}
    inputs = jnp.ones((4, 3, 3, 2), dtype)
    shape = likelihood.positions((4, 3, 3, 3))
    options = {"likelihood": likelihood, "mask": jnp.ones(shape, bool)}
    targets = jnp.zeros(shape, jnp.int32)

    def everything(p):
        args = (network, p, inputs)
        kinds = itertools.product(
            ("per_example", "exact", "minibatch", "forward"), likelihood.draws
        )
        traces = [
            curvature.fisher_trace(
                *args, KEY, estimator=e, draw=d, num_draws=2, chunk_size=3, **options
            )
            for e, d in kinds
        ]
        slopes = [
            jax.grad(
                lambda p, d=d: penalties.fisher_penalty(
                    network, p, inputs, KEY, draw=d, num_groups=2, **options
                )
            )(p)
            for d in likelihood.draws
        ]
        return (
            traces,
            slopes,
            curvature.squared_gradient_norms(*args, targets, **options),
            curvature.fisher_vector_product(*args, p, **options),
            curvature.fisher_diagonal(*args, KEY, **options),
            penalties.gradient_penalty(*args, targets, **options),
            jax.grad(
                lambda p: penalties.input_gradient_penalty(
                    network, p, inputs, targets, chunk_size=3, **options
                )
            )(p),
        )

    jax.eval_shape(everything, params)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_functions_of_a_loss(dtype):
    params = {"k": jnp.ones((3, 3, 2, 4), dtype), "w": jnp.ones((4, 3), dtype)}

    def everything(p):
        operator = curvature.hessian_operator(loss, p)
        return (
            curvature.hessian_trace(loss, p, KEY),
            curvature.hessian_trace(loss, p, KEY, method="forward"),
            curvature.hessian_xtrace(loss, p, KEY),
            curvature.largest_eigenvalue(loss, p, KEY),
            curvature.hessian_diagonal(loss, p, KEY),
            curvature.layer_hessian_traces(loss, p, KEY),
            curvature.eigenpairs(operator, p, KEY, num=2),
            curvature.spectral_density(operator, p, KEY),
        )

    jax.eval_shape(everything, params)
