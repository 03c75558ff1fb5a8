"""The Hessian of a scalar loss: products, trace, largest eigenvalue.

``loss_fn(params) -> scalar`` is any twice differentiable pure function, batch and
labels closed over; a mean over examples for the quantities of the paper. Products with
the Hessian are forward-over-reverse, the Jacobian-vector product of the gradient
(Pearlmutter 1994), which needs less time and memory than reverse-over-reverse. Calls
compile themselves; see ``fisher_jax.compiled``.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.custom_batching
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from matfree import stochtrace

from fisher_jax import axes, compiled, loops, programs, trees
from fisher_jax.curvature import estimates, fisher
from fisher_jax.curvature.estimates import Estimate
from fisher_jax.curvature.likelihoods import Categorical, Likelihood, Mask, OutputsFn
from fisher_jax.trees import Probes

Method = Literal["reverse", "forward"]
LossFn = Callable[[Any], Float[Array, ""]]


class Eigenvalue(NamedTuple):
    """An eigenvalue estimate and how far it is from solving the eigenproblem.

    Attributes:
        value: the estimate λ = vᵀ A v of unit v, a scalar.
        residual: ‖A v − λ v‖; some eigenvalue lies within it of ``value``.
    """

    value: Float[Array, ""]
    residual: Float[Array, ""]


@compiled.compiles_itself
@trees.highest_precision
def hvp(loss_fn: LossFn, params: PyTree, vector: PyTree) -> PyTree:
    """The product H vector of the loss's Hessian at params.

    >>> loss = lambda params: jnp.sum(params**3)
    >>> hvp(loss, jnp.array([1.0, 2.0]), jnp.ones(2))
    Array([ 6., 12.], dtype=float32)

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.
        vector: pytree like params; cast to its dtypes.

    Returns:
        A pytree like params.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: a vector of another structure or shape, or empty parameters.
    """
    trees.check_params(params)
    trees.check_same_shapes("vector", vector, params)
    trees.check_scalar("loss_fn", loss_fn, params)
    tangent = jax.tree.map(lambda v, p: jnp.asarray(v, p.dtype), vector, params)
    return jax.jvp(jax.grad(loss_fn), (params,), (tangent,))[1]


@compiled.compiles_itself
@trees.highest_precision
def hessian_trace(
    loss_fn: LossFn,
    params: PyTree,
    key: PRNGKeyArray,
    *,
    num_probes: int = 30,
    probes: Probes = "gaussian",
    method: Method = "reverse",
    precision: trees.Precision = "highest",
    axis_name: axes.AxisName = None,
) -> Estimate:
    """Tr(H) by Hutchinson's estimator, (1/M) Σ_m z_mᵀ H z_m with E[z zᵀ] = I.

    The paper's Tr(H) has M = 30 Gaussian probes (Jastrzebski et al. 2021, appendix B).

    For a softmax classifier that is piecewise linear in each layer's weights (ReLU or
    leaky ReLU, max or average pooling, no batch normalisation or evaluation mode) the
    diagonals of the Hessian of the mean cross-entropy and of the Fisher agree, whatever
    the labels: each logit is linear in one layer's weights at a time, so ∂²logit/∂θ_j²
    is zero for every single parameter and only the Gauss–Newton term remains. There
    ``fisher_trace(..., estimator="exact")`` on the same examples IS Tr(H), without any
    error, and one draw of ``estimator="per_example"`` is far more precise than 30
    probes. With smooth activations, weight normalisation, or a weight that is used
    twice along one path, the two differ.

    >>> loss = lambda params: jnp.sum(params**3)
    >>> params, key = jnp.array([1.0, 2.0]), jax.random.key(0)
    >>> hessian_trace(loss, params, key, probes="rademacher").mean.round(3)
    Array(18., dtype=float32)

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.
        key: a PRNG key. Probe m is drawn with fold_in(key, m), so the first probes do
            not depend on their number.
        num_probes: M.
        probes: "gaussian", the paper's, or "rademacher", whose variance is smaller by
            2 Σ_j H_jj².
        method: "reverse": jvp of the gradient, which is computed once for all probes
            and whose intermediate values are kept. "forward": z' H z as the second
            derivative along z (jvp of jvp), without a backward pass: the same error,
            for convolutions in about half the time and memory. The defaults are the
            paper's; at equal cost "forward" with "rademacher" is the most precise in
            most cases (benchmarks/results.md, accuracy per cost).
        precision: of matrix products, "highest" (float32), "high", "default", or None
            for that of the caller.
        axis_name: inside shard_map, mesh axes over whose devices the loss is a sum:
            ``loss_fn`` is then this device's share of it. Those along which the loss
            differs and params do not are among them, as for ``jax.grad``.

    Returns:
        Scalars ``mean`` and ``sem`` = std(z_mᵀ H z_m)/√M, NaN for a single probe.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: unknown probes or method, num_probes < 1, or empty parameters.
    """
    trees.check_choice("probes", probes, trees.PROBES)
    trees.check_choice("method", method, get_args(Method))
    trees.check_count("num_probes", num_probes)
    trees.check_params(params)
    trees.check_scalar("loss_fn", loss_fn, params)
    shares = axes.result_varies(loss_fn, params) - axes.varying(params)
    axis_name = sorted({*axes.names(axis_name), *shares})
    params = axes.vary(params, axis_name)
    if method == "reverse":
        product = _hessian_product(loss_fn, params)

        def quadratic_form(probe: PyTree) -> Float[Array, ""]:
            return trees.inner(probe, product(probe))

    else:

        @programs.forward_derivative(', or pass method="reverse"')
        def quadratic_form(probe: PyTree) -> Float[Array, ""]:
            def slope(p: PyTree) -> Float[Array, ""]:
                change: Array = jax.jvp(loss_fn, (p,), (probe,))[1]
                return change

            second: Array = jax.jvp(slope, (params,), (probe,))[1]
            return second.astype(trees.accumulation_dtype(params))

    def one_probe(probe_key: PRNGKeyArray) -> Float[Array, ""]:
        probe = trees.random_probe(probe_key, params, probes)
        return quadratic_form(axes.vary_each(probe, params))

    keys = estimates.probe_keys(key, num_probes)
    forms = axes.total(loops.map_slices(one_probe, keys), axis_name)
    return estimates.from_draws(forms)


@compiled.compiles_itself
@trees.highest_precision
def hessian_xtrace(
    loss_fn: LossFn, params: PyTree, key: PRNGKeyArray, *, num_products: int = 30
) -> Estimate:
    """Tr(H) by XTrace, which deflates a random low-rank range before Hutchinson.

    Epperly, Tropp & Webber 2024, doi:10.1137/23M1548323, as implemented in matfree
    (with resphering). Worth it where few eigenvalues carry the trace, as in trained
    networks; it holds num_products vectors of the size of params. Exact when
    num_products is at least the number of parameters.

    >>> loss = lambda params: jnp.sum(params**3)
    >>> params, key = jnp.array([1.0, 2.0]), jax.random.key(0)
    >>> hessian_xtrace(loss, params, key, num_products=4).mean.round(3)
    Array(18., dtype=float32)

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.
        key: a PRNG key.
        num_products: Hessian-vector products; an even number, half of them spent on the
            range and half on the trace.

    Returns:
        Scalars ``mean`` and ``sem``, the spread of the leave-one-out estimates over
        √(num_products/2), which only approximates the standard error as they are not
        independent; 0 when exact.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: num_products odd or below four, or empty parameters.
    """
    trees.check_count("num_products", num_products)
    if num_products < 4 or num_products % 2:
        raise ValueError(
            f"num_products: expected an even number from 4 on, got {num_products}"
        )
    key = trees.checked_key(key)
    trees.check_params(params)
    trees.check_scalar("loss_fn", loss_fn, params)
    hessian_product = _hessian_product(loss_fn, params)
    product, size, dtype = flat_operator(hessian_product, params)
    if num_products >= size:
        return _exact_trace(product, size, dtype)
    probes = jax.random.normal(key, (num_products // 2, size), dtype)
    # matfree judges rank deficiency by an absolute threshold.
    first = jnp.linalg.norm(product(probes[0]))
    scale = jnp.where(first > 0, first, 1)
    # One product at a time: all at once would hold the network that many times.
    matvec = jax.custom_batching.sequential_vmap(lambda v: product(v) / scale)
    with jax.numpy_rank_promotion("allow"):
        traces = stochtrace.leave_one_out_xtrace()(matvec, probes)
    return estimates.from_draws(scale * traces)


def _hessian_product(loss_fn: LossFn, params: PyTree) -> Callable[[PyTree], PyTree]:
    """vector -> H vector; the gradient is computed once for all vectors."""
    _, product = jax.linearize(jax.grad(loss_fn), params)
    return product


def _exact_trace(
    product: Callable[[Array], Array], size: int, dtype: jnp.dtype
) -> Estimate:
    """The trace by one product per unit vector."""

    def entry(index: Int[Array, ""]) -> Float[Array, ""]:
        return product(jax.nn.one_hot(index, size, dtype=dtype))[index]

    trace = jnp.sum(loops.map_slices(entry, jnp.arange(size)))
    return estimates.exactly(trace)


@compiled.compiles_itself
@trees.highest_precision
def largest_eigenvalue(
    loss_fn: LossFn, params: PyTree, key: PRNGKeyArray, *, num_iterations: int = 20
) -> Eigenvalue:
    """The largest (algebraic) eigenvalue of the loss's Hessian, by Lanczos.

    Lanczos with full reorthogonalisation from a random start; it holds
    num_iterations vectors of the size of params.

    >>> loss = lambda params: jnp.sum(params**3)
    >>> params, key = jnp.array([1.0, 2.0]), jax.random.key(0)
    >>> jnp.rint(largest_eigenvalue(loss, params, key).value)
    Array(12., dtype=float32)

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.
        key: a PRNG key for the start.
        num_iterations: Hessian-vector products (one more for the residual); capped at
            the number of parameters, where the result is exact.

    Returns:
        Scalars ``value`` and ``residual``.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: num_iterations < 1, or empty parameters.
    """
    trees.check_count("num_iterations", num_iterations)
    key = trees.checked_key(key)
    trees.check_params(params)
    trees.check_scalar("loss_fn", loss_fn, params)
    return _largest(_hessian_product(loss_fn, params), params, key, num_iterations)


@compiled.compiles_itself
@trees.highest_precision
def largest_fisher_eigenvalue(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    num_iterations: int = 20,
    chunk_size: int | None = None,
    axis_name: axes.AxisName = None,
) -> Eigenvalue:
    """The largest eigenvalue of the Fisher over the given examples, by Lanczos.

    Products with F are exact, ``fisher_vector_product``; else as
    ``largest_eigenvalue``.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> key = jax.random.key(0)
    >>> largest = largest_fisher_eigenvalue(network, params, x, key)
    >>> round(float(largest.value), 3)
    1.25

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        key: a PRNG key for the start.
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        num_iterations: products with F (one more for the residual); capped at the
            number of parameters.
        chunk_size: examples in memory at a time, None for all.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        Scalars ``value`` and ``residual``.

    Raises:
        TypeError: integer parameters or outputs that are not floating point.
        ValueError: num_iterations < 1, or as ``fisher_vector_product``.
    """
    trees.check_count("num_iterations", num_iterations)
    key = trees.checked_key(key)
    trees.check_params(params)

    def product(vector: PyTree) -> PyTree:
        return fisher.fisher_vector_product(
            outputs_fn,
            params,
            inputs,
            vector,
            likelihood=likelihood,
            mask=mask,
            chunk_size=chunk_size,
            axis_name=axis_name,
        )

    return _largest(product, params, key, num_iterations)


def _largest(
    tree_product: Callable[[PyTree], PyTree],
    params: PyTree,
    key: PRNGKeyArray,
    num_iterations: int,
) -> Eigenvalue:
    """Largest Ritz pair of a symmetric operator on pytrees like params."""
    product, size, dtype = flat_operator(tree_product, params)
    steps = min(num_iterations, size)
    (ritz,) = ritz_vectors(product, size, dtype, key, steps, 1)
    image = product(ritz)
    value = jnp.vdot(ritz, image)
    return Eigenvalue(value, jnp.linalg.norm(image - value * ritz))


def ritz_vectors(
    product: Callable[[Array], Array],
    size: int,
    dtype: jnp.dtype,
    key: PRNGKeyArray,
    steps: int,
    num: int,
) -> Float[Array, "k n"]:
    """Unit vectors of the largest Ritz values, the largest first."""
    start = jax.random.normal(key, (size,), dtype)
    basis, tridiagonal = lanczos(product, start, key, steps)
    _, vectors = jnp.linalg.eigh(tridiagonal)
    ritz = vectors[:, ::-1][:, :num].T @ basis
    unit: Array = ritz / jnp.linalg.norm(ritz, axis=1, keepdims=True)
    return unit


def lanczos(
    product: Callable[[Array], Array],
    start: Float[Array, " n"],
    key: PRNGKeyArray,
    steps: int,
) -> tuple[Float[Array, "k n"], Float[Array, "k k"]]:
    """An orthonormal basis Q and the tridiagonal Q A Qᵀ of a symmetric operator.

    With full reorthogonalisation. Where the Krylov space is exhausted, and the next
    vector is rounding, a random vector that is orthogonal to all before takes its
    place, and the tridiagonal falls into blocks there.
    """
    start = axes.vary(start, sorted(axes.result_varies(product, start)))
    size, dtype = start.size, start.dtype

    def projected(vector: Array, basis: Array) -> Array:
        return vector - (basis @ vector) @ basis

    def step(
        state: tuple[Array, Array, Array, Array], index: Int[Array, ""]
    ) -> tuple[tuple[Array, Array, Array, Array], tuple[Array, Array]]:
        basis, vector, largest, before = state
        basis = basis.at[index].set(vector)
        image = product(vector)
        alpha = jnp.vdot(vector, image)
        # Twice is enough (Kahan): once by the recurrence, then by all vectors.
        rest = image - alpha * vector - before * basis[index - 1]
        rest = projected(rest, basis)
        beta = jnp.linalg.norm(rest)
        largest = jnp.maximum(largest, jnp.maximum(jnp.abs(alpha), beta))
        is_exhausted = beta <= rounding(dtype) * largest

        def restart() -> Array:
            fresh = jax.random.normal(jax.random.fold_in(key, index), (size,), dtype)
            fresh = axes.vary_like(fresh, rest)
            fresh = projected(projected(fresh, basis), basis)
            length = jnp.linalg.norm(fresh)
            # With as many steps as dimensions there is nothing left at the end.
            return fresh / jnp.where(length > 0, length, 1)

        following = jax.lax.cond(is_exhausted, restart, lambda: rest / beta)
        beta = jnp.where(is_exhausted, 0, beta)
        return (basis, following, largest, beta), (alpha, beta)

    zeros = axes.vary_like(jnp.zeros((steps, size), dtype), start)
    first = start / jnp.linalg.norm(start)
    none = jnp.zeros_like(first[0])
    (basis, *_), (alphas, betas) = jax.lax.scan(
        step, (zeros, first, none, none), jnp.arange(steps)
    )
    return basis, tridiagonal_of(alphas, betas)


def tridiagonal_of(
    alphas: Float[Array, " k"], betas: Float[Array, " k"]
) -> Float[Array, "k k"]:
    """The symmetric matrix with alphas on its diagonal and all betas but the last."""
    beside = jnp.diag(betas[:-1], 1)
    return jnp.diag(alphas) + beside + beside.T


def rounding(dtype: jnp.dtype) -> float:
    """Of an operator's size, what is left where a Krylov space is exhausted."""
    return 1e3 * float(jnp.finfo(dtype).eps)


def flat_operator(
    product: Callable[[PyTree], PyTree], params: PyTree
) -> tuple[Callable[[Array], Array], int, jnp.dtype]:
    """A product on pytrees as one on vectors, fit for the body of a loop.

    Vectors are of the dtype in which sums over params are taken, at least float32: what
    is made of them is not of the rounding of the parameters.
    """
    dtype = trees.accumulation_dtype(params)

    def flat(tree: PyTree) -> Float[Array, " n"]:
        wide = jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
        return jax.flatten_util.ravel_pytree(wide)[0]

    wide = jax.tree.map(lambda p: jnp.zeros(p.shape, dtype), params)
    zeros, unravel = jax.flatten_util.ravel_pytree(wide)

    def flat_product(vector: Float[Array, " n"]) -> Float[Array, " n"]:
        tangent = jax.tree.map(lambda v, p: v.astype(p.dtype), unravel(vector), params)
        return flat(product(axes.vary_each(tangent, params)))

    return loops.loop_body(flat_product), zeros.size, dtype
