"""The Fisher matrix of a network: its trace, and products with it.

F = E_x E_{ŷ ~ p(y|x)} [g(x, ŷ) g(x, ŷ)ᵀ] with g(x, y) = ∂ℓ(x, y)/∂θ, the gradient of
one example's loss: targets come from the model, so this is the true Fisher and not the
"empirical" one. For all likelihoods here it equals the generalised Gauss–Newton matrix
E_x[Jᵀ A J], J = ∂outputs/∂θ, A the covariance of ∂ℓ/∂outputs; for softmax
A = diag p − p pᵀ (Martens 2020, arXiv:1412.1193).

``outputs_fn(params, inputs) -> outputs`` is any pure function from inputs [B, ...] (an
array or a pytree of them) to outputs as ``likelihoods`` has them: logits [B, ..., C]
unless another likelihood is given. An example's loss is the sum over its positions
(those where ``mask`` is True), the loss of a batch the mean over its examples.
Per-example quantities are defined where examples do not interact: batch normalisation
in evaluation mode, no dropout. Sums are in at least float32 and matrix products in full
float32, whatever the compute dtype. Calls compile themselves; see
``fisher_jax.compiled``.

On a device mesh everything means the global batch. Under plain ``jit`` that is so by
itself, on Auto and on Explicit axes. Inside ``jax.shard_map`` pass ``axis_name``, the
mesh axes along which the batch is split, and the same key on every device: results are
those of the whole batch on one device, up to rounding.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, compiled, loops, programs, trees
from fisher_jax.curvature import _norms, estimates, likelihoods
from fisher_jax.curvature.estimates import Estimate
from fisher_jax.curvature.likelihoods import (
    Categorical,
    Draw,
    Likelihood,
    Mask,
    OutputsFn,
)

Estimator = Literal["per_example", "exact", "minibatch", "forward"]
_R = TypeVar("_R")

ESTIMATORS = ("per_example", "exact", "minibatch", "forward")


class Problem(NamedTuple):
    """Whose Fisher: a network at params, on one device's examples.

    Attributes:
        outputs_fn: maps params and inputs to outputs.
        params: pytree of floating-point arrays.
        inputs: this device's, [B, ...].
        mask: of their positions, or None.
        outputs: shape [B, ...] and dtype of the outputs.
        likelihood: what they mean.
        chunk_size: examples in memory at a time.
        axis_name: mesh axes along which the batch is split.
    """

    outputs_fn: OutputsFn
    params: PyTree
    inputs: PyTree
    mask: Array | None
    outputs: jax.ShapeDtypeStruct
    likelihood: Likelihood
    chunk_size: int | None
    axis_name: axes.AxisName

    @property
    def batch(self) -> int:
        """How many examples there are on all devices."""
        examples: int = self.outputs.shape[0]
        return examples * axes.size(self.axis_name)

    def noise(self, key: PRNGKeyArray | None, draw: Draw, num_draws: int = 1) -> PyTree:
        """Of this device's examples, [num_draws, B, ...]."""
        return likelihoods.batch_noise(
            key,
            draw,
            self.likelihood,
            self.outputs,
            num_draws=num_draws,
            axis_name=self.axis_name,
        )

    def column(self, outputs: Array, index: Array, mask: Array | None) -> Array:
        """A column of a factor of A, zero where masked."""
        column = self.likelihood.column(likelihoods.keep(outputs, mask), index)
        return likelihoods.keep(column, mask)

    def cotangent(
        self, draw: Draw, outputs: Array, noise: PyTree, mask: Array | None
    ) -> Array:
        """v with E[v vᵀ] = A, zero where masked."""
        outputs = likelihoods.keep(outputs, mask)
        v = self.likelihood.random_cotangent(draw, outputs, noise)
        return likelihoods.keep(v, mask)


