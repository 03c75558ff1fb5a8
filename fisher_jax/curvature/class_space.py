"""Logits, labels and the cotangents whose pullbacks have the Fisher as covariance.

With J = ∂logits/∂θ and p = softmax(logits), F = E_x[Jᵀ (diag p − p pᵀ) J]. A random v
in class space with E[v vᵀ] = diag p − p pᵀ gives E‖Jᵀ v‖² = Tr(F). Three such draws:

* "labels": v = p − onehot(ŷ) with ŷ ~ p, the gradient of the cross-entropy of a
  sampled label (the paper's; Jastrzebski et al. 2021, section 2).
* "rademacher": v = S z with S = diag √p − p √pᵀ, S Sᵀ = diag p − p pᵀ, and z
  independent signs: v_c = √p_c z_c − p_c Σ_k √p_k z_k.
* "importance": v = ±√(p_c/q_c) (p − onehot(c)) with a random sign and a label c drawn
  with q_c ∝ p_c ‖p − onehot(c)‖², so that all v of an example have one length,
  ‖v‖² = Tr(diag p − p pᵀ), and rare labels are neither missed nor weigh too much.

The noise z (for labels: Gumbel noise) does not depend on θ and is drawn for the whole
batch at once, [num_draws, B, ...], so that no result depends on how the batch is cut.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fisher_jax import axes, trees

LogitsFn = Callable[[Any, Any], Float[Array, "B C"]]

Draw = Literal["labels", "rademacher", "importance"]
DRAWS = ("labels", "rademacher", "importance")


def at_least_float32(logits: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Logits in the precision in which probabilities are computed."""
    return logits.astype(trees.accumulation_dtype(logits))


@trees.highest_precision
def sample_labels(key: PRNGKeyArray, logits: Float[Array, "*B C"]) -> Int[Array, "*B"]:
    """Labels ŷ ~ softmax(logits) by the Gumbel-max trick: argmax_c(logits + gumbel).

    With the same key and the logits of the whole batch these are the labels drawn by
    ``fisher_penalty(draw="labels")``, and by ``fisher_trace(draw="labels")``,
    ``minibatch_fisher_trace`` and ``layer_fisher_traces(draw="labels")`` with one draw.

    Args:
        key: a PRNG key, typed or legacy.
        logits: [..., C], any floating-point dtype; taken in at least float32.

    Returns:
        int32 labels [...]. They are constants for differentiation.

    Raises:
        TypeError: if logits are not floating point, or key is no key.
        ValueError: if logits have no class axis, or key is missing.
    """
    key = trees.checked_key(key)
    if not trees.is_floating(logits):
        raise TypeError(
            "logits: expected a floating-point array [..., C], got "
            f"{trees.described(logits)}"
        )
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits: expected [..., C] with C ≥ 1, got {trees.described(logits)}"
        )
    logits = at_least_float32(logits)
    return _argmax(logits, jax.random.gumbel(key, logits.shape, logits.dtype))


def _argmax(
    logits: Float[Array, "*B C"], noise: Float[Array, "*B C"]
) -> Int[Array, "*B"]:
    return jnp.argmax(jax.lax.stop_gradient(logits) + noise, axis=-1).astype(jnp.int32)


def class_noise(
    key: PRNGKeyArray | None,
    draw: Draw,
    logits: jax.ShapeDtypeStruct,
    *,
    num_draws: int = 1,
    axis_name: axes.AxisName = None,
) -> Float[Array, "draws B N"]:
    """The noise from which ``random_cotangent`` makes its draws.

    N is C, for "importance" C + 1: Gumbel noise and a sign.

    Args:
        key: a PRNG key, the same on all devices.
        draw: one of ``DRAWS``.
        logits: shape [B, C] and dtype of the (local) logits.
        num_draws: independent draws per example.
        axis_name: inside shard_map, the mesh axes along which the batch is split: the
            noise of the global batch is drawn and this device's rows returned.

    Raises:
        TypeError: if key is no key.
        ValueError: if the key is missing or ``draw`` unknown.
    """
    trees.check_choice("draw", draw, DRAWS)
    key = trees.checked_key(key)
    batch, classes = logits.shape
    shape = (num_draws, batch * axes.size(axis_name), classes)
    dtype = trees.accumulation_dtype(logits)
    if draw == "importance":
        gumbel_key, sign_key = jax.random.split(key)
        gumbel = jax.random.gumbel(gumbel_key, shape, dtype)
        signs = jax.random.rademacher(sign_key, (*shape[:2], 1), dtype)
        noise = jnp.concatenate([gumbel, signs], axis=-1)
    else:
        sample = jax.random.gumbel if draw == "labels" else jax.random.rademacher
        noise = sample(key, shape, dtype)
    return axes.own_rows(noise, axis_name, axis=1)


