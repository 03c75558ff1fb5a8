"""The Fisher Penalty and its rivals: differentiable scalars, without a factor α.

All but ``input_gradient_penalty`` are squared norms of a gradient over the batch,

    penalty(θ) = ‖g(θ)‖²,  g(θ) = (1/B) J(θ)ᵀ v(θ),

J = ∂outputs/∂θ, v a cotangent like the outputs. Their derivative is exact and never
reverse-over-reverse. With l the outputs, l̇ = J g and the TRANSPOSED Jacobian of v in
them, v̇ = (∂v/∂l)ᵀ l̇, it is

    ∇penalty = 2 (∂g/∂θ)ᵀ g = 2 d/dε [(1/B) J(θ + ε g)ᵀ (v + ε v̇)] at ε = 0,

one Jacobian-vector product of a gradient: about three gradients in all, value
included. ``jax.grad``, ``jax.value_and_grad``, ``jax.jvp`` and higher derivatives in
``params`` work, under ``jit`` and ``vmap`` too; the value alone costs one gradient.
Derivatives in anything else (inputs, arrays that ``outputs_fn`` closes over) are
refused: stop their gradient. Labels and noise are constants.

``outputs_fn(params, inputs) -> outputs`` sees the whole batch at once, so it may use
the batch's statistics (batch normalisation in training mode) and dropout. What outputs
mean says ``likelihood``: by default they are logits [B, ..., C]. Sums are in at least
float32; matrix products follow the ambient precision, as those of the loss that a
penalty is added to (``jax.default_matmul_precision``).

On a device mesh every penalty means the global batch. Under ``jit`` with sharded arrays
that is so by itself, on Auto and on Explicit axes; inside ``jax.shard_map`` pass
``axis_name``, the mesh axes along which the batch is split, and the same key on every
device. The gradient in replicated params is that of the whole batch; in params that
each device holds as its own (``jax.lax.pcast``), it is this device's share of the sum,
for the caller to add up.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, loops, trees
from fisher_jax.curvature import likelihoods
from fisher_jax.curvature.likelihoods import (
    Categorical,
    Draw,
    Likelihood,
    Mask,
    OutputsFn,
)
from fisher_jax.penalties import derivative
from fisher_jax.penalties.derivative import Method


def fisher_penalty(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    draw: Draw = "labels",
    num_groups: int = 1,
    method: Method = "exact",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """‖(1/B) Σ_i J_iᵀ v_i‖² with random v_i, E[v vᵀ] = A (softmax: diag p − p pᵀ).

    ``draw="labels"``: FP, the paper's Fisher Penalty (Jastrzebski et al. 2021, eq. 3
    and 5): v_i = p_i − onehot(ŷ_i), the gradient on labels ŷ_i ~ p(y|x_i) drawn from
    the model, one per example and position, and constants for differentiation. Its
    value is an unbiased estimate of Tr(F)/B; its gradient is not one of ∇Tr(F)/B,
    because the distribution of the labels changes with θ too (for Gaussian it does
    not, and FP's gradient is unbiased).

    ``draw="rademacher"``: RFP, the Reparameterised Fisher Penalty: v_i = S_i z_i with
    S = diag √p − p √pᵀ and random signs z that do not depend on θ, while S is
    differentiated. Value AND gradient are unbiased, at the same cost.

    ``draw="importance"``: the same with labels drawn by importance, whose weights are
    differentiated (see ``curvature.likelihoods``).

    ``num_groups=G`` takes Σ_k ‖(1/B) Σ_{i in group k} J_iᵀ v_i‖² over G groups of B/G
    examples in a row: the same mean at the same cost, without the products between
    groups, whose mean is zero and which are most of the noise. 1 is the paper's. The
    network sees a group at a time.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((2, 2))}, jnp.ones((3, 2))
    >>> key = jax.random.key(0)
    >>> slope = jax.grad(lambda p: fisher_penalty(network, p, x, key))(params)
    >>> slope["w"].shape
    (2, 2)

    Where examples interact (batch normalisation in training mode) E[value] is no longer
    Tr(F)/B.

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key. The labels are ``likelihood.sample(key, outputs)``.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        draw: "labels", "rademacher" or, for Categorical, "importance".
        num_groups: G; it divides B, and the devices of a split batch divide it.
        method: "exact", or "finite_difference" for a gradient from the difference of
            two gradients, at θ and θ + ε g: two gradients in all instead of three.
            ε ‖g‖ is 1e-3 ‖θ‖ in float32 and 1e-6 ‖θ‖ in float64. For smooth networks
            the relative error is of the order of 1e-3 and 1e-6. A ReLU network's
            gradient jumps at its kinks, which the exact derivative does not see and
            the difference does: on a small CNN with max-pooling, batch 128, the two
            differ by 0.1 to 0.3 (relative norm) in training and by more than 0.8 at
            initialisation, and a smaller step makes it worse. Only first derivatives.
            Refused where parameters or network are below float32, whose rounding is
            longer than the step. The only method for a network with a
            ``jax.custom_vjp`` inside, which has no forward derivative.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters, or outputs that are not floating point.
        ValueError: unknown draw or method, shapes that do not fit, no key, or a split
            batch without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    likelihoods.check_likelihood(likelihood)
    likelihoods.check_draw(draw, likelihood)
    key = trees.checked_key(key)

    return _squared_norm(
        outputs_fn,
        params,
        inputs,
        key,
        functools.partial(_noise, draw, likelihood),
        functools.partial(likelihood.random_cotangent, draw),
        likelihood=likelihood,
        mask=mask,
        num_groups=num_groups,
        method=method,
        chunk_size=chunk_size,
        axis_name=axis_name,
    )


