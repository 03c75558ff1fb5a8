"""Diagonals, eigenpairs and densities beside those of PyTorch's libraries.

BackPACK, curvlinops and hessian-eigenthings get our parameters and batch. Their values
are compared with ours first, exact ones entry by entry, random ones within four
standard errors; nothing is timed that differs. matfree's density is in ``spectra``.
"""

import copy
from collections.abc import Callable
from typing import Any

import curvlinops
import hessian_eigenthings
import jax
import jax.numpy as jnp
import numpy as np
import torch
from backpack import backpack, extend
from backpack.extensions import DiagGGNExact
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from benchmarks import spectra, work
from benchmarks.networks import Problem
from benchmarks.torch_twins import Twin, copy_parameters, make_twin
from fisher_jax import curvature

NUM_PAIRS, NUM_ITERATIONS = 3, 40
NUM_DIAGONAL_PROBES = 30


def diagonals(problem: Problem) -> work.Section:
    """The exact diagonal of F, and that of H by probes."""
    twin, holder = make_twin(problem), make_twin(problem)

    def exact(params: Any) -> Any:
        return curvature.fisher_diagonal(
            problem.logits_fn, params, problem.inputs, estimator="exact"
        ).mean

    def probed(params: Any, key: Any) -> curvature.Estimate:
        return curvature.hessian_diagonal(
            problem.loss_fn, params, key, num_probes=NUM_DIAGONAL_PROBES
        )

    hessian = _curvlinops_hessian(twin)
    ours_exactly = _compiled(exact, problem.params)
    ours_probed = _compiled(probed, problem.params, jax.random.key(3))
    calls: dict[str, work.Call] = {
        "ours, F exactly": ours_exactly,
        "BackPACK, F exactly": _diagonal_by_backpack(twin),
        f"ours, H, {NUM_DIAGONAL_PROBES} probes": ours_probed,
        f"curvlinops, H, {NUM_DIAGONAL_PROBES} probes": lambda: (
            curvlinops.hutchinson_diag(hessian, NUM_DIAGONAL_PROBES)
        ),
    }
    copy_parameters(ours_exactly(), holder.model)
    ours = torch.cat([p.detach().flatten() for p in holder.params])
    spectra.check("BackPACK's diagonal", ours, calls["BackPACK, F exactly"]())
    total = sum(float(leaf.sum()) for leaf in jax.tree.leaves(ours_probed().mean))
    error = _trace_error(problem)
    theirs = curvlinops.hutchinson_diag(hessian, NUM_DIAGONAL_PROBES).sum().item()
    check_within("curvlinops' diagonal of H, its sum", total, theirs, error)
    return work.Section(calls, {}, {})


def eigenpairs(problem: Problem) -> work.Section:
    """The largest eigenvalues of H with their vectors."""
    twin = make_twin(problem)

    def ours(params: Any, key: Any) -> curvature.Eigenpairs:
        return curvature.eigenpairs(
            curvature.hessian_operator(problem.loss_fn, params),
            params,
            key,
            num=NUM_PAIRS,
            num_iterations=NUM_ITERATIONS,
        )

    linear = _curvlinops_hessian(twin).to_scipy()
    operator = _eigenthings_hessian(twin)

    def by_curvlinops() -> Any:
        return eigsh(linear, k=NUM_PAIRS, which="LA", ncv=NUM_ITERATIONS, tol=1e-4)

    def by_eigenthings() -> Any:
        return hessian_eigenthings.lanczos(
            operator, k=NUM_PAIRS, max_iter=NUM_ITERATIONS, which="LA", seed=0
        )

    key = jax.random.key(4)
    call = _compiled(ours, problem.params, key)
    values = np.asarray(call().values)
    spectra.check("curvlinops' eigenvalues", values, np.sort(by_curvlinops()[0])[::-1])
    found = by_eigenthings().eigenvalues.detach().numpy()
    spectra.check("hessian-eigenthings' eigenvalues", values, np.sort(found)[::-1])
    calls = {
        "ours": call,
        "curvlinops, SciPy's eigsh": by_curvlinops,
        "hessian-eigenthings": by_eigenthings,
    }
    return work.Section(calls, {}, {})