def random_cotangent(
    draw: Draw, logits: Float[Array, "*B C"], noise: Float[Array, "*B N"]
) -> Float[Array, "*B C"]:
    """v with E[v vᵀ] = diag p − p pᵀ, differentiable in logits.

    Sampled labels are constants: ∂v/∂logits is then diag p − p pᵀ, symmetric. For
    "rademacher" and "importance" it is not symmetric. All stay finite as p → 0: √p is
    the exponential of half a log-probability.
    """
    logits = at_least_float32(logits)
    if draw == "labels":
        return label_cotangent(logits, _argmax(logits, noise))
    if draw == "importance":
        return _importance_cotangent(logits, noise[..., :-1], noise[..., -1:])
    root = jnp.exp(0.5 * jax.nn.log_softmax(logits))
    total = jnp.sum(root * noise, axis=-1, keepdims=True)
    return root * noise - root**2 * total


def _importance_cotangent(
    logits: Float[Array, "*B C"],
    gumbel: Float[Array, "*B C"],
    sign: Float[Array, "*B 1"],
) -> Float[Array, "*B C"]:
    """sign √(p_c/q_c) (p − onehot(c)), c ~ q ∝ p_c ‖p − onehot(c)‖², q a constant."""
    log_p = jax.nn.log_softmax(logits)
    length = _squared_deviations(jax.lax.stop_gradient(jnp.exp(log_p)))
    log_q = jax.lax.stop_gradient(log_p) + jnp.log(length)
    label = jnp.argmax(log_q + gumbel, axis=-1, keepdims=True)
    # With one class, or p = 1 to the last bit, there is no label to draw and v is zero.
    is_drawn = jnp.isfinite(jnp.take_along_axis(log_q, label, axis=-1))
    log_q = jnp.where(is_drawn, log_q, 0)
    ratio = jnp.take_along_axis(jnp.where(is_drawn, log_p, 0) - log_q, label, axis=-1)
    log_weight = ratio + jax.nn.logsumexp(log_q, axis=-1, keepdims=True)
    weight = jnp.where(is_drawn, sign * jnp.exp(0.5 * log_weight), 0)
    chosen = jax.nn.one_hot(label[..., 0], log_p.shape[-1], dtype=jnp.bool_)
    return weight * _deviation(jnp.exp(log_p), chosen)