def single_example_fisher_penalty(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    draw: Draw = "labels",
    method: Method = "exact",
) -> Float[Array, ""]:
    """‖g(x_1, ŷ_1)‖² of the first example of the batch only.

    Jastrzebski et al. 2021, eq. 6 ("FP exact"): an unbiased estimate of Tr(F) itself,
    so B times larger than ``fisher_penalty``. ``outputs_fn`` sees inputs [1, ...]. Else
    as ``fisher_penalty``; inside shard_map take the first example yourself.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> key = jax.random.key(0)
    >>> single_example_fisher_penalty(network, params, x, key).round(3)
    Array(0.5, dtype=float32)

    Args:
        outputs_fn: maps params and inputs [1, ...] to outputs, as logits [1, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        draw: "labels", the paper's, "rademacher" or "importance".
        method: "exact" or "finite_difference".

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: as ``fisher_penalty``.
        ValueError: as ``fisher_penalty``.
        NotImplementedError: when differentiated in anything but params.
    """
    trees.batch_size(inputs)
    first = axes.first((inputs, mask), 1)
    return fisher_penalty(
        outputs_fn,
        params,
        first[0],
        key,
        likelihood=likelihood,
        mask=first[1],
        draw=draw,
        method=method,
    )


def gradient_penalty(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Array,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    method: Method = "exact",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """‖(1/B) Σ_i g(x_i, y_i)‖² with the true labels: GP of Jastrzebski et al. 2021.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> gradient_penalty(network, params, x, jnp.array([0, 1])).round(3)
    Array(0.125, dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        labels: for Categorical integers [B, ...], for others numbers like the outputs.
            Their range is checked where they are concrete, not where they are traced
            by ``jit``.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        method: "exact" or "finite_difference"; see ``fisher_penalty``.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters, labels of a wrong type, or outputs that are not
            floating point.
        ValueError: unknown method, labels out of range, shapes that do not fit, or a
            split batch without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    likelihoods.check_likelihood(likelihood)
    return _squared_norm(
        outputs_fn,
        params,
        inputs,
        labels,
        None,
        likelihood.loss_cotangent,
        likelihood=likelihood,
        mask=mask,
        num_groups=1,
        method=method,
        chunk_size=chunk_size,
        axis_name=axis_name,
    )


def random_label_penalty(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    method: Method = "exact",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """‖(1/B) Σ_i g(x_i, ŷ_i)‖² with ŷ_i uniform over the classes, or of a fair coin.

    GP_r of Jastrzebski et al. 2021, who print the derivative in x; it is in θ.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> random_label_penalty(network, params, x, jax.random.key(0)).shape
    ()

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        method: "exact" or "finite_difference"; see ``fisher_penalty``.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters, or outputs that are not floating point.
        ValueError: unknown method, shapes that do not fit, no key, or a split batch
            without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    likelihoods.check_likelihood(likelihood)
    key = trees.checked_key(key)
    return _squared_norm(
        outputs_fn,
        params,
        inputs,
        key,
        functools.partial(_uniform_labels, likelihood),
        likelihood.loss_cotangent,
        likelihood=likelihood,
        mask=mask,
        num_groups=1,
        method=method,
        chunk_size=chunk_size,
        axis_name=axis_name,
    )


def input_gradient_penalty(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: Float[Array, "B ..."],
    labels: Array,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """(1/B) Σ_i ‖∂ℓ(x_i, y_i)/∂x_i‖²: GP_x of Jastrzebski et al. 2021.

    The paper leaves the reduction open; this is the mean over examples. Where examples
    interact it is the gradient of the sum of losses in x_i. The derivative in params is
    (2/B) d/dε ∇_θ Σ_i ℓ(x_i + ε u_i, y_i) with u_i = ∂ℓ_i/∂x_i, about two gradients.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> input_gradient_penalty(network, params, x, jnp.array([0, 1])).shape
    ()

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...], floating point.
        labels: for Categorical integers [B, ...], for others numbers like the outputs.
            Their range is checked where they are concrete, not where they are traced
            by ``jit``.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        chunk_size: examples in memory at a time, None for all. With less than all the
            network must treat each example for itself (no batch statistics); the value
            does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters or inputs, labels of a wrong type, or outputs that
            are not floating point.
        ValueError: labels out of range, shapes that do not fit, or a split batch
            without axis_name.
        NotImplementedError: when differentiated in anything but params.
    """
    outputs, in_parts = _check(
        outputs_fn, params, inputs, likelihood, mask, chunk_size, axis_name
    )
    likelihood.check_targets(labels, outputs)
    for leaf in jax.tree.leaves(inputs):
        if not trees.is_floating(leaf):
            raise TypeError(
                "inputs: expected floating point to differentiate in, got "
                f"{trees.described(leaf)}"
            )

    def scalar(
        network: OutputsFn,
        params: PyTree,
        examples: Any,
        _: None,
        axis_name: axes.AxisName,
    ) -> Float[Array, ""]:
        inputs, labels, mask = examples
        batch = trees.batch_size(inputs) * axes.size(axis_name)
        terms = _InputNorms(likelihood, batch, chunk_size, axis_name)
        rule = derivative.Rule(
            functools.partial(_input_value, terms),
            functools.partial(_input_value_and_gradient, terms),
            axis_name,
        )
        examples = (inputs, (labels, mask))
        return derivative.with_gradient(network, rule, params, examples, chunk_size)

    examples = (inputs, jnp.asarray(labels), mask)
    if not in_parts:
        return scalar(outputs_fn, params, examples, None, axis_name)
    return axes.spread(scalar, outputs_fn, params, examples, None, axis_name)


class _InputNorms(NamedTuple):
    """(1/B) Σ_i ‖∂ℓ_i/∂x_i‖²; all of it is static."""

    likelihood: Likelihood
    batch: int
    chunk_size: int | None
    axis_name: axes.AxisName

    def loss(
        self, outputs: Array, constants: Any, weights: Array | None
    ) -> Float[Array, ""]:
        """The sum of losses over some examples."""
        labels, mask = constants
        losses = self.likelihood.loss(likelihoods.keep(outputs, mask), labels)
        losses = likelihoods.keep(losses, mask)
        if weights is None:
            return losses.sum()
        return (losses * weights.reshape(-1, *(1,) * (losses.ndim - 1))).sum()


def _input_slopes(
    terms: _InputNorms, network: OutputsFn, params: PyTree, examples: PyTree
) -> PyTree:
    """u_i = ∂ℓ_i/∂x_i."""

    def one_chunk(chunk: Any) -> PyTree:
        inputs, constants = chunk
        return jax.grad(lambda x: terms.loss(network(params, x), constants, None))(
            inputs
        )

    return loops.map_chunks(one_chunk, examples, terms.chunk_size)


def _input_value(
    terms: _InputNorms, network: OutputsFn, params: PyTree, examples: PyTree
) -> Float[Array, ""]:
    slopes = _input_slopes(terms, network, params, examples)
    return axes.total(trees.squared_norm(slopes) / terms.batch, terms.axis_name)


def _input_value_and_gradient(
    terms: _InputNorms, network: OutputsFn, params: PyTree, examples: PyTree
) -> tuple[Float[Array, ""], PyTree]:
    slopes = _input_slopes(terms, network, params, examples)
    value = axes.total(trees.squared_norm(slopes) / terms.batch, terms.axis_name)
    params = axes.vary(params, axes.names(terms.axis_name))

    def one_chunk(chunk: Any, weights: Array | None) -> PyTree:
        (inputs, constants), slopes = chunk

        def parameter_gradient(x: PyTree) -> PyTree:
            return jax.grad(lambda p: terms.loss(network(p, x), constants, weights))(
                params
            )

        return jax.jvp(parameter_gradient, (inputs,), (slopes,))[1]

    change = derivative.sum_chunks(one_chunk, (examples, slopes), terms.chunk_size)
    return value, jax.tree.map(lambda c: (2 / terms.batch) * c, change)


def _squared_norm(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    labels_or_key: Array,
    draw_constants: Callable[[Any, Any, axes.AxisName], PyTree] | None,
    cotangent: Callable[[Array, Any], Array],
    *,
    likelihood: Likelihood,
    mask: Mask | None,
    num_groups: int,
    method: Method,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Float[Array, ""]:
    """‖(1/B) Jᵀ v‖² with v = ``cotangent(outputs, constants)``; by groups, see
    ``fisher_penalty``.

    Args:
        labels_or_key: labels [B, ...], which are the constants; or a key.
        draw_constants: maps the key, shape and dtype of the outputs and axis_name to
            the constants; None for labels.
    """
    trees.check_count("num_groups", num_groups)
    outputs, in_parts = _check(
        outputs_fn, params, inputs, likelihood, mask, chunk_size, axis_name, num_groups
    )
    derivative.check_method(method, outputs_fn, params, inputs)
    if draw_constants is None:
        likelihood.check_targets(labels_or_key, outputs)
        labels, key = jnp.asarray(labels_or_key), None
    else:
        labels, key = None, labels_or_key

    def scalar(
        network: OutputsFn,
        params: PyTree,
        examples: Any,
        key: PRNGKeyArray | None,
        axis_name: axes.AxisName,
    ) -> Float[Array, ""]:
        inputs, constants, mask = examples
        examples_here, devices = trees.batch_size(inputs), axes.size(axis_name)
        if draw_constants is not None:
            shape = (examples_here, *outputs.shape[1:])
            own = jax.ShapeDtypeStruct(shape, outputs.dtype)
            constants = draw_constants(key, own, axis_name)
        terms = derivative.SquaredNorm(
            cotangent=functools.partial(_masked_cotangent, cotangent),
            method=method,
            batch=examples_here * devices,
            groups_here=_groups_of_a_device(num_groups, examples_here, devices),
            chunk_size=chunk_size,
            axis_name=axis_name,
            is_one_group=num_groups == 1,
        )
        examples = (inputs, (constants, mask))
        return derivative.with_gradient(
            network, terms.rule(), params, examples, terms.calls_with(inputs)
        )

    examples = (inputs, labels, mask)
    if not in_parts:
        # The network sees the whole batch, as it lies.
        return scalar(outputs_fn, params, examples, key, axis_name)
    return axes.spread(scalar, outputs_fn, params, examples, key, axis_name)


def _masked_cotangent(
    cotangent: Callable[[Array, Any], Array], outputs: Array, constants: Any
) -> Array:
    constants, mask = constants
    v = cotangent(likelihoods.keep(outputs, mask), constants)
    return likelihoods.keep(v, mask)


def _noise(
    draw: Draw,
    likelihood: Likelihood,
    key: PRNGKeyArray,
    outputs: jax.ShapeDtypeStruct,
    axis_name: axes.AxisName,
) -> PyTree:
    noise = likelihoods.batch_noise(key, draw, likelihood, outputs, axis_name=axis_name)
    return jax.tree.map(lambda a: a[0], noise)


def _uniform_labels(
    likelihood: Likelihood,
    key: PRNGKeyArray,
    outputs: jax.ShapeDtypeStruct,
    axis_name: axes.AxisName,
) -> Array:
    examples_here, *rest = outputs.shape
    labels = likelihood.uniform(key, (examples_here * axes.size(axis_name), *rest))
    return axes.own_rows(labels, axis_name, axis=0)


def _groups_of_a_device(num_groups: int, examples_here: int, devices: int) -> int:
    """How many of the groups each device has: one group lies on all of them.

    Raises:
        ValueError: if groups would be unequal, or cut.
    """
    if num_groups == 1:
        return 1
    if num_groups % devices or examples_here % (num_groups // devices):
        raise ValueError(
            f"num_groups: expected a divisor of the {examples_here * devices} examples "
            f"and a multiple of the {devices} devices, got {num_groups}"
        )
    return num_groups // devices


def _check(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    likelihood: Likelihood,
    mask: Mask | None,
    chunk_size: int | None,
    axis_name: axes.AxisName,
    num_groups: int = 1,
) -> tuple[jax.ShapeDtypeStruct, bool]:
    """Checks what every penalty takes.

    Returns:
        Shape and dtype of the outputs, and whether the network sees parts of the batch.
    """
    trees.check_count("chunk_size", chunk_size)
    trees.check_params(params)
    axes.check(inputs, axis_name)
    is_cut = chunk_size is not None and chunk_size < trees.batch_size(inputs)
    in_parts = num_groups > 1 or is_cut
    outputs = likelihoods.checked_outputs(
        outputs_fn, params, inputs, likelihood, mask, in_parts=in_parts
    )
    return outputs, in_parts