@trees.highest_precision
def squared_gradient_norms(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Array,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    chunk_size: int | None = None,
) -> Float[Array, " B"]:
    """‖∂ℓ(x_i, y_i)/∂θ‖² of every example, for given labels.

    >>> network = lambda params, x: x @ params["w"]
    >>> params = {"w": jnp.zeros((2, 2))}
    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> squared_gradient_norms(network, params, x, jnp.array([0, 1])).round(3)
    Array([0.5, 1. ], dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        labels: for Categorical integers [B, ...], for others numbers like the outputs.
            Their range is checked where they are concrete, not where they are traced
            by ``jit``.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        chunk_size: examples in memory at a time (on each device of Explicit mesh axes);
            None for what is fast and fits, see ``fisher_trace``.

    Returns:
        [B], at least float32; inside shard_map those of this device's examples.

    Raises:
        TypeError: integer parameters, labels of a wrong type, outputs that are not
            floating point.
        ValueError: labels out of range, shapes that do not fit, empty parameters,
            chunk_size < 1.
    """
    trees.check_count("chunk_size", chunk_size)
    trees.check_params(params)
    outputs = likelihoods.checked_outputs(
        outputs_fn, params, inputs, likelihood, mask, in_parts=True
    )
    # Before they are traced: the values of tracers cannot be checked.
    likelihood.check_targets(labels, outputs)
    return _squared_gradient_norms(
        outputs_fn,
        params,
        inputs,
        jnp.asarray(labels),
        likelihood=likelihood,
        mask=mask,
        chunk_size=chunk_size,
    )


@compiled.compiles_itself
@trees.highest_precision
def _squared_gradient_norms(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    labels: Array,
    *,
    likelihood: Likelihood,
    mask: Mask | None,
    chunk_size: int | None,
) -> Float[Array, " B"]:
    def compute(
        function: OutputsFn, params: PyTree, examples: Any, _: None, __: Any
    ) -> Float[Array, " B"]:
        inputs, labels, mask = examples

        def cotangent(outputs: Array, example: Any, _: Array) -> Array:
            label, own_mask = example
            outputs = likelihoods.keep(outputs, own_mask)
            v = likelihood.loss_cotangent(outputs, label)
            return likelihoods.keep(v, own_mask)

        leaf_norms = _norms.squared_pullback_norms(
            function, params, inputs, (labels, mask), cotangent, 1, chunk_size
        )
        return _norms.total(leaf_norms)[:, 0]

    examples = (inputs, labels, mask)
    return axes.spread(
        compute, outputs_fn, params, examples, None, None, is_per_example=True
    )


