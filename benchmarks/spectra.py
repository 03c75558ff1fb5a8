"""Tr(F) and the diagonal of F of a GPT, and the Hessian's density beside matfree's.

Times are processor times of all threads, taken in turns within this process, so that a
busy machine disturbs them little. Where a peer computes the same, values are compared
first, and nothing is timed that differs.

``python -m benchmarks.spectra`` prints Markdown tables, with the limits.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree
from matfree import decomp, funm

from benchmarks.gpt import gpt
from benchmarks.networks import Problem, simple_cnn
from benchmarks.timing import Effort, take_turns
from fisher_jax import curvature, startup
from fisher_jax.curvature import Categorical

# A ratio is the same for eight probes, and takes four times as long.
NUM_PROBES, NUM_STEPS = 2, 32


class Row(NamedTuple):
    """One program beside the first of its table, and the limit for the ratio."""

    name: str
    ratio: float
    temp_mib: float
    limit: float | None


def measure(
    programs: dict[str, Callable[[PyTree], Any]],
    params: PyTree,
    limits: dict[str, float],
    effort: Effort,
) -> list[Row]:
    """Times of programs over that of the first, and their temporary memory."""
    compiled = {
        name: jax.jit(function).lower(params).compile()
        for name, function in programs.items()
    }
    calls = {
        name: lambda one=one: jax.block_until_ready(one(params))
        for name, one in compiled.items()
    }
    times = take_turns(calls, effort, time.process_time)
    first = next(iter(programs))
    return [
        Row(
            name,
            times.ratio(name, first).median,
            one.memory_analysis().temp_size_in_bytes / 2**20,
            limits.get(name),
        )
        for name, one in compiled.items()
    ]


def of_gpt(problem: Problem, effort: Effort) -> list[Row]:
    """Tr(F) and its diagonal in gradients."""
    key = jax.random.key(2)

    def loss(params: PyTree) -> Array:
        logits = problem.logits_fn(params, problem.inputs)
        return Categorical().loss(logits, problem.labels).sum(axis=1).mean()

    def trace(draw: Any) -> Callable[[PyTree], Any]:
        return lambda p: curvature.fisher_trace(
            problem.logits_fn, p, problem.inputs, key, draw=draw
        )

    programs = {
        "gradient": jax.grad(loss),
        "Tr(F), signs": trace("rademacher"),
        "Tr(F), labels": trace("labels"),
        "Tr(F), importance": trace("importance"),
        "diagonal of F, one draw": lambda p: curvature.fisher_diagonal(
            problem.logits_fn, p, problem.inputs, key
        ),
    }
    limits = {name: 1.3 for name in programs if name.startswith("Tr(F)")}
    limits["diagonal of F, one draw"] = 2.0
    return measure(programs, problem.params, limits, effort)


def of_hessian(problem: Problem, effort: Effort) -> list[Row]:
    """The density of H in the products that it takes."""
    key, number = jax.random.key(0), NUM_PROBES * NUM_STEPS
    flat, unravel = ravel_pytree(problem.params)

    def flat_product(params: PyTree) -> Callable[[Array], Array]:
        operator = curvature.hessian_operator(problem.loss_fn, params)
        return lambda v: ravel_pytree(operator(unravel(v)))[0]

    def products(params: PyTree) -> Array:
        product = flat_product(params)

        def body(_: Array, vector: Array) -> Array:
            image = product(vector)
            return image / jnp.linalg.norm(image)

        return jax.lax.fori_loop(0, number, body, jnp.ones_like(flat))

    def density(params: PyTree) -> curvature.SpectralDensity:
        operator = curvature.hessian_operator(problem.loss_fn, params)
        return curvature.spectral_density(
            operator, params, key, num_probes=NUM_PROBES, num_steps=NUM_STEPS
        )

    def trace_of_squares(params: PyTree) -> Array:
        found = density(params)
        return flat.size * jnp.sum(found.weights * found.nodes**2)

    def by_matfree(params: PyTree) -> Array:
        # Tr(H²) by the same quadrature: the density itself is not offered.
        tridiagonal = decomp.tridiag_sym(NUM_STEPS, reortho="full")
        integrand = funm.monte_carlo_funm_sym(
            funm.dense_funm_sym_eigh(jnp.square), tridiagonal
        )
        keys = jax.random.split(key, NUM_PROBES)
        product = flat_product(params)

        def one(key: Array) -> Array:
            return integrand(
                product, jax.random.rademacher(key, flat.shape, flat.dtype)
            )

        return jnp.mean(jax.lax.map(one, keys))

    ours, theirs = (
        float(jax.jit(f)(problem.params)) for f in (trace_of_squares, by_matfree)
    )
    check("Tr(H²) by Lanczos quadrature", ours, theirs)
    programs = {
        "products with H": products,
        "density of H": density,
        "matfree, Lanczos quadrature": by_matfree,
    }
    return measure(programs, problem.params, {"density of H": 1.1}, effort)


def check(name: str, ours: Any, theirs: Any, tolerance: float = 1e-3) -> None:
    """Refuses to go on where a peer's values differ.

    Raises:
        AssertionError: by more than the tolerance, relative.
    """
    error = np.linalg.norm(np.subtract(ours, theirs)) / np.linalg.norm(ours)
    assert error < tolerance, f"{name}: differs from ours by {error:.1e}"


def main() -> None:
    """Measures and prints."""
    startup.keep_convolutions_off_ynnpack()
    brief = Effort(1.0, 3, 3)
    tables = {}
    for title, measured in (
        ("gpt", lambda: of_gpt(gpt(), brief)),
        ("hessian", lambda: of_hessian(simple_cnn(64, 16), brief)),
    ):
        tables[title] = measured()
        print("| program | times the first | temporary MiB | limit |")
        print("| --- | --- | --- | --- |")
        for row in tables[title]:
            limit = "" if row.limit is None else row.limit
            print(f"| {row.name} | {row.ratio:.2f} | {row.temp_mib:.0f} | {limit} |")
        print(flush=True)


if __name__ == "__main__":
    main()
