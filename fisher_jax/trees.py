"""Pytrees of parameters as vectors: inner products, norms, probes, checks.

Sums are taken in at least float32, and in float64 when a leaf is float64, whatever
the leaves' dtype.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Probes = Literal["gaussian", "rademacher"]
PROBES = ("gaussian", "rademacher")

# Of matrix products; see jax.default_matmul_precision.
Precision = Literal["default", "high", "highest"] | None
PRECISIONS = ("default", "high", "highest")

# A context manager changes it too, which only the attribute knows.
_DEBUG_NANS = "jax_debug_nans"

_P = ParamSpec("_P")
_R = TypeVar("_R")


def highest_precision(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Traces ``function`` with full float32 products instead of TF32 or bf16 passes.

    A function with an option ``precision`` is traced with that; None is the caller's.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        precision: Any = kwargs.get("precision", "highest")
        if precision is None:
            return function(*args, **kwargs)
        check_choice("precision", precision, PRECISIONS)
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return wrapped


def accumulation_dtype(tree: PyTree) -> jnp.dtype:
    """The dtype in which sums over ``tree`` are taken: float32, or float64."""
    # Not by result_type of all, which strict promotion would refuse.
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)}
    double = jnp.dtype(jnp.float64)
    return double if double in dtypes else jnp.dtype(jnp.float32)


def unknown(beside: PyTree, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
    """NaN, which stands for a number that is not known.

    ``jax_debug_nans`` takes every NaN that JAX computes for a fault, and every one that
    a compiled function returns. Under it the NaN is made on the host, and inside a
    transformation it is infinity instead: an error without bound.

    Args:
        beside: arrays that come from the same computation; they say the dtype, as in
            ``accumulation_dtype``, and whether it is being traced.
        shape: of an array of such numbers.
    """
    dtype = accumulation_dtype(beside)
    if not getattr(jax.config, _DEBUG_NANS):
        return jnp.full(shape, jnp.nan, dtype)
    leaves = jax.tree.leaves(beside)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return jnp.full(shape, jnp.inf, dtype)
    return jax.device_put(np.full(shape, np.nan, dtype))


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Σ a·b over all leaves of two pytrees of the same structure."""
    dtype = accumulation_dtype((a, b))
    products = jax.tree.map(
        lambda x, y: jnp.sum(x.astype(dtype) * y.astype(dtype)), a, b
    )
    return sum(jax.tree.leaves(products), jnp.zeros((), dtype))


def squared_norm(tree: PyTree) -> Float[Array, ""]:
    """‖tree‖², the sum of squares over all leaves.

    A sum of squares and never a norm: the derivative of a square root at zero is NaN.
    """
    return inner(tree, tree)


def step(params: PyTree, scale: Float[Array, ""] | float, direction: PyTree) -> PyTree:
    """``params + scale · direction``, in the dtype of each leaf of ``params``."""
    return jax.tree.map(lambda p, d: p + (scale * d).astype(p.dtype), params, direction)


def random_probe(key: PRNGKeyArray, params: PyTree, probes: Probes) -> PyTree:
    """A random vector z shaped like ``params`` with E[z zᵀ] = I.

    Args:
        key: a PRNG key.
        params: floating-point arrays.
        probes: "gaussian" (standard normal) or "rademacher" (independent signs).

    Raises:
        ValueError: if ``probes`` is neither.
    """
    check_choice("probes", probes, PROBES)
    sample = jax.random.normal if probes == "gaussian" else jax.random.rademacher
    leaves, structure = jax.tree.flatten(params)
    # One draw for all leaves: generators are slow to compile, and networks have
    # hundreds of leaves.
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    flat = sample(key, (ends[-1],), accumulation_dtype(params))
    parts = [
        flat[end - leaf.size : end].reshape(leaf.shape).astype(leaf.dtype)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def is_floating(array: Any) -> bool:
    """Whether this is an array (or the shape of one) of real floating point."""
    return hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.floating)