def _squared_deviations(p: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """‖p − onehot(c)‖² for every c, of sums over the other classes.

    The likeliest class is kept out of the sums: from a total that holds almost all of
    it, its own deviation could not be told.
    """
    likeliest = jnp.argmax(p, axis=-1, keepdims=True)
    is_likeliest = jnp.arange(p.shape[-1]) == likeliest
    most = jnp.max(p, axis=-1, keepdims=True)
    others = jnp.where(is_likeliest, 0, p)
    total = jnp.sum(others, axis=-1, keepdims=True)
    squares = jnp.sum(others**2, axis=-1, keepdims=True)
    of_another = (most + (total - p)) ** 2 + most**2 + (squares - p**2)
    return jnp.where(is_likeliest, total**2 + squares, of_another)


def label_cotangent(
    logits: Float[Array, "*B C"], labels: Int[Array, "*B"]
) -> Float[Array, "*B C"]:
    """∂ℓ/∂logits = p − onehot(label), ℓ the cross-entropy of one example."""
    p = jax.nn.softmax(at_least_float32(logits))
    return _deviation(p, jax.nn.one_hot(labels, p.shape[-1], dtype=jnp.bool_))


def _deviation(p: Float[Array, "*B C"], onehot: Bool[Array, "*B C"]) -> Array:
    """p − onehot, the label's entry as minus the sum of the others.

    Late in training p_label rounds to one, and p_label − 1 to nothing but rounding.
    """
    others = jnp.where(onehot, 0, p)
    return jnp.where(onehot, -jnp.sum(others, axis=-1, keepdims=True), others)


def enumerated_cotangents(logits: Float[Array, " C"]) -> Float[Array, "C C"]:
    """Rows v_c = √p_c (p − onehot(c)): Σ_c v_c v_cᵀ = diag p − p pᵀ exactly."""
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    every_label = jnp.eye(log_p.size, dtype=jnp.bool_)
    return jnp.exp(0.5 * log_p)[:, None] * _deviation(jnp.exp(log_p), every_label)


def covariance_product(
    logits: Float[Array, "*B C"], tangents: Float[Array, "*B C"]
) -> Float[Array, "*B C"]:
    """(diag p − p pᵀ) tangents, per example."""
    p, centred = _centre(logits, tangents)
    return p * centred


def class_variance(
    logits: Float[Array, "*B C"], tangents: Float[Array, "*B C"]
) -> Float[Array, "*B"]:
    """tangentsᵀ (diag p − p pᵀ) tangents ≥ 0, the variance over c ~ p, per example."""
    p, centred = _centre(logits, tangents)
    return jnp.sum(p * centred**2, axis=-1)


def _centre(
    logits: Float[Array, "*B C"], tangents: Float[Array, "*B C"]
) -> tuple[Array, Array]:
    """p, and the tangents minus their mean under p."""
    p = jax.nn.softmax(at_least_float32(logits))
    tangents = tangents.astype(p.dtype)
    # Relative to the likeliest class first: its own deviation from the mean, of the
    # order of 1 − p, would otherwise be lost in rounding when p is close to one.
    likeliest = jnp.argmax(p, axis=-1, keepdims=True)
    tangents = tangents - jnp.take_along_axis(tangents, likeliest, axis=-1)
    return p, tangents - jnp.sum(p * tangents, axis=-1, keepdims=True)


def cross_entropies(
    logits: Float[Array, "*B C"], labels: Int[Array, "*B"]
) -> Float[Array, "*B"]:
    """−log p_label of every example, in nats."""
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def batch_size(inputs: PyTree) -> int:
    """B of inputs [B, ...].

    Raises:
        ValueError: if there is no example, or leading axes differ.
    """
    shapes = [jnp.shape(a) for a in jax.tree.leaves(inputs)]
    sizes = {s[0] if s else 0 for s in shapes}
    if len(sizes) != 1 or sizes == {0}:
        # A nested list is a pytree of as many scalars as it holds numbers.
        more = f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
        raise ValueError(
            "inputs: expected an array [B, ...] (or several) with one B ≥ 1, got "
            f"shapes {shapes[:8]}{more}"
        )
    return sizes.pop()


def logits_shape(
    logits_fn: Callable[[Any, Any], Any], params: PyTree, inputs: PyTree
) -> jax.ShapeDtypeStruct:
    """Shape [B, C] and dtype of the logits, without computing them.

    Raises:
        TypeError: if logits_fn is no function, or returns no floating-point array.
        ValueError: if the shape is not [B, C].
    """
    batch = batch_size(inputs)
    trees.check_function("logits_fn", logits_fn)
    logits: Any = jax.eval_shape(logits_fn, params, inputs)
    expected = f"logits_fn: expected floating-point logits [B, C] = [{batch}, C]"
    if not trees.is_floating(logits):
        raise TypeError(f"{expected}, got {trees.described(logits)}")
    shape = logits.shape
    if len(shape) != 2 or shape[0] != batch or shape[1] == 0:
        raise ValueError(
            f"{expected} for {batch} inputs, got {trees.described(logits)}"
        )
    return jax.ShapeDtypeStruct(shape, logits.dtype)


def check_labels(labels: Array, batch: int, num_classes: int) -> None:
    """Refuses what is no [B] array of class numbers.

    The values of labels that are traced (an argument of the caller's ``jax.jit``) or
    partly on other machines are not known here, and not checked.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if the shape is not [B], or a value not in 0 .. C − 1.
    """
    expected = f"labels: expected integers [B] = [{batch}]"
    array = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{expected}, got {trees.described(array)}")
    if array.shape != (batch,):
        raise ValueError(f"{expected}, got {trees.described(array)}")
    if isinstance(array, jax.core.Tracer):
        return
    if not getattr(array, "is_fully_addressable", True):
        return
    values = np.asarray(array)
    least, greatest = int(values.min()), int(values.max())
    if least < 0 or greatest >= num_classes:
        raise ValueError(
            f"{expected} from 0 to {num_classes - 1}, as there are {num_classes} "
            f"logits, got values from {least} to {greatest} in an array of "
            f"{trees.described(array)}"
        )
