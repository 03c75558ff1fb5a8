"""Operators, eigenpairs and spectral densities of the Hessian and the Fisher matrix.

An operator maps a pytree like params to another, linearly: any symmetric one will do,
and any library of linear algebra can take those that are made here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fisher_jax import axes, compiled, loops, trees
from fisher_jax.curvature import hessian
from fisher_jax.curvature.fisher import fisher_vector_product
from fisher_jax.curvature.likelihoods import Categorical, Likelihood, Mask, OutputsFn

Operator = Callable[[Any], Any]


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of an operator, and how far they are from solving it.

    Attributes:
        values: λ_j = v_jᵀ A v_j [k], the largest first.
        vectors: v_j of unit length, a pytree like params with a leading axis k.
        residuals: ‖A v_j − λ_j v_j‖ [k]; an eigenvalue lies within it of each value.
    """

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]


class SpectralDensity(NamedTuple):
    """A spectrum as point masses.

    Attributes:
        nodes: where, [num_probes · num_steps], of each probe in rising order.
        weights: how much; they sum to 1.
    """

    nodes: Float[Array, " n"]
    weights: Float[Array, " n"]

    def curve(
        self, grid: Float[Array, " g"], width: Float[Array, ""] | float
    ) -> Float[Array, " g"]:
        """The density at the points of a grid, each mass a Gaussian of that width.

        Args:
            grid: eigenvalues.
            width: the standard deviation, in units of eigenvalues.
        """
        distances = (jnp.asarray(grid)[:, None] - self.nodes[None]) / width
        bumps = jnp.exp(-0.5 * distances**2) / (jnp.sqrt(2 * jnp.pi) * width)
        return bumps @ self.weights


@compiled.compiles_itself
@trees.highest_precision
def hessian_operator(loss_fn: hessian.LossFn, params: PyTree) -> Operator:
    """vector -> H vector; the gradient is computed once for all products.

    Operators of one ``loss_fn`` share their programs: ``eigenpairs`` of the next
    step's operator compiles nothing anew.

    >>> product = hessian_operator(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))
    >>> product(jnp.ones(2))
    Array([ 6., 12.], dtype=float32)

    Args:
        loss_fn: maps params to a scalar.
        params: pytree of floating-point arrays.

    Returns:
        A linear function of pytrees like params, whose leaves are cast to its dtypes.

    Raises:
        TypeError: a loss that is no scalar, or integer parameters.
        ValueError: empty parameters; from the operator a vector of another shape.
    """
    trees.check_params(params)
    trees.check_scalar("loss_fn", loss_fn, params)
    _, product = jax.linearize(jax.grad(loss_fn), params)
    return _operator(product, params)


@compiled.compiles_itself
@trees.highest_precision
def fisher_operator(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    *,
    likelihood: Likelihood = Categorical(),
    mask: Mask | None = None,
    chunk_size: int | None = None,
    precision: trees.Precision = "highest",
    axis_name: axes.AxisName = None,
) -> Operator:
    """vector -> F vector, ``fisher_vector_product`` of the rest.

    Without ``chunk_size`` the network is run once for all products, and its
    intermediate values are kept. Operators of one ``outputs_fn`` share their programs,
    as those of ``hessian_operator`` do.

    >>> network = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((1, 2))}, jnp.array([[1.0], [2.0]])
    >>> product = fisher_operator(network, params, x)
    >>> product({"w": jnp.array([[1.0, -1.0]])})["w"].round(3)
    Array([[ 1.25, -1.25]], dtype=float32)

    Args:
        outputs_fn: maps params and inputs [B, ...] to outputs, as logits [B, ..., C].
        params: pytree of floating-point arrays.
        inputs: [B, ...].
        likelihood: Categorical(), Bernoulli() or Gaussian(scale).
        mask: bool [B, ...], False for positions to leave out.
        chunk_size: examples in memory at a time, None for all.
        precision: of matrix products; see ``fisher_trace``.
        axis_name: mesh axes along which the batch is split inside shard_map.

    Returns:
        A linear function of pytrees like params, whose leaves are cast to its dtypes.

    Raises:
        TypeError, ValueError: as ``fisher_vector_product``; from the operator a vector
            of another shape.
    """
    trees.check_params(params)

    def product(vector: PyTree) -> PyTree:
        return fisher_vector_product(
            outputs_fn,
            params,
            inputs,
            vector,
            likelihood=likelihood,
            mask=mask,
            chunk_size=chunk_size,
            precision=precision,
            axis_name=axis_name,
        )

    if chunk_size is not None:
        product = jax.checkpoint(product)  # keeps what is needed of no chunk
    # It is linear: linearised anywhere it is itself.
    _, linear = jax.linearize(product, params)
    return _operator(linear, params)