def described(value: Any) -> str:
    """A value for an error message: dtype and shape of an array, else its type."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"dtype {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {value!r}"


def check_function(name: str, function: Any) -> None:
    """Refuses what cannot be called.

    Raises:
        TypeError: naming ``name``.
    """
    if not callable(function):
        raise TypeError(f"{name}: expected a function, got {described(function)}")


def checked_key(key: PRNGKeyArray | None) -> PRNGKeyArray:
    """Returns one PRNG key, typed or legacy, and refuses all else.

    Raises:
        TypeError: if it is no key at all.
        ValueError: if it is None, or several keys.
    """
    expected = "key: expected one PRNG key such as jax.random.key(0), got"
    if key is None:
        raise ValueError(f"{expected} None")
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not is_typed and (dtype != jnp.uint32 or not shape):
        raise TypeError(f"{expected} {described(key)}")
    if len(shape) != (0 if is_typed else 1):
        raise ValueError(f"{expected} {described(key)}; index it, or use jax.vmap")
    if not is_typed:
        of_default = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        if shape != of_default.shape:
            raise ValueError(
                f"{expected} {described(key)}, which is of another implementation than "
                "JAX's default; make it by jax.random.key(seed, impl=...)"
            )
    return key


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


def check_params(params: PyTree) -> None:
    """Refuses parameters that have no gradient.

    Raises:
        TypeError: if a leaf is no real floating-point array.
        ValueError: if there is no leaf, or a leaf has no element.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(
            "params: expected a pytree of floating-point arrays, got no array in it"
        )
    for path, leaf in leaves:
        where = f"params{jax.tree_util.keystr(path)}"
        if not is_floating(leaf):
            raise TypeError(
                f"{where}: expected a real floating-point array, got "
                f"{described(leaf)}; close over what is not differentiated"
            )
        if leaf.size == 0:
            raise ValueError(
                f"{where}: expected at least one element, got {described(leaf)}"
            )


def check_same_shapes(name: str, tree: PyTree, params: PyTree) -> None:
    """Refuses a vector that is not shaped like ``params``.

    Raises:
        ValueError: naming ``name`` and the first leaf that differs.
    """
    expected: Any = jax.tree.structure(params)
    got: Any = jax.tree.structure(tree)
    if got != expected:
        raise ValueError(
            f"{name}: expected the pytree structure of params, {expected}, got {got}"
        )
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(params), strict=True
    )
    for (path, leaf), param in pairs:
        if jnp.shape(leaf) != jnp.shape(param):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected shape "
                f"{jnp.shape(param)} like params, got {jnp.shape(leaf)}"
            )


def check_scalar(name: str, function: Callable[[Any], Any], params: PyTree) -> None:
    """Refuses a function of params, as a loss, that returns no real scalar.

    Raises:
        TypeError: naming what ``function(params)`` returns.
    """
    check_function(name, function)
    result = jax.eval_shape(function, params)
    if getattr(result, "shape", None) != () or not is_floating(result):
        raise TypeError(
            f"{name}: expected {name}(params) to be one floating-point scalar, got "
            f"{described(result)}"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is not among ``choices``.

    Raises:
        ValueError: listing the choices.
    """
    if value not in choices:
        valid = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{name}: expected one of {valid}, got {value!r}")


def check_count(name: str, value: int | None, *, least: int = 1) -> None:
    """Refuses a count below one (or ``least``); ``None`` passes.

    Raises:
        TypeError: if ``value`` is no Python integer (it must be static under jit).
        ValueError: if it is below that.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a Python integer, got {described(value)}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def like(vector: Float[Array, " n"], params: PyTree) -> PyTree:
    """A flat vector in the shapes of params, in its own dtype."""
    leaves, structure = jax.tree.flatten(params)
    parts, first = [], 0
    for leaf in leaves:
        parts.append(vector[first : first + leaf.size].reshape(leaf.shape))
        first += leaf.size
    return jax.tree.unflatten(structure, parts)
