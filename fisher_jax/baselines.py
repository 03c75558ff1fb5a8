"""What the Fisher Penalty is compared with but is no penalty: mixup, SAM and kin.

Pure functions: mixup changes a batch, the others return a gradient to descend along.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fisher_jax.curvature import trees


class Mixed(NamedTuple):
    """A mixed batch; its loss is weight ℓ(labels) + (1 − weight) ℓ(partner_labels).

    Attributes:
        inputs: weight · inputs + (1 − weight) · the partners' inputs, [B, ...].
        labels: [B], as they came.
        partner_labels: [B], those of each example's partner.
        weight: λ, a scalar in [0, 1].
    """

    inputs: Float[Array, "B ..."]
    labels: Int[Array, " B"]
    partner_labels: Int[Array, " B"]
    weight: Float[Array, ""]


def mixup(
    key: PRNGKeyArray,
    inputs: Float[Array, "B ..."],
    labels: Int[Array, " B"],
    beta: float,
) -> Mixed:
    """Mixes each example with a partner from the batch, Zhang et al. 2018.

    λ ~ Beta(beta, beta), one for the batch, and partners by a random permutation, as
    in the authors' code (arXiv:1710.09412). The paper's table 3 takes beta from
    {0.2, 0.4, 0.8, 1.6, 3.2, 6.4}.

    Args:
        key: a PRNG key.
        inputs: [B, ...], floating point.
        labels: integers [B].
        beta: both parameters of the beta distribution, above 0.

    Raises:
        ValueError: beta is not above 0.
    """
    if beta <= 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    weight_key, partner_key = jax.random.split(key)
    weight = jax.random.beta(weight_key, beta, beta, dtype=inputs.dtype)
    partners = jax.random.permutation(partner_key, inputs.shape[0])
    mixed = weight * inputs + (1 - weight) * inputs[partners]
    return Mixed(mixed, labels, labels[partners], weight)


def sam_gradient(
    loss_fn: Callable[[PyTree], Any],
    params: PyTree,
    radius: float,
    *,
    has_aux: bool = False,
) -> tuple[Any, PyTree]:
    """Sharpness-aware minimisation: ∇L(θ + ρ ∇L(θ)/‖∇L(θ)‖), Foret et al. 2021.

    Two gradients; the dependence of the neighbour on θ is left out, as in eq. 3 of
    arXiv:2010.01412. At a zero gradient the neighbour is θ itself.

    Args:
        loss_fn: params -> scalar, or (scalar, auxiliary values) with ``has_aux``.
        params: pytree of floating-point arrays.
        radius: ρ, at least 0.
        has_aux: as in ``jax.value_and_grad``.

    Returns:
        What ``jax.value_and_grad(loss_fn, has_aux=has_aux)(params)`` returns, value
        and auxiliary values at θ, with the gradient taken at the neighbour.
    """
    value, gradient = jax.value_and_grad(loss_fn, has_aux=has_aux)(params)
    neighbour = _ascend(params, gradient, radius)
    at_neighbour = jax.grad(loss_fn, has_aux=has_aux)(neighbour)
    return value, at_neighbour[0] if has_aux else at_neighbour


def gradient_norm_gradient(
    loss_fn: Callable[[PyTree], Float[Array, ""]],
    params: PyTree,
    coefficient: float,
    radius: float,
) -> tuple[Float[Array, ""], PyTree]:
    """The gradient of L + λ‖∇L‖ to first order, Zhao et al. 2022 (arXiv:2202.03599).

    (1 − λ/r) ∇L(θ) + (λ/r) ∇L(θ + r ∇L/‖∇L‖): the norm's gradient H∇L/‖∇L‖ by a
    finite difference of step r. λ = r gives SAM.

    Args:
        loss_fn: params -> scalar.
        params: pytree of floating-point arrays.
        coefficient: λ.
        radius: r, above 0.

    Returns:
        L(θ) and the gradient.
    """
    value, gradient = jax.value_and_grad(loss_fn)(params)
    at_neighbour = jax.grad(loss_fn)(_ascend(params, gradient, radius))
    share = coefficient / radius
    return value, jax.tree.map(
        lambda here, there: (1 - share) * here + share * there, gradient, at_neighbour
    )


def _ascend(params: PyTree, gradient: PyTree, radius: float) -> PyTree:
    """θ + radius · gradient/‖gradient‖."""
    squared = trees.squared_norm(gradient)
    scale = jnp.where(squared > 0, radius * jax.lax.rsqrt(squared), 0.0)
    return trees.step(params, scale, gradient)