@compiled.compiles_itself
@trees.highest_precision
def fisher_trace(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray | None = None,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    estimator: Estimator = "per_example",
    draw: Draw = "rademacher",
    num_draws: int = 1,
    chunk_size: int | None = None,
    precision: trees.Precision = "highest",
    axis_name: axes.AxisName = None,
    check: bool = False,
) -> Estimate:
    """Tr(F), the trace of the Fisher over the given examples.

    | estimator     | value                          | cost of one draw          |
    |---------------|--------------------------------|---------------------------|
    | "per_example" | (1/B) Σ_i ‖J_iᵀ v_i‖²          | one gradient              |
    | "exact"       | (1/B) Σ_i Σ_k ‖J_iᵀ s_ik‖²     | a backward pass an output |
    | "minibatch"   | B ‖(1/B) Σ_i J_iᵀ v_i‖²        | one gradient              |
    | "forward"     | (1/B) Σ_i (J_i z)ᵀ A_i (J_i z) | one jvp                   |

    v_i is a random cotangent in the space of outputs with covariance A_i (see
    ``likelihoods``; for softmax diag p − p pᵀ): with ``draw="labels"`` that of a
    sampled label, which makes "per_example" the paper's Tr(F) (Jastrzebski et al. 2021,
    section 2); with ``draw="rademacher"``, S z for random signs z; with
    ``draw="importance"``, labels drawn by importance. All cost the same and are
    unbiased. Late in training signs are many times more precise than sampled labels,
    and importance 4 to 11 times more than signs (docs/theory.md says by how much).
    "forward" takes signs z in parameter space (Hutchinson) and ignores ``draw``. The
    default estimator is the one with the least error at equal cost, "exact" aside: 2 to
    17 times less than "minibatch", "forward" on three networks (benchmarks/results.md,
    accuracy per cost).

    "exact" sums over s_ik, √p_c (∂ℓ(x_i, c)/∂outputs) of every class at every position,
    or the columns of S, and uses no key. For networks that are piecewise linear in each
    layer's weights it is also the exact trace of the Hessian; see ``hessian_trace``.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((2, 2))}, jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> round(float(fisher_trace(network, params, x, estimator="exact").mean), 4)
    0.75
    >>> answer = lambda params, x: (x @ params["w"])[..., 0]
    >>> law = Bernoulli()
    >>> exact = fisher_trace(answer, params, x, estimator="exact", likelihood=law)
    >>> round(float(exact.mean), 4)
    0.375

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key; not needed for "exact".
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        estimator: see above.
        draw: "rademacher", "labels" or, for Categorical, "importance".
        num_draws: independent draws (for "forward": probes) that are averaged; ignored
            by "exact".
        chunk_size: examples in memory at a time (on each device of Explicit mesh axes).
            None for what is fast and fits: all, or for "per_example" and "exact" those
            whose values fit in the caches of one CPU device, and so few that their
            values and own gradients (of parameters that are no operand of one product
            or lookup) take 256 MiB on a CPU, 384 MiB on each accelerator. It changes
            the result by rounding only.
        precision: of matrix products, "highest" (float32), "high", "default", or None
            for that of the caller.
        axis_name: mesh axes along which the batch is split inside shard_map.
        check: whether to compare outputs of half the batch with those of the whole
            first, which finds batch normalisation in training mode. For a first call:
            nothing is compiled then.

    Returns:
        Scalars ``mean`` and ``sem``, at least float32. ``sem`` comes from the spread of
        the draws where there are two or more (for "per_example" pooled over examples,
        sem² = Σ_i s_i²/(D B²)), from the spread over examples for "per_example" with
        one draw (an upper bound), is NaN for "minibatch" and "forward" with one draw,
        and 0 for "exact".

    Raises:
        TypeError: integer parameters or outputs that are not floating point; for
            "forward" a ``jax.custom_vjp`` inside the network.
        ValueError: a missing key, unknown names, shapes that do not fit, counts below
            one, or a split batch without axis_name; with ``check``, outputs that
            depend on the rest of the batch.
    """
    if check:
        likelihoods.check_examples_apart(outputs_fn, params, inputs)
    trees.check_choice("estimator", estimator, ESTIMATORS)
    likelihoods.check_likelihood(likelihood)
    likelihoods.check_draw(draw, likelihood)
    trees.check_count("num_draws", num_draws)
    if estimator != "exact":
        key = trees.checked_key(key)

    def compute(problem: Problem, key: PRNGKeyArray | None) -> Estimate:
        if estimator == "exact":
            squares = _exact(problem)
            mean = estimates.mean_over_examples(squares, problem.axis_name)
            return estimates.exactly(mean)
        if estimator == "forward":
            return estimates.from_draws(_forward(problem, key, num_draws))
        noise = problem.noise(key, draw, num_draws)
        if estimator == "minibatch":
            return estimates.from_draws(
                problem.batch * _minibatch(problem, draw, noise)
            )
        leaf_norms = _per_example(problem, draw, noise)
        return estimates.from_examples(_norms.total(leaf_norms), problem.axis_name)

    return on_problem(
        compute,
        outputs_fn,
        params,
        inputs,
        key,
        likelihood=likelihood,
        mask=mask,
        chunk_size=chunk_size,
        axis_name=axis_name,
        one_by_one=estimator in ("per_example", "exact"),
    )