def _operator(product: Operator, params: PyTree) -> Operator:
    """A linear function of ``jax.linearize`` as an operator that programs can share."""
    shapes = jax.eval_shape(lambda: params)
    own = jax.tree.map(axes.varying, params)
    residuals, structure = jax.tree.flatten(product)

    def operator(residuals: list[Array], vector: PyTree) -> PyTree:
        trees.check_same_shapes("vector", vector, shapes)
        linear = jax.tree.unflatten(structure, residuals)
        tangent = jax.tree.map(
            lambda v, p, names: axes.vary(jnp.asarray(v, p.dtype), sorted(names)),
            vector,
            shapes,
            own,
        )
        return linear(tangent)

    # A pytree of arrays and one function: a program that returns it returns the same
    # function each time, by which programs are found again.
    return Partial(operator, residuals)


@compiled.compiles_itself
@trees.highest_precision
def eigenpairs(
    operator: Operator,
    params: PyTree,
    key: PRNGKeyArray,
    *,
    num: int = 1,
    num_iterations: int = 40,
) -> Eigenpairs:
    """The largest (algebraic) eigenvalues of a symmetric operator, with vectors.

    Lanczos with full reorthogonalisation from a random start. Where the Krylov space is
    exhausted it goes on from another random vector, so that eigenvalues come as often
    as they are multiple. It holds num_iterations vectors of the size of params.

    >>> product = hessian_operator(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))
    >>> jnp.rint(eigenpairs(product, jnp.zeros(2), jax.random.key(0), num=2).values)
    Array([12.,  6.], dtype=float32)

    Args:
        operator: vector -> vector on pytrees like params, as ``hessian_operator``.
        params: a pytree of floating-point arrays, for its structure and shapes.
        key: a PRNG key for the start.
        num: how many, k.
        num_iterations: products with the operator (k more for the residuals); capped at
            the number of parameters, where the result is exact.

    Returns:
        ``values`` [k], the largest first, ``vectors`` (leading axis k) and
        ``residuals`` [k], at least float32.

    Raises:
        TypeError: integer parameters, or counts that are no Python integers.
        ValueError: more pairs than iterations or parameters, or counts below one.
    """
    trees.check_count("num", num)
    trees.check_count("num_iterations", num_iterations)
    trees.check_params(params)
    trees.check_function("operator", operator)
    key = trees.checked_key(key)
    product, size, _ = hessian.flat_operator(operator, params)
    steps = min(num_iterations, size)
    if num > steps:
        raise ValueError(
            f"num: expected at most num_iterations = {num_iterations} and the {size} "
            f"parameters, got {num}"
        )
    ritz = hessian.ritz_vectors(
        product, size, trees.accumulation_dtype(params), key, steps, num
    )
    images = loops.map_slices(product, ritz)
    values = jnp.sum(ritz * images, axis=1)
    residuals = jnp.linalg.norm(images - values[:, None] * ritz, axis=1)
    order = jnp.argsort(-values)
    vectors = jax.vmap(lambda v: trees.like(v, params))(ritz[order])
    return Eigenpairs(values[order], vectors, residuals[order])


