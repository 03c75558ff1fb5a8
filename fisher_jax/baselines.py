"""What penalties are compared with: mixup, SAM and the gradient-norm penalty.

Pure functions over callables and pytrees, like ``penalties``, but changes of the data
or of the gradient rather than scalars to add to a loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, trees

__all__ = [
    "Mixed",
    "gradient_norm_gradient",
    "mixup",
    "mixup_loss",
    "sam_gradient",
]

# loss_fn(params) -> scalar, or (scalar, aux) with has_aux=True.
LossFn = Callable[[Any], Any]


class Mixed(NamedTuple):
    """A batch mixed with itself.

    Attributes:
        inputs: λ x_i + (1 − λ) x_π(i), [B, ...].
        labels: y_i, as given, [B] or [B, C].
        partner_labels: y_π(i).
        weight: λ, a scalar.
    """

    inputs: Array
    labels: Array
    partner_labels: Array
    weight: Float[Array, ""]


def mixup(
    key: PRNGKeyArray, inputs: Float[Array, "B ..."], labels: Array, beta: float
) -> Mixed:
    """Mixes each example with a random partner of the batch.

    Zhang et al. 2018 (arXiv:1710.09412): λ ~ Beta(β, β), one λ per batch, partners by a
    permutation π. Train on λ ℓ(x̃, y) + (1 − λ) ℓ(x̃, y_π), ``mixup_loss``; for
    cross-entropy this is the loss on the mixed one-hot labels.

    >>> inputs, labels = jnp.arange(4.0).reshape(4, 1), jnp.arange(4)
    >>> mixed = mixup(jax.random.key(0), inputs, labels, beta=0.2)
    >>> mixed.inputs.shape, mixed.labels.shape, mixed.partner_labels.shape
    ((4, 1), (4,), (4,))

    Args:
        key: a PRNG key.
        inputs: [B, ...], floating point.
        labels: integers [B], or one-hot or soft labels [B, C].
        beta: β > 0; 1 mixes uniformly, small values hardly.

    Returns:
        The mixed inputs in the dtype given, both sets of labels, and λ in at least
        float32.

    Raises:
        TypeError: inputs that are not floating point.
        ValueError: beta ≤ 0, or as many labels as inputs are not given.
    """
    if not beta > 0:
        raise ValueError(f"beta: expected a positive number, got {beta}")
    if not trees.is_floating(inputs):
        raise TypeError(f"inputs: expected floating point to mix, got {inputs.dtype}")
    if labels.shape[:1] != inputs.shape[:1] or labels.ndim not in (1, 2):
        raise ValueError(
            f"labels: expected [B] or [B, C] for inputs {inputs.shape}, "
            f"got {labels.shape}"
        )
    weight_key, partner_key = jax.random.split(key)
    dtype = trees.accumulation_dtype(inputs)
    weight = jax.random.beta(weight_key, beta, beta, dtype=dtype)
    partner = jax.random.permutation(partner_key, inputs.shape[0])
    mixed = weight * inputs + (1 - weight) * axes.rows(inputs, partner)
    partner_labels = axes.rows(labels, partner)
    return Mixed(mixed.astype(inputs.dtype), labels, partner_labels, weight)


def mixup_loss(
    loss_fn: Callable[[Array, Array], Array], outputs: Array, mixed: Mixed
) -> Array:
    """λ loss_fn(outputs, labels) + (1 − λ) loss_fn(outputs, partner_labels).

    >>> mixed = Mixed(jnp.ones(1), jnp.array([0.0]), jnp.array([1.0]), jnp.array(0.75))
    >>> square = lambda outputs, labels: (outputs - labels) ** 2
    >>> mixup_loss(square, jnp.zeros(1), mixed)
    Array([0.25], dtype=float32)
    """
    own = loss_fn(outputs, mixed.labels)
    return mixed.weight * own + (1 - mixed.weight) * loss_fn(
        outputs, mixed.partner_labels
    )


def sam_gradient(
    loss_fn: LossFn, params: PyTree, radius: float, *, has_aux: bool = False
) -> tuple[Any, PyTree]:
    """The gradient of sharpness-aware minimisation, ∇L(θ + ρ ∇L(θ)/‖∇L(θ)‖).

    Foret et al. 2021 (arXiv:2010.01412), their first-order approximation of the
    gradient of max_{‖ε‖ ≤ ρ} L(θ + ε). Two gradients.

    >>> loss, gradient = sam_gradient(lambda p: jnp.sum(p**2), jnp.ones(1), radius=0.5)
    >>> gradient
    Array([3.], dtype=float32)

    Args:
        loss_fn: maps params to a scalar, or to (scalar, aux) with ``has_aux``.
        params: pytree of floating-point arrays.
        radius: ρ ≥ 0; at 0 this is the plain gradient.
        has_aux: whether loss_fn returns auxiliary values.

    Returns:
        What ``jax.value_and_grad`` returns, (loss, gradient) or ((loss, aux),
        gradient): loss and aux at params, the gradient at the perturbed point. Where
        the gradient is zero, params are not perturbed.

    Raises:
        TypeError: integer parameters or a loss that is no scalar.
        ValueError: radius < 0, or empty parameters.
    """
    value, _, ahead = _gradient_here_and_ahead(loss_fn, params, radius, has_aux)
    return value, ahead


def gradient_norm_gradient(
    loss_fn: LossFn,
    params: PyTree,
    radius: float,
    balance: float | Float[Array, ""],
    *,
    has_aux: bool = False,
) -> tuple[Any, PyTree]:
    """The gradient of L + λ ‖∇L‖ to first order.

    Zhao et al. 2022 (arXiv:2202.03599, algorithm 1): with g = ∇L(θ),
    (1 − a) g + a ∇L(θ + r g/‖g‖), a = λ/r; a = 1 is SAM. Two gradients.

    >>> loss_fn = lambda params: jnp.sum(params**2)
    >>> loss, gradient = gradient_norm_gradient(loss_fn, jnp.ones(1), 0.5, balance=0.5)
    >>> gradient
    Array([2.5], dtype=float32)

    Args:
        loss_fn: maps params to a scalar, or to (scalar, aux) with ``has_aux``.
        params: pytree of floating-point arrays.
        radius: r ≥ 0.
        balance: a, the share of the gradient at the perturbed point.
        has_aux: whether loss_fn returns auxiliary values.

    Returns:
        (loss, gradient) or ((loss, aux), gradient), as ``sam_gradient``.

    Raises:
        TypeError: integer parameters or a loss that is no scalar.
        ValueError: radius < 0, or empty parameters.
    """
    value, here, ahead = _gradient_here_and_ahead(loss_fn, params, radius, has_aux)
    mixed = jax.tree.map(lambda g, h: (1 - balance) * g + balance * h, here, ahead)
    return value, mixed


def _gradient_here_and_ahead(
    loss_fn: LossFn, params: PyTree, radius: float, has_aux: bool
) -> tuple[Any, PyTree, PyTree]:
    """Loss (and aux) and gradient at params, and the gradient a radius uphill."""
    if radius < 0:
        raise ValueError(f"radius: expected 0 or more, got {radius}")
    trees.check_params(params)
    trees.check_scalar(
        "loss_fn", lambda p: loss_fn(p)[0] if has_aux else loss_fn(p), params
    )
    value, here = jax.value_and_grad(loss_fn, has_aux=has_aux)(params)
    square = trees.squared_norm(here)
    # No division by zero, whose NaN a later where would not undo in a derivative.
    length = jnp.sqrt(jnp.where(square > 0, square, 1))
    ahead = jax.grad(loss_fn, has_aux=has_aux)(
        trees.step(params, radius / length, here)
    )
    return value, here, ahead[0] if has_aux else ahead