@compiled.compiles_itself
@trees.highest_precision
def minibatch_fisher_trace(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    draw: Draw = "labels",
    chunk_size: int | None = None,
    precision: trees.Precision = "highest",
    axis_name: axes.AxisName = None,
) -> Float[Array, ""]:
    """The paper's Tr(F_B) = ‖(1/B) Σ_i g(x_i, ŷ_i)‖², ŷ_i ~ p(y|x_i).

    It is the value of the Fisher Penalty (Jastrzebski et al. 2021, section 4, eq. 5),
    and E[B · Tr(F_B)] = Tr(F): see ``fisher_trace(estimator="minibatch")``.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> minibatch_fisher_trace(network, params, x, jax.random.key(0)).round(3)
    Array(1.125, dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        draw: "labels", the paper's, "rademacher" or, for Categorical, "importance".
        chunk_size: examples in memory at a time, None for all.
        precision: of matrix products; see ``fisher_trace``.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A scalar, at least float32.

    Raises:
        TypeError: integer parameters or outputs that are not floating point.
        ValueError: as ``fisher_trace``.
    """
    likelihoods.check_likelihood(likelihood)
    likelihoods.check_draw(draw, likelihood)
    key = trees.checked_key(key)

    def compute(problem: Problem, key: PRNGKeyArray) -> Float[Array, ""]:
        return _minibatch(problem, draw, problem.noise(key, draw))[0]

    return on_problem(
        compute,
        outputs_fn,
        params,
        inputs,
        key,
        likelihood=likelihood,
        mask=mask,
        chunk_size=chunk_size,
        axis_name=axis_name,
    )


@compiled.compiles_itself
@trees.highest_precision
def layer_fisher_traces(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray | None = None,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    estimator: Literal["per_example", "exact"] = "per_example",
    draw: Draw = "rademacher",
    num_draws: int = 1,
    chunk_size: int | None = None,
    precision: trees.Precision = "highest",
    axis_name: axes.AxisName = None,
) -> PyTree:
    """Tr(F) of each parameter array: the traces of the diagonal blocks of F.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> layer_fisher_traces(network, params, x, estimator="exact")["w"].round(3)
    Array(1.25, dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key; not needed for "exact".
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        estimator: "per_example" or "exact"; see ``fisher_trace``.
        draw: "rademacher", "labels" or "importance"; see ``fisher_trace``.
        num_draws: independent draws that are averaged; ignored by "exact".
        chunk_size: examples in memory at a time; see ``fisher_trace``.
        precision: of matrix products; see ``fisher_trace``.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A pytree like params with one scalar, at least float32, for each array. They sum
        to ``fisher_trace(...).mean`` with the same estimator, key, draw and num_draws,
        up to rounding.

    Raises:
        TypeError: integer parameters or outputs that are not floating point.
        ValueError: as ``fisher_trace``.
    """
    trees.check_choice("estimator", estimator, ("per_example", "exact"))
    likelihoods.check_likelihood(likelihood)
    likelihoods.check_draw(draw, likelihood)
    trees.check_count("num_draws", num_draws)
    if estimator != "exact":
        key = trees.checked_key(key)

    def compute(problem: Problem, key: PRNGKeyArray | None) -> PyTree:
        if estimator == "exact":
            leaf_norms = _exact_norms(problem)
            per_example = [leaf.sum(axis=1) for leaf in leaf_norms]
        else:
            leaf_norms = _per_example(
                problem, draw, problem.noise(key, draw, num_draws)
            )
            per_example = [leaf.mean(axis=1) for leaf in leaf_norms]
        traces = [
            estimates.mean_over_examples(leaf, problem.axis_name)
            for leaf in per_example
        ]
        return jax.tree.unflatten(jax.tree.structure(problem.params), traces)

    return on_problem(
        compute,
        outputs_fn,
        params,
        inputs,
        key,
        likelihood=likelihood,
        mask=mask,
        chunk_size=chunk_size,
        axis_name=axis_name,
        one_by_one=True,
    )


