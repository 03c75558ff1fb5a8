"""The Fisher Penalty and its rivals: differentiable scalars, without a factor α.

All but ``input_gradient_penalty`` are squared norms of a gradient over the batch,

    penalty(θ) = ‖g(θ)‖²,  g(θ) = (1/B) J(θ)ᵀ v(θ),

J = ∂logits/∂θ, v [B, C] a cotangent in class space. Their derivative is exact and never
reverse-over-reverse. With l̇ = J g and the TRANSPOSED Jacobian of v in its logits,
v̇ = (∂v/∂l)ᵀ l̇, it is

    ∇penalty = 2 (∂g/∂θ)ᵀ g = 2 d/dε [(1/B) J(θ + ε g)ᵀ (v + ε v̇)] at ε = 0,

one Jacobian-vector product of a gradient: about three gradients in all, value
included. ``jax.grad``, ``jax.value_and_grad``, ``jax.jvp`` and higher derivatives in
``params`` work, under ``jit`` and ``vmap`` too; the value alone costs one gradient.
Derivatives in anything else (inputs, arrays that ``logits_fn`` closes over) are
refused: stop their gradient. Labels and noise are constants.

``logits_fn(params, inputs) -> logits`` sees the whole batch at once, so it may use the
batch's statistics (batch normalisation in training mode). Matrix products are in full
float32, sums in at least float32.

On a device mesh every penalty means the global batch. Under ``jit`` with sharded arrays
that is so by itself; inside ``jax.shard_map`` pass ``axis_name``, the mesh axes along
which the batch is split, and the same key on every device. The gradient in replicated
params is that of the whole batch; in params that each device holds as its own
(``jax.lax.pcast``), it is this device's part of the sum, for the caller to add up.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fisher_jax import axes, loops, trees
from fisher_jax.curvature import class_space
from fisher_jax.curvature.class_space import Draw, LogitsFn
from fisher_jax.penalties import derivative
from fisher_jax.penalties.derivative import Method


@trees.highest_precision
def fisher_penalty(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    draw: Draw = "labels",
    method: Method = "exact",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """‖(1/B) Σ_i J_iᵀ v_i‖² with random v_i, E[v vᵀ] = diag p − p pᵀ.

    ``draw="labels"``: FP, the paper's Fisher Penalty (Jastrzebski et al. 2021, eq. 3
    and 5): v_i = p_i − onehot(ŷ_i), the gradient on labels ŷ_i ~ p(y|x_i) drawn from
    the model, one per example, and constants for differentiation. Its value is an
    unbiased estimate of Tr(F)/B; its gradient is not one of ∇Tr(F)/B, because the
    distribution of the labels changes with θ too.

    ``draw="rademacher"``: RFP, the Reparameterised Fisher Penalty: v_i = S_i z_i with
    S = diag √p − p √pᵀ and random signs z that do not depend on θ, while S is
    differentiated. Value AND gradient are unbiased, at the same cost.

    ``draw="importance"``: the same with labels drawn by importance, whose weights are
    differentiated (see ``curvature.class_space``).

    Where examples interact (batch normalisation in training mode) E[value] is no longer
    Tr(F)/B.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key. The labels are ``sample_labels(key, logits)``.
        draw: "labels", "rademacher" or "importance".
        method: "exact", or "finite_difference" for a gradient from the difference of
            two gradients, at θ and θ + ε g: two gradients in all instead of three.
            ε ‖g‖ is 1e-3 ‖θ‖ in float32 and 1e-6 ‖θ‖ in float64. For smooth networks
            the relative error is of the order of 1e-3 and 1e-6. A ReLU network's
            gradient jumps at its kinks, which the exact derivative does not see and
            the difference does: on a small CNN with max-pooling, batch 128, the two
            differ by 0.1 to 0.3 (relative norm) in training and by more than 0.8 at
            initialisation, and a smaller step makes it worse. Only first derivatives.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters, or logits that are not floating point.
        ValueError: unknown draw or method, shapes that do not fit, no key, or a split
            batch without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    logits = _check(logits_fn, params, inputs, chunk_size, axis_name)
    noise = class_space.class_noise(key, draw, logits, axis_name=axis_name)[0]
    return derivative.squared_norm(
        logits_fn,
        lambda logits, z: class_space.random_cotangent(draw, logits, z),
        params,
        inputs,
        noise,
        method,
        chunk_size,
        axis_name,
    )


@trees.highest_precision
def single_example_fisher_penalty(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    draw: Draw = "labels",
    method: Method = "exact",
) -> Float[Array, ""]:
    """‖g(x_1, ŷ_1)‖² of the first example of the batch only.

    Jastrzebski et al. 2021, eq. 6 ("FP exact"): an unbiased estimate of Tr(F) itself,
    so B times larger than ``fisher_penalty``. ``logits_fn`` sees inputs [1, ...]. Else
    as ``fisher_penalty``; inside shard_map take the first example yourself.

    Args:
        logits_fn: maps params and inputs [1, ...] to logits [1, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        draw: "labels", the paper's, "rademacher" or "importance".
        method: "exact" or "finite_difference".

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: as ``fisher_penalty``.
        ValueError: as ``fisher_penalty``.
        NotImplementedError: when differentiated in anything but params.
    """
    class_space.batch_size(inputs)
    first = jax.tree.map(lambda a: a[:1], inputs)
    return fisher_penalty(logits_fn, params, first, key, draw=draw, method=method)


