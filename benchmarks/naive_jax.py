"""The same quantities in the JAX that one writes first."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from benchmarks.networks import Problem
from fisher_jax.curvature import Categorical


def squared_norm(tree: PyTree) -> Float[Array, ""]:
    """Sum of squares over all leaves."""
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def penalty(
    problem: Problem, params: PyTree, labels: Int[Array, " B"]
) -> Float[Array, ""]:
    """‖∇ mean cross-entropy‖²; jax.grad of it is reverse over reverse."""

    def loss(p: PyTree) -> Float[Array, ""]:
        return jnp.mean(
            Categorical().loss(problem.logits_fn(p, problem.inputs), labels)
        )

    return squared_norm(jax.grad(loss)(params))


def fisher_penalty(problem: Problem, params: PyTree, key: Array) -> Float[Array, ""]:
    """FP: the penalty with labels drawn from the model."""
    logits = problem.logits_fn(params, problem.inputs)
    labels = jax.random.categorical(key, jax.lax.stop_gradient(logits))
    return penalty(problem, params, labels)


def _one_norm(problem: Problem, params: PyTree, example: Any) -> Float[Array, ""]:
    image, label = example

    def loss(p: PyTree) -> Float[Array, ""]:
        return Categorical().loss(problem.logits_fn(p, image[None]), label[None])[0]

    return squared_norm(jax.grad(loss)(params))


def trace_by_vmap(
    problem: Problem, params: PyTree, inputs: Array, labels: Int[Array, " B"]
) -> Float[Array, ""]:
    """Mean squared norm of per-example gradients, all at once."""
    norms = jax.vmap(lambda e: _one_norm(problem, params, e))((inputs, labels))
    return jnp.mean(norms)


def quadratic_form(problem: Problem, params: PyTree, key: Array) -> Float[Array, ""]:
    """z'Hz of one Gaussian probe, reverse over reverse."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    probe = jax.tree.unflatten(structure, drawn)

    def slope(p: PyTree) -> Float[Array, ""]:
        gradient = jax.grad(problem.loss_fn)(p)
        products = jax.tree.map(lambda g, z: jnp.sum(g * z), gradient, probe)
        return sum(jax.tree.leaves(products))

    product = jax.grad(slope)(params)
    forms = jax.tree.map(lambda h, z: jnp.sum(h * z), product, probe)
    return sum(jax.tree.leaves(forms))


def training_step(
    problem: Problem, coefficient: float, learning_rate: float, momentum: float
) -> Callable[..., tuple[PyTree, PyTree, PyTree]]:
    """Returns (params, velocity, penalty gradient, key, update) -> the new three.

    Stochastic gradient descent with momentum on cross-entropy plus a stale Fisher
    penalty; ``update`` is static.
    """

    def step(
        params: PyTree, velocity: PyTree, stale: PyTree, key: Array, update: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        gradient = jax.grad(problem.loss_fn)(params)
        if update:
            stale = jax.grad(lambda p: fisher_penalty(problem, p, key))(params)
        velocity = jax.tree.map(
            lambda v, g, s: momentum * v + g + coefficient * s,
            velocity,
            gradient,
            stale,
        )
        params = jax.tree.map(lambda p, v: p - learning_rate * v, params, velocity)
        return params, velocity, stale

    return jax.jit(step, static_argnames="update", donate_argnums=(0, 1, 2))


def number_of_parameters(params: PyTree) -> int:
    """Scalars in a pytree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