@compiled.compiles_itself
@trees.highest_precision
def fisher_vector_product(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    vector: PyTree,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    chunk_size: int | None = None,
    precision: trees.Precision = "highest",
    axis_name: axes.AxisName = None,
) -> PyTree:
    """F vector = (1/B) Σ_i J_iᵀ A_i J_i vector, without sampling.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> vector = {"w": jnp.array([[1.0, -1.0]])}
    >>> fisher_vector_product(network, params, x, vector)["w"].round(3)
    Array([[ 1.25, -1.25]], dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        vector: pytree like params; cast to its dtypes.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        chunk_size: examples in memory at a time, None for all.
        precision: of matrix products; see ``fisher_trace``.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A pytree like params, in its dtypes.

    Raises:
        TypeError: integer parameters, outputs that are not floating point, or a
            ``jax.custom_vjp`` inside the network.
        ValueError: shapes that do not fit, chunk_size < 1, or a split batch without
            axis_name.
    """
    trees.check_params(params)
    trees.check_same_shapes("vector", vector, params)
    vector = jax.tree.map(lambda v, p: jnp.asarray(v, p.dtype), vector, params)
    return on_problem(
        _product,
        outputs_fn,
        params,
        inputs,
        vector,
        likelihood=likelihood,
        mask=mask,
        chunk_size=chunk_size,
        axis_name=axis_name,
    )


def on_problem(
    compute: Callable[[Problem, Any], _R],
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    others: PyTree,
    *,
    likelihood: Likelihood,
    mask: Mask | None,
    chunk_size: int | None,
    axis_name: axes.AxisName,
    one_by_one: bool = False,
) -> _R:
    """``compute(problem, others)`` after all checks, wherever the examples lie.

    Args:
        compute: maps a Problem and others to what is the same on all devices.
        others: arrays that are no examples, as a key.
        one_by_one: whether the network sees one example at a time.
    """
    trees.check_count("chunk_size", chunk_size)
    trees.check_params(params)
    is_cut = chunk_size is not None and chunk_size < trees.batch_size(inputs)
    likelihoods.checked_outputs(
        outputs_fn, params, inputs, likelihood, mask, in_parts=one_by_one or is_cut
    )
    axes.check(inputs, axis_name)

    def on_examples(
        function: OutputsFn,
        params: PyTree,
        examples: Any,
        others: PyTree,
        axis_name: axes.AxisName,
    ) -> _R:
        inputs, mask = examples
        # Sums over devices are ours to take, see axes.vary.
        varied = axes.vary((params, inputs, mask, others), axes.names(axis_name))
        params, inputs, mask, _ = varied
        outputs = jax.eval_shape(function, params, inputs)
        problem = Problem(
            function, params, inputs, mask, outputs, likelihood, chunk_size, axis_name
        )
        return compute(problem, others)

    if not (one_by_one or is_cut):
        # The network may see the batch as it lies.
        return on_examples(outputs_fn, params, (inputs, mask), others, axis_name)
    return axes.spread(
        on_examples, outputs_fn, params, (inputs, mask), others, axis_name
    )


def _per_example(
    problem: Problem, draw: Draw, noise: PyTree
) -> list[Float[Array, "B D"]]:
    """‖J_iᵀ v_id‖² for each leaf, example and draw."""
    num_draws = jax.tree.leaves(noise)[0].shape[0]

    def cotangent(outputs: Array, example: Any, draw_number: Array) -> Array:
        own_noise, mask = example
        one_draw = jax.tree.map(lambda a: a[draw_number], own_noise)
        return problem.cotangent(draw, outputs, one_draw, mask)

    by_example = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), noise)
    return _norms.squared_pullback_norms(
        problem.outputs_fn,
        problem.params,
        problem.inputs,
        (by_example, problem.mask),
        cotangent,
        num_draws,
        problem.chunk_size,
    )


