"""The Fisher matrix of a classifier: its trace, products and largest eigenvalue.

F = E_x E_{ŷ ~ p(y|x)} [g(x, ŷ) g(x, ŷ)ᵀ] with g(x, y) = ∂ℓ(x, y)/∂θ, the gradient of
one example's cross-entropy: labels come from the model, so this is the true Fisher and
not the "empirical" one. For a softmax classifier it equals the generalised Gauss–Newton
matrix E_x[Jᵀ (diag p − p pᵀ) J], J = ∂logits/∂θ (Martens 2020, arXiv:1412.1193).

``logits_fn(params, inputs) -> logits`` is any pure function from inputs [B, ...] (an
array or a pytree of them) to logits [B, C]. Per-example quantities are defined where
examples do not interact: batch normalisation in evaluation mode. Sums are in at least
float32 and matrix products in full float32, whatever the compute dtype. Wrap calls in
``jax.jit``; all options are static.

Inside ``jax.shard_map`` pass ``axis_name``, the mesh axes along which the batch is
split, and the same key on every device: results are those of the whole batch on one
device, up to rounding.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fisher_jax import axes, loops, trees
from fisher_jax.curvature import _norms, class_space
from fisher_jax.curvature.class_space import Draw, LogitsFn

Estimator = Literal["per_example", "exact", "minibatch", "forward"]
ESTIMATORS = ("per_example", "exact", "minibatch", "forward")


class Estimate(NamedTuple):
    """An estimate and the standard error that its random draws leave.

    Attributes:
        mean: the estimate, a scalar.
        sem: its standard error given the examples: 0 where nothing is random, NaN
            where a single draw says nothing about it.
    """

    mean: Float[Array, ""]
    sem: Float[Array, ""]


@trees.highest_precision
def squared_gradient_norms(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Int[Array, " B"],
    *,
    chunk_size: int | None = None,
) -> Float[Array, " B"]:
    """‖∂ℓ(x_i, y_i)/∂θ‖² of every example, for given labels.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        labels: integers [B]. Their range is checked where they are concrete, not where
            they are traced by ``jit``.
        chunk_size: examples in memory at a time; None for what is fastest, all or,
            on one CPU device, those whose values fit in its caches. The result does
            not depend on it but for rounding.

    Returns:
        [B], at least float32; inside shard_map those of this device's examples.

    Raises:
        TypeError: integer parameters, labels that are not integers, logits that are not
            floating point.
        ValueError: labels out of range, shapes that do not fit, empty parameters,
            chunk_size < 1.
    """
    logits = _check(logits_fn, params, inputs, chunk_size)
    class_space.check_labels(labels, *logits.shape)
    leaf_norms = _norms.squared_pullback_norms(
        logits_fn,
        params,
        inputs,
        jnp.asarray(labels),
        lambda logits, label: class_space.label_cotangent(logits, label)[None],
        chunk_size,
    )
    return _norms.total(leaf_norms)[:, 0]


@trees.highest_precision
def fisher_trace(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray | None = None,
    *,
    estimator: Estimator = "per_example",
    draw: Draw = "rademacher",
    num_draws: int = 1,
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Estimate:
    """Tr(F), the trace of the Fisher over the given examples.

    | estimator     | value                                        | cost of one draw  |
    |---------------|----------------------------------------------|-------------------|
    | "per_example" | (1/B) Σ_i ‖J_iᵀ v_i‖²                        | one gradient      |
    | "exact"       | (1/B) Σ_i Σ_c p_ic ‖∂ℓ(x_i, c)/∂θ‖²          | C backward passes |
    | "minibatch"   | B ‖(1/B) Σ_i J_iᵀ v_i‖²                      | one gradient      |
    | "forward"     | (1/B) Σ_i (J_i z)ᵀ (diag p − p pᵀ)_i (J_i z) | one jvp           |

    v_i is a random cotangent in class space with covariance diag p − p pᵀ: with
    ``draw="labels"`` that of a sampled label, which makes "per_example" the paper's
    Tr(F) (Jastrzebski et al. 2021, section 2); with ``draw="rademacher"``, S z for
    random signs z; with ``draw="importance"``, labels drawn by importance. All cost
    the same and are unbiased. Late in training signs are many times more precise than
    sampled labels, and importance 4 to 11 times more than signs (``class_space`` says
    why, docs/theory.md by how much). "forward" takes signs z in parameter space
    (Hutchinson) and ignores ``draw``. The default estimator is the one with the least
    error at equal cost, "exact" aside: 2 to 17 times less than "minibatch", "forward"
    on three networks (benchmarks/results.md, accuracy per cost).

    "exact" uses no key. For networks that are piecewise linear in each layer's weights
    it is also the exact trace of the Hessian; see ``hessian_trace``.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key; not needed for "exact".
        estimator: see above.
        draw: "rademacher", "labels" or "importance".
        num_draws: independent draws (for "forward": probes) that are averaged; ignored
            by "exact".
        chunk_size: examples in memory at a time; None for what is fastest, all or,
            on one CPU device, those whose values fit in its caches ("minibatch" and
            "forward": all). The result does not depend on it but for rounding.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        Scalars ``mean`` and ``sem``, at least float32. ``sem`` comes from the spread of
        the draws where there are two or more (for "per_example" pooled over examples,
        sem² = Σ_i s_i²/(D B²)), from the spread over examples for "per_example" with
        one draw (an upper bound), is NaN for "minibatch" and "forward" with one draw,
        and 0 for "exact".

    Raises:
        TypeError: integer parameters or logits that are not floating point.
        ValueError: a missing key, unknown names, shapes that do not fit, counts below
            one, or a split batch without axis_name.
    """
    trees.check_choice("estimator", estimator, ESTIMATORS)
    trees.check_choice("draw", draw, class_space.DRAWS)
    trees.check_count("num_draws", num_draws)
    logits = _check(logits_fn, params, inputs, chunk_size)
    axes.check(inputs, axis_name)
    params, inputs = axes.vary((params, inputs), axes.names(axis_name))
    if estimator == "exact":
        return _exact(logits_fn, params, inputs, chunk_size, axis_name)
    if estimator == "forward":
        keys = probe_keys(key, num_draws)
        draws = _forward(logits_fn, params, inputs, keys, chunk_size, axis_name)
        return estimate_from_draws(draws)
    noise = class_space.class_noise(
        key, draw, logits, num_draws=num_draws, axis_name=axis_name
    )
    if estimator == "minibatch":
        batch = logits.shape[0] * axes.size(axis_name)
        squares = _minibatch(
            logits_fn, params, inputs, draw, noise, chunk_size, axis_name
        )
        return estimate_from_draws(batch * squares)
    per_leaf = _per_example(logits_fn, params, inputs, draw, noise, chunk_size)
    return _estimate_from_examples(_norms.total(per_leaf), axis_name)


@trees.highest_precision
def minibatch_fisher_trace(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    draw: Draw = "labels",
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """The paper's Tr(F_B) = ‖(1/B) Σ_i g(x_i, ŷ_i)‖², ŷ_i ~ p(y|x_i).

    It is the value of the Fisher Penalty (Jastrzebski et al. 2021, section 4, eq. 5),
    and E[B · Tr(F_B)] = Tr(F): see ``fisher_trace(estimator="minibatch")``.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        draw: "labels", the paper's, "rademacher" or "importance".
        chunk_size: examples in memory at a time, None for all.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters or logits that are not floating point.
        ValueError: as ``fisher_trace``.
    """
    logits = _check(logits_fn, params, inputs, chunk_size)
    axes.check(inputs, axis_name)
    params, inputs = axes.vary((params, inputs), axes.names(axis_name))
    noise = class_space.class_noise(key, draw, logits, axis_name=axis_name)
    return _minibatch(logits_fn, params, inputs, draw, noise, chunk_size, axis_name)[0]


@trees.highest_precision
def layer_fisher_traces(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    draw: Draw = "rademacher",
    num_draws: int = 1,
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> PyTree:
    """Tr(F) of each parameter array: the traces of the diagonal blocks of F.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        draw: "rademacher", "labels" or "importance"; see ``fisher_trace``.
        num_draws: independent draws that are averaged.
        chunk_size: examples in memory at a time; None for what is fastest, all or,
            on one CPU device, those whose values fit in its caches.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A pytree like params with one scalar, at least float32, for each array. They sum
        to ``fisher_trace(..., estimator="per_example").mean`` with the same key, draw
        and num_draws, up to rounding.

    Raises:
        TypeError: integer parameters or logits that are not floating point.
        ValueError: as ``fisher_trace``.
    """
    trees.check_count("num_draws", num_draws)
    logits = _check(logits_fn, params, inputs, chunk_size)
    axes.check(inputs, axis_name)
    params, inputs = axes.vary((params, inputs), axes.names(axis_name))
    noise = class_space.class_noise(
        key, draw, logits, num_draws=num_draws, axis_name=axis_name
    )
    per_leaf = _per_example(logits_fn, params, inputs, draw, noise, chunk_size)
    traces = [_mean_over_examples(leaf.mean(axis=1), axis_name) for leaf in per_leaf]
    return jax.tree.unflatten(jax.tree.structure(params), traces)


@trees.highest_precision
def fisher_vector_product(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    vector: PyTree,
    *,
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> PyTree:
    """F vector = (1/B) Σ_i J_iᵀ (diag p − p pᵀ)_i J_i vector, without sampling.

    Args:
        logits_fn: maps params and inputs [B, ...] to logits [B, C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        vector: pytree like params.
        chunk_size: examples in memory at a time, None for all.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A pytree like params, in its dtypes.

    Raises:
        TypeError: integer parameters or logits that are not floating point.
        ValueError: shapes that do not fit, chunk_size < 1, or a split batch without
            axis_name.
    """
    logits = _check(logits_fn, params, inputs, chunk_size)
    trees.check_same_shapes("vector", vector, params)
    axes.check(inputs, axis_name)
    params, inputs, vector = axes.vary((params, inputs, vector), axes.names(axis_name))
    batch = logits.shape[0] * axes.size(axis_name)

    def product(chunk: PyTree, weights: Float[Array, " n"]) -> PyTree:
        out, pushforward = jax.linearize(lambda p: logits_fn(p, chunk), params)
        pushed = class_space.covariance_product(out, pushforward(vector))
        pullback = jax.linear_transpose(pushforward, params)
        return pullback((pushed * weights[:, None] / batch).astype(out.dtype))[0]

    return axes.total(loops.sum_chunks(product, inputs, chunk_size), axis_name)


def _check(
    logits_fn: LogitsFn, params: PyTree, inputs: PyTree, chunk_size: int | None
) -> jax.ShapeDtypeStruct:
    """Checks what every function here takes; returns shape and dtype of the logits."""
    trees.check_count("chunk_size", chunk_size)
    trees.check_params(params)
    return class_space.logits_shape(logits_fn, params, inputs)


def _per_example(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    draw: Draw,
    noise: Float[Array, "D B N"],
    chunk_size: int | None,
) -> list[Float[Array, "B D"]]:
    """‖J_iᵀ v_id‖² for each leaf, example and draw."""
    return _norms.squared_pullback_norms(
        logits_fn,
        params,
        inputs,
        jnp.moveaxis(noise, 0, 1),
        lambda logits, z: class_space.random_cotangent(
            draw, jnp.broadcast_to(logits, (*z.shape[:-1], logits.size)), z
        ),
        chunk_size,
    )


def _exact(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Estimate:
    per_leaf = _norms.squared_pullback_norms(
        logits_fn,
        params,
        inputs,
        (),
        lambda logits, _: class_space.enumerated_cotangents(logits),
        chunk_size,
    )
    mean = _mean_over_examples(_norms.total(per_leaf).sum(axis=1), axis_name)
    return Estimate(mean, jnp.zeros_like(mean))


def _minibatch(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    draw: Draw,
    noise: Float[Array, "D B N"],
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Float[Array, " D"]:
    """‖(1/B) Σ_i J_iᵀ v_id‖² for each draw."""
    batch = noise.shape[1] * axes.size(axis_name)

    def one_draw(z: Float[Array, "B N"]) -> Float[Array, ""]:
        def gradient(chunk: PyTree, weights: Float[Array, " n"]) -> PyTree:
            x, noise_rows = chunk
            logits, pullback = jax.vjp(lambda p: logits_fn(p, x), params)
            v = class_space.random_cotangent(draw, logits, noise_rows)
            return pullback((v * weights[:, None] / batch).astype(logits.dtype))[0]

        mean_gradient = loops.sum_chunks(gradient, (inputs, z), chunk_size)
        return trees.squared_norm(axes.total(mean_gradient, axis_name))

    return loops.map_slices(one_draw, noise)


def _forward(
    logits_fn: LogitsFn,
    params: PyTree,
    inputs: PyTree,
    keys: PRNGKeyArray,
    chunk_size: int | None,
    axis_name: axes.AxisName,
) -> Float[Array, " D"]:
    """zᵀ F z for each probe z, by Jacobian-vector products."""
    batch = class_space.batch_size(inputs) * axes.size(axis_name)

    def forms(chunk: PyTree, weights: Float[Array, " n"]) -> Float[Array, " D"]:
        logits, pushforward = jax.linearize(lambda p: logits_fn(p, chunk), params)

        def one_probe(key: PRNGKeyArray) -> Float[Array, ""]:
            probe = trees.random_probe(key, params, "rademacher")
            probe = axes.vary(probe, axes.names(axis_name))
            variances = class_space.class_variance(logits, pushforward(probe))
            return jnp.sum(weights * variances)

        return loops.map_slices(one_probe, keys) / batch

    return axes.total(loops.sum_chunks(forms, inputs, chunk_size), axis_name)


def probe_keys(key: PRNGKeyArray | None, number: int) -> PRNGKeyArray:
    """One key per probe; the first keys do not depend on how many there are."""
    key = trees.checked_key(key)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number))


def _mean_over_examples(
    values: Float[Array, " B"], axis_name: axes.AxisName
) -> Float[Array, ""]:
    total = axes.total(jnp.sum(values), axis_name)
    return total / (values.size * axes.size(axis_name))


def _estimate_from_examples(
    squares: Float[Array, "B D"], axis_name: axes.AxisName
) -> Estimate:
    batch = squares.shape[0] * axes.size(axis_name)
    draws = squares.shape[1]
    mean = _mean_over_examples(squares.mean(axis=1), axis_name)
    if draws >= 2:
        spread = axes.total(jnp.var(squares, axis=1, ddof=1).sum(), axis_name)
        return Estimate(mean, jnp.sqrt(spread / draws) / batch)
    if batch == 1:
        return Estimate(mean, trees.unknown(mean))
    spread = axes.total(jnp.sum((squares - mean) ** 2), axis_name)
    return Estimate(mean, jnp.sqrt(spread / (batch - 1) / batch))


def estimate_from_draws(draws: Float[Array, " D"]) -> Estimate:
    """Mean and standard error of independent draws; NaN error for a single one."""
    mean = jnp.mean(draws)
    if draws.size == 1:
        return Estimate(mean, trees.unknown(mean))
    return Estimate(mean, jnp.std(draws, ddof=1) / jnp.sqrt(draws.size))