@compiled.compiles_itself
@trees.highest_precision
def spectral_density(
    operator: Operator,
    params: PyTree,
    key: PRNGKeyArray,
    *,
    num_probes: int = 8,
    num_steps: int = 32,
) -> SpectralDensity:
    """The density of a symmetric operator's eigenvalues, by Lanczos quadrature.

    Σ weights f(nodes) estimates Tr f(A)/P for any f: Gauss quadrature of num_steps
    nodes for each random probe (Ubaru, Chen and Saad 2017, doi:10.1137/16M1104974).
    Lanczos goes by its three-term recurrence alone and holds three vectors of the size
    of params. Without reorthogonalisation an eigenvalue that has been found may come
    again, as a second node nearby; the weight is shared between them, so sums of a
    smooth f and the curve are as with it, to rounding (Greenbaum 1989,
    doi:10.1016/0024-3795(89)90285-1; Chen 2024, arXiv:2410.11090).

    >>> product = hessian_operator(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))
    >>> density = spectral_density(product, jnp.zeros(2), jax.random.key(0))
    >>> round(float(density.weights.sum()), 4)
    1.0

    Args:
        operator: vector -> vector on pytrees like params.
        params: a pytree of floating-point arrays, for its structure and shapes.
        key: a PRNG key.
        num_probes: random starts that are averaged.
        num_steps: products with the operator for each; capped at the number of
            parameters, where it does reorthogonalise and a probe's quadrature is exact.

    Returns:
        ``nodes`` and ``weights`` [num_probes · num_steps]; ``.curve(grid, width)`` is
        the smooth density.

    Raises:
        TypeError: integer parameters, or counts that are no Python integers.
        ValueError: counts below one, or empty parameters.
    """
    trees.check_count("num_probes", num_probes)
    trees.check_count("num_steps", num_steps)
    trees.check_params(params)
    trees.check_function("operator", operator)
    product, size, dtype = hessian.flat_operator(operator, params)
    steps = min(num_steps, size)

    def one_probe(key: PRNGKeyArray) -> tuple[Array, Array]:
        start = jax.random.rademacher(key, (size,), dtype)
        if steps == size:
            _, tridiagonal = hessian.lanczos(product, start, key, steps)
        else:
            tridiagonal = _tridiagonal(product, start, steps)
        nodes, vectors = jnp.linalg.eigh(tridiagonal)
        return nodes, vectors[0] ** 2

    keys = jax.random.split(trees.checked_key(key), num_probes)
    nodes, weights = jax.lax.map(one_probe, keys)
    weights = weights / jnp.sum(weights)
    return SpectralDensity(nodes.ravel(), weights.ravel())


def _tridiagonal(
    product: Callable[[Array], Array], start: Float[Array, " n"], steps: int
) -> Float[Array, "k k"]:
    """Lanczos' tridiagonal of a symmetric operator, without its basis.

    Where the Krylov space is exhausted zeros follow, which have no weight at the start.
    """

    def step(state: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
        before, vector, beta, largest = state
        image = product(vector)
        alpha = jnp.vdot(vector, image)
        rest = image - alpha * vector - beta * before
        length = jnp.linalg.norm(rest)
        largest = jnp.maximum(largest, jnp.maximum(jnp.abs(alpha), length))
        is_exhausted = length <= hessian.rounding(start.dtype) * largest
        following = jnp.where(is_exhausted, 0, rest / length)
        beta = jnp.where(is_exhausted, 0, length)
        return (vector, following, beta, largest), (alpha, beta)

    start = axes.vary(start, sorted(axes.result_varies(product, start)))
    first = start / jnp.linalg.norm(start)
    none = jnp.zeros_like(first[0])
    _, (alphas, betas) = jax.lax.scan(
        step, (jnp.zeros_like(first), first, none, none), None, length=steps
    )
    return hessian.tridiagonal_of(alphas, betas)