def _exact_norms(problem: Problem) -> list[Float[Array, "B K"]]:
    """‖J_iᵀ s_ik‖² for each leaf, example and column of a factor of A_i."""

    def column(outputs: Array, mask: Array | None, index: Array) -> Array:
        return problem.column(outputs, index, mask)

    return _norms.squared_pullback_norms(
        problem.outputs_fn,
        problem.params,
        problem.inputs,
        problem.mask,
        column,
        math.prod(problem.outputs.shape[1:]),
        problem.chunk_size,
    )


def _exact(problem: Problem) -> Float[Array, " B"]:
    return _norms.total(_exact_norms(problem)).sum(axis=1)


def _minibatch(problem: Problem, draw: Draw, noise: PyTree) -> Float[Array, " D"]:
    """‖(1/B) Σ_i J_iᵀ v_id‖² for each draw."""
    batch = problem.batch

    def one_draw(noise: PyTree) -> Float[Array, ""]:
        def gradient(chunk: PyTree, weights: Float[Array, " n"]) -> PyTree:
            x, noise_rows, mask = chunk
            outputs, pullback = jax.vjp(
                lambda p: problem.outputs_fn(p, x), problem.params
            )
            v = problem.cotangent(draw, outputs, noise_rows, mask)
            return pullback((_weighted(v, weights) / batch).astype(outputs.dtype))[0]

        mean_gradient = loops.sum_chunks(
            gradient, (problem.inputs, noise, problem.mask), problem.chunk_size
        )
        return trees.squared_norm(axes.total(mean_gradient, problem.axis_name))

    return loops.map_slices(one_draw, noise)


@programs.forward_derivative(", or take another estimator")
def _forward(
    problem: Problem, key: PRNGKeyArray | None, num_probes: int
) -> Float[Array, " D"]:
    """zᵀ F z for each probe z, by Jacobian-vector products."""
    keys = estimates.probe_keys(key, num_probes)

    def forms(chunk: PyTree, weights: Float[Array, " n"]) -> Float[Array, " D"]:
        x, mask = chunk
        outputs, pushforward = jax.linearize(
            lambda p: problem.outputs_fn(p, x), problem.params
        )

        def one_probe(key: PRNGKeyArray) -> Float[Array, ""]:
            probe = trees.random_probe(key, problem.params, "rademacher")
            probe = axes.vary(probe, axes.names(problem.axis_name))
            variances = problem.likelihood.variance(
                likelihoods.keep(outputs, mask), pushforward(probe)
            )
            return jnp.sum(_weighted(likelihoods.keep(variances, mask), weights))

        return loops.map_slices(one_probe, keys) / problem.batch

    own = loops.sum_chunks(forms, (problem.inputs, problem.mask), problem.chunk_size)
    return axes.total(own, problem.axis_name)


@programs.forward_derivative("")
def _product(problem: Problem, vector: PyTree) -> PyTree:
    vector = axes.vary(vector, axes.names(problem.axis_name))

    def product(chunk: PyTree, weights: Float[Array, " n"]) -> PyTree:
        x, mask = chunk
        outputs, pushforward = jax.linearize(
            lambda p: problem.outputs_fn(p, x), problem.params
        )
        pushed = problem.likelihood.covariance_product(
            likelihoods.keep(outputs, mask), pushforward(vector)
        )
        pushed = _weighted(likelihoods.keep(pushed, mask), weights) / problem.batch
        pullback = jax.linear_transpose(pushforward, problem.params)
        return pullback(pushed.astype(outputs.dtype))[0]

    own = loops.sum_chunks(product, (problem.inputs, problem.mask), problem.chunk_size)
    return axes.total(own, problem.axis_name)


def _weighted(values: Float[Array, "n ..."], weights: Float[Array, " n"]) -> Array:
    return values * weights.reshape(-1, *(1,) * (values.ndim - 1))
