"""Diagonals of the Fisher matrix and of the Hessian, and the Hessian's layer by layer.

Both come with the standard error of every entry. They sum to the traces.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, compiled, loops, trees
from fisher_jax.curvature import (
    _norms,
    estimates,
    fisher,
    hessian,
    likelihoods,
    spectrum,
)
from fisher_jax.curvature.estimates import Estimate
from fisher_jax.curvature.fisher import Problem
from fisher_jax.curvature.likelihoods import (
    Categorical,
    Draw,
    Likelihood,
    Mask,
    OutputsFn,
)
from fisher_jax.trees import Probes


@compiled.compiles_itself
@trees.highest_precision
def fisher_diagonal(
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
) -> Estimate:
    """The diagonal of F: (1/B) Σ_i (J_iᵀ v_i)², squared entry by entry.

    The draws, estimators and errors are those of ``fisher_trace``, for every entry;
    "exact" sums the squares of a backward pass for every output of an example. About
    the time of a gradient and a half a draw.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> fisher_diagonal(network, params, x, estimator="exact").mean["w"].round(3)
    Array([[0.625, 0.625]], dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key; not needed for "exact".
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        estimator: "per_example" or "exact".
        draw: "rademacher", "labels" or, for Categorical, "importance".
        num_draws: independent draws that are averaged; ignored by "exact".
        chunk_size: examples whose gradients are in memory at a time (on each device of
            Explicit mesh axes); None for 256 MiB of them on a CPU, 384 MiB on each
            accelerator.
        precision: of matrix products; see ``fisher_trace``.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        ``mean`` and ``sem``, pytrees like params, at least float32. The mean sums to
        ``fisher_trace(...).mean`` with the same options, up to rounding.

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

    def compute(problem: Problem, key: PRNGKeyArray | None) -> Estimate:
        if estimator == "exact":
            return _exact_diagonal(problem)
        return _drawn_diagonal(problem, draw, problem.noise(key, draw, num_draws))

    return fisher.on_problem(
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


def _exact_diagonal(problem: Problem) -> Estimate:
    number = math.prod(problem.outputs.shape[1:])

    def column(outputs: Array, mask: Array | None, k: Array) -> Array:
        return problem.column(outputs, k, mask)

    sums, _ = _sums_of_squares(problem, problem.mask, column, number)
    return estimates.exactly(jax.tree.map(lambda s: number * s / problem.batch, sums))


def _drawn_diagonal(problem: Problem, draw: Draw, noise: PyTree) -> Estimate:
    num_draws = jax.tree.leaves(noise)[0].shape[0]

    def cotangent(outputs: Array, example: Any, k: Array) -> Array:
        own_noise, mask = example
        return problem.cotangent(
            draw, outputs, jax.tree.map(lambda a: a[k], own_noise), mask
        )

    by_example = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), noise)
    means, spreads = _sums_of_squares(
        problem, (by_example, problem.mask), cotangent, num_draws
    )
    batch = problem.batch
    mean = jax.tree.map(lambda s: s / batch, means)
    if num_draws == 1 and batch == 1:
        return Estimate(mean, jax.tree.map(lambda m: trees.unknown(m, m.shape), mean))

    def error(mean: Array, spread: Array) -> Array:
        # Of the draws, pooled; of the examples, where there is one draw.
        if num_draws == 1:
            spread = (spread - batch * mean**2) * batch / (batch - 1)
        return jnp.sqrt(jnp.maximum(spread, 0) / num_draws) / batch

    return Estimate(mean, jax.tree.map(error, mean, spreads))