@trees.highest_precision
def gradient_penalty(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Int[Array, " B"],
    *,
    method: Method = "exact",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """‖(1/B) Σ_i g(x_i, y_i)‖² with the true labels: GP of Jastrzebski et al. 2021.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        labels: integers [B]. Their range is checked where they are concrete, not where
            they are traced by ``jit``.
        method: "exact" or "finite_difference"; see ``fisher_penalty``.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters, labels that are not integers, or logits that are
            not floating point.
        ValueError: unknown method, labels out of range, shapes that do not fit, or a
            split batch without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    logits = _check(logits_fn, params, inputs, chunk_size, axis_name)
    class_space.check_labels(labels, *logits.shape)
    return derivative.squared_norm(
        logits_fn,
        class_space.label_cotangent,
        params,
        inputs,
        jnp.asarray(labels),
        method,
        chunk_size,
        axis_name,
    )


@trees.highest_precision
def random_label_penalty(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    method: Method = "exact",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """‖(1/B) Σ_i g(x_i, ŷ_i)‖² with ŷ_i uniform over the classes.

    GP_r of Jastrzebski et al. 2021, who print the derivative in x; it is in θ.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        method: "exact" or "finite_difference"; see ``fisher_penalty``.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters, or logits that are not floating point.
        ValueError: unknown method, shapes that do not fit, no key, or a split batch
            without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    logits = _check(logits_fn, params, inputs, chunk_size, axis_name)
    key = trees.checked_key(key)
    batch, classes = logits.shape
    labels = jax.random.randint(key, (batch * axes.size(axis_name),), 0, classes)
    return derivative.squared_norm(
        logits_fn,
        class_space.label_cotangent,
        params,
        inputs,
        axes.own_rows(labels, axis_name, axis=0),
        method,
        chunk_size,
        axis_name,
    )


@trees.highest_precision
def input_gradient_penalty(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: Float[Array, "B ..."],
    labels: Int[Array, " B"],
    *,
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """(1/B) Σ_i ‖∂ℓ(x_i, y_i)/∂x_i‖²: GP_x of Jastrzebski et al. 2021.

    The paper leaves the reduction open; this is the mean over examples. Where examples
    interact it is the gradient of the sum of losses in x_i. The derivative in params is
    (2/B) d/dε ∇_θ Σ_i ℓ(x_i + ε u_i, y_i) with u_i = ∂ℓ_i/∂x_i, about two gradients.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...], floating point.
        labels: integers [B]. Their range is checked where they are concrete, not where
            they are traced by ``jit``.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters or inputs, labels that are not integers, or logits
            that are not floating point.
        ValueError: labels out of range, shapes that do not fit, or a split batch
            without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    logits = _check(logits_fn, params, inputs, chunk_size, axis_name)
    class_space.check_labels(labels, *logits.shape)
    labels = jnp.asarray(labels)
    for leaf in jax.tree.leaves(inputs):
        if not trees.is_floating(leaf):
            raise TypeError(
                "inputs: expected floating point to differentiate in, got "
                f"{trees.described(leaf)}"
            )
    batch = logits.shape[0] * axes.size(axis_name)

    def loss(function: LogitsFn, p: PyTree, x: PyTree, y: Array, w: Any) -> Any:
        losses = class_space.cross_entropies(function(p, x), y)
        return (losses if w is None else w * losses).sum()

    def value(function: LogitsFn, p: PyTree, x: PyTree, y: Array) -> Any:
        def one_chunk(chunk: Any) -> PyTree:
            x, y = chunk
            return jax.grad(lambda x: loss(function, p, x, y, None))(x)

        slopes = loops.map_chunks(one_chunk, (x, y), chunk_size)
        return axes.total(trees.squared_norm(slopes) / batch, axis_name), slopes

    def gradient(
        function: LogitsFn, p: PyTree, x: PyTree, y: Array, slopes: PyTree
    ) -> PyTree:
        p = axes.vary(p, axes.names(axis_name))

        def one_chunk(chunk: Any, weights: Array | None) -> PyTree:
            x, y, slopes = chunk

            def parameter_gradient(x: PyTree) -> PyTree:
                return jax.grad(lambda p: loss(function, p, x, y, weights))(p)

            return jax.jvp(parameter_gradient, (x,), (slopes,))[1]

        change = derivative.sum_chunks(one_chunk, (x, y, slopes), chunk_size)
        return jax.tree.map(lambda c: (2 / batch) * c, change)

    return derivative.with_gradient(
        logits_fn, value, gradient, params, inputs, labels, chunk_size, axis_name
    )


def _check(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> jax.ShapeDtypeStruct:
    """Checks what every penalty takes; returns shape and dtype of the logits."""
    trees.check_count("chunk_size", chunk_size)
    trees.check_params(params)
    axes.check(inputs, axis_name)
    return class_space.logits_shape(logits_fn, params, inputs)