def densities(problem: Problem) -> work.Section:
    """The density of H's eigenvalues: 8 probes, 32 steps."""
    twin = make_twin(problem)
    number, steps = 8, spectra.NUM_STEPS

    def ours(params: Any, key: Any) -> curvature.SpectralDensity:
        return curvature.spectral_density(
            curvature.hessian_operator(problem.loss_fn, params),
            params,
            key,
            num_probes=number,
            num_steps=steps,
        )

    hessian, operator = _curvlinops_hessian(twin), _eigenthings_hessian(twin)

    def by_curvlinops() -> tuple[Tensor, Tensor]:
        return curvlinops.lanczos_approximate_spectrum(
            hessian, steps, num_repeats=number
        )

    def by_eigenthings() -> Any:
        return hessian_eigenthings.spectral_density(
            operator, num_runs=number, lanczos_steps=steps, seed=0
        )

    key = jax.random.key(4)
    call = _compiled(ours, problem.params, key)
    found = call()
    mean = float(jnp.sum(found.weights * found.nodes))
    size = sum(p.numel() for p in twin.params)
    error = _trace_error(problem, number) / size
    grid, curve = (np.asarray(a.detach()) for a in by_curvlinops())
    theirs = np.trapezoid(grid * curve, grid) / np.trapezoid(curve, grid)
    check_within("curvlinops' density, its mean", mean, theirs, error)
    result = by_eigenthings()
    theirs = (result.raw_eigenvalues * result.raw_weights).sum().item() / number
    check_within("hessian-eigenthings' density, its mean", mean, theirs, error)
    calls = {
        "ours": call,
        "curvlinops": by_curvlinops,
        "hessian-eigenthings": by_eigenthings,
    }
    return work.Section(calls, {}, {})


def _compiled(function: Callable[..., Any], *args: Any) -> work.Call:
    """A call that waits for its result. FLOPs of nested loops are not counted."""
    compiled = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(compiled(*args))


def check_within(name: str, ours: float, theirs: float, error: float) -> None:
    """Refuses to go on where random values differ by more than four errors of both.

    Raises:
        AssertionError: they do.
    """
    off = abs(ours - theirs) / (np.sqrt(2) * error)
    assert off < 4, f"{name}: differs from ours by {off:.1f} standard errors"


def _trace_error(problem: Problem, probes: int = NUM_DIAGONAL_PROBES) -> float:
    """The standard error of Tr(H) by so many probes of signs."""
    estimate = curvature.hessian_trace(
        problem.loss_fn,
        problem.params,
        jax.random.key(5),
        num_probes=NUM_DIAGONAL_PROBES,
        probes="rademacher",
    )
    return float(estimate.sem) * float(np.sqrt(NUM_DIAGONAL_PROBES / probes))


def _curvlinops_hessian(twin: Twin) -> Any:
    return curvlinops.HessianLinearOperator(
        twin.model,
        nn.CrossEntropyLoss(),
        twin.params,
        [(twin.inputs, twin.labels)],
        check_deterministic=False,
    )


def _eigenthings_hessian(twin: Twin) -> Any:
    return hessian_eigenthings.HessianOperator(
        twin.model,
        [(twin.inputs, twin.labels)],
        hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss()),
    )


def _diagonal_by_backpack(twin: Twin) -> Callable[[], Tensor]:
    """The diagonal of the Gauss–Newton matrix, which is F here."""
    model = extend(copy.deepcopy(twin.model))
    loss = extend(nn.CrossEntropyLoss())

    def diagonal() -> Tensor:
        model.zero_grad()
        value = loss(model(twin.inputs), twin.labels)
        with backpack(DiagGGNExact()):
            value.backward()
        return torch.cat([p.diag_ggn_exact.flatten() for p in model.parameters()])

    return diagonal