def _sums_of_squares(
    problem: Problem, extra: PyTree, cotangent: _norms.Cotangent, number: int
) -> tuple[PyTree, PyTree]:
    """Σ_i of an example's mean over k of (J_iᵀ v_ik)², and Σ_i of its spread.

    The spread is the variance over k, for a single k the square.
    """
    dtype = trees.accumulation_dtype(problem.params)
    params = axes.vary_like(problem.params, (problem.inputs, extra))

    def one_example(example: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        one_input, one_extra = example
        outputs, pullback = _norms.pullback_of_one(
            problem.outputs_fn, params, one_input
        )

        def squares(k: Array) -> PyTree:
            v = cotangent(outputs, one_extra, k).astype(outputs.dtype)
            gradient = pullback(axes.vary_like(v, outputs))
            return jax.tree.map(lambda g: g.astype(dtype) ** 2, gradient)

        mean, rest = loops.mean_and_squares(squares, jnp.arange(number))
        if number == 1:
            return mean, jax.tree.map(jnp.square, mean)
        return mean, jax.tree.map(lambda s: s / (number - 1), rest)

    def one_chunk(chunk: PyTree, weights: Float[Array, " n"]) -> PyTree:
        each = jax.vmap(one_example)(chunk)
        return jax.tree.map(lambda a: jnp.tensordot(weights.astype(dtype), a, 1), each)

    def own_sums(size: int, *examples: PyTree) -> PyTree:
        return loops.sum_chunks(one_chunk, examples, size)

    sizes = _norms.gradients_that_fit(problem.params)
    if problem.chunk_size:
        sizes = _norms.ChunkSizes(problem.chunk_size, problem.chunk_size)
    sums = _norms.by_chunks(own_sums, sizes, problem.inputs, extra)
    means, spreads = axes.total(sums, problem.axis_name)
    return means, spreads


@compiled.compiles_itself
@trees.highest_precision
def hessian_diagonal(
    loss_fn: hessian.LossFn,
    params: PyTree,
    key: PRNGKeyArray,
    *,
    num_probes: int = 30,
    probes: Probes = "rademacher",
    method: Literal["hutchinson", "xdiag"] = "hutchinson",
    precision: trees.Precision = "highest",
) -> Estimate:
    """The diagonal of H by (1/M) Σ_m z_m ⊙ H z_m with E[z zᵀ] = I.

    Bekas, Kokiopoulou and Saad 2007, doi:10.1016/j.apnum.2007.01.003. An entry's error
    is that of the rest of its row: for signs its variance is Σ_{k≠j} H_jk², over M.

    >>> loss = lambda params: jnp.sum(jnp.array([1.0, 2.0]) * params**2)
    >>> jnp.rint(hessian_diagonal(loss, jnp.ones(2), jax.random.key(0)).mean)
    Array([2., 4.], dtype=float32)

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.
        key: a PRNG key; probe m is that of ``hessian_trace``.
        num_probes: M.
        probes: "rademacher" (signs) or "gaussian", which is noisier.
        method: "hutchinson", as above; or "xdiag" (Epperly, Tropp and Webber 2024,
            doi:10.1137/23M1548323), which deflates a random low-rank range first: half
            of the num_probes products make the range, half the rest. Worth it where few
            eigenvalues matter; it holds 2 num_probes vectors of the size of params.
        precision: of matrix products; see ``hessian_trace``.

    Returns:
        ``mean`` and ``sem``, pytrees like params, at least float32; ``sem`` is NaN for
        a single probe. For "xdiag" it is the spread of leave-one-out estimates, which
        are not independent, and only approximates the error.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: unknown probes or method, num_probes < 1, or empty parameters; for
            "xdiag", num_probes odd, below four or above the number of parameters.
    """
    trees.check_choice("method", method, ("hutchinson", "xdiag"))
    if method == "xdiag":
        return _xdiag(loss_fn, params, trees.checked_key(key), num_probes, probes)
    entries = _entries(loss_fn, params, probes, num_probes)
    mean, squares = loops.mean_and_squares(
        entries, estimates.probe_keys(key, num_probes)
    )
    if num_probes == 1:
        return Estimate(mean, jax.tree.map(lambda m: trees.unknown(m, m.shape), mean))
    freedom = num_probes * (num_probes - 1)
    return Estimate(mean, jax.tree.map(lambda s: jnp.sqrt(s / freedom), squares))


@compiled.compiles_itself
def _xdiag(
    loss_fn: hessian.LossFn,
    params: PyTree,
    key: PRNGKeyArray,
    num_products: int,
    probes: Probes,
) -> Estimate:
    """Means and errors of the leave-one-out estimates of XDiag."""
    trees.check_choice("probes", probes, trees.PROBES)
    trees.check_count("num_probes", num_products)
    operator = spectrum.hessian_operator(loss_fn, params)
    product, size, dtype = hessian.flat_operator(operator, params)
    if num_products < 4 or num_products % 2 or num_products > size:
        raise ValueError(
            "num_probes: expected for xdiag an even number from 4 on and at most the "
            f"{size} parameters, got {num_products}"
        )
    draw = jax.random.normal if probes == "gaussian" else jax.random.rademacher
    vectors = draw(key, (num_products // 2, size), dtype)
    basis, factor = jnp.linalg.qr(loops.map_slices(product, vectors).T)
    images = loops.map_slices(product, basis.T).T
    # Column i is orthogonal to the images of all probes but the i-th; where the rank of
    # H is too small for that many, to rounding, which is as good.
    diagonal = jnp.diag(factor)
    smallest = jnp.finfo(dtype).eps * jnp.max(jnp.abs(diagonal))
    smallest = jnp.where(smallest > 0, smallest, 1)
    padding = jnp.where(jnp.abs(diagonal) < smallest, smallest, 0)
    left_out = jnp.linalg.inv(factor + jnp.diag(padding)).T
    left_out = left_out / jnp.linalg.norm(left_out, axis=0)
    directions = basis @ left_out
    deflated = jnp.sum(images * basis, axis=1, keepdims=True)
    deflated = deflated - directions * (images @ left_out)
    rest = directions * jnp.sum(left_out * factor, axis=0) * vectors.T
    estimate = estimates.from_draws((deflated + rest).T)
    return Estimate(*(trees.like(part, params) for part in estimate))


@compiled.compiles_itself
@trees.highest_precision
def layer_hessian_traces(
    loss_fn: hessian.LossFn,
    params: PyTree,
    key: PRNGKeyArray,
    *,
    num_probes: int = 30,
    probes: Probes = "gaussian",
    precision: trees.Precision = "highest",
) -> PyTree:
    """Tr(H) of each parameter array: the traces of the diagonal blocks of H.

    >>> loss = lambda params: jnp.sum(params["a"] ** 2) - params["b"] ** 2
    >>> params = {"a": jnp.ones(3), "b": jnp.ones(())}
    >>> key = jax.random.key(0)
    >>> traces = layer_hessian_traces(loss, params, key, probes="rademacher")
    >>> round(float(traces["a"].mean), 3)
    6.0

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.
        key: a PRNG key; probe m is that of ``hessian_trace``.
        num_probes: Hessian-vector products; every one tells of all arrays.
        probes: "gaussian" or "rademacher", whose variance is smaller.
        precision: of matrix products; see ``hessian_trace``.

    Returns:
        A pytree like params with an Estimate of scalars for each array. Their means sum
        to ``hessian_trace(...).mean`` with the same probes and key, up to rounding.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: unknown probes, num_probes < 1, or empty parameters.
    """
    entries = _entries(loss_fn, params, probes, num_probes)

    def sums(probe_key: PRNGKeyArray) -> PyTree:
        return jax.tree.map(jnp.sum, entries(probe_key))

    draws = loops.map_slices(sums, estimates.probe_keys(key, num_probes))
    return jax.tree.map(estimates.from_draws, draws)


def _entries(
    loss_fn: hessian.LossFn, params: PyTree, probes: Probes, num_probes: int
) -> Any:
    """probe key -> z ⊙ H z, in at least float32."""
    trees.check_choice("probes", probes, trees.PROBES)
    trees.check_count("num_probes", num_probes)
    trees.check_params(params)
    trees.check_scalar("loss_fn", loss_fn, params)
    dtype = trees.accumulation_dtype(params)
    _, product = jax.linearize(jax.grad(loss_fn), params)

    def entries(probe_key: PRNGKeyArray) -> PyTree:
        probe = trees.random_probe(probe_key, params, probes)
        probe = axes.vary_each(probe, params)
        return jax.tree.map(
            lambda z, h: z.astype(dtype) * h.astype(dtype), probe, product(probe)
        )

    return entries
