"""The draws in class space that were examined beside the two that are offered.

With p = softmax(logits), any random v with E[v] = 0, E[v vᵀ] = diag p − p pᵀ gives an
unbiased Tr(F) = E_x E‖Jᵀ v‖² per example, and the minibatch form
‖(1/B) Σ_i J_iᵀ v_i‖² an unbiased Tr(F)/B. Its gradient is unbiased too where the
distribution of the noise does not depend on θ, or where its weights make up for that.

For each draw, on networks trained on digits (those of ``benchmarks.accuracy``):

* trace: relative root mean square error of Tr(F) per example, times √cost;
* penalty: the same of the minibatch form;
* gradient: root mean square of ‖gradient of the penalty − ∇Tr(F)/B‖ over ‖∇Tr(F)/B‖,
  times √cost;
* cosine: of the mean gradient over all draws with ∇Tr(F)/B. Noise alone keeps it below
  one; in brackets what an unbiased draw of that noise reaches.

Cost is in backward passes. Late in training a rare label carries the mean of the
label draws, so that a few hundred draws underestimate their errors.

``python -m benchmarks.draws`` prints a Markdown table per network and stage.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from benchmarks.accuracy import NETWORKS, stages
from benchmarks.networks import Problem
from fisher_jax.curvature import Categorical, fisher_trace, likelihoods
from fisher_jax.trees import squared_norm

Cotangents = Float[Array, "D B C"]


class Draw(NamedTuple):
    """A way to draw cotangents.

    Attributes:
        cotangents: maps a key and logits [B, C] to D draws [D, B, C], whose mean
            estimates; differentiable in logits.
        cost: D, the backward passes.
        groups: the batch is cut into so many, each with a norm of its own, which are
            summed: products of different groups are left out, whose mean is zero.
    """

    cotangents: Callable[[PRNGKeyArray, Float[Array, "B C"]], Cotangents]
    cost: int = 1
    groups: int = 1


def covariance_root(logits: Float[Array, "B C"]) -> Float[Array, "B C C"]:
    """S = diag √p − p √pᵀ, S Sᵀ = diag p − p pᵀ."""
    p = jax.nn.softmax(logits)
    root = jnp.sqrt(p)
    return jax.vmap(jnp.diag)(root) - p[:, :, None] * root[:, None, :]


@jax.custom_jvp
def symmetric_root(matrix: Float[Array, "B C C"]) -> Float[Array, "B C C"]:
    """The positive semidefinite root of a positive semidefinite matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    roots = jnp.sqrt(jnp.maximum(values, 0))
    return jnp.einsum("bij,bj,bkj->bik", vectors, roots, vectors)


@symmetric_root.defjvp
def _symmetric_root_change(primals, tangents):  # type: ignore[no-untyped-def]
    # X Ẋ + Ẋ X = Ȧ in A's eigenbasis: eigh's own derivative divides by differences of
    # eigenvalues, which are zero at uniform p.
    (matrix,), (change,) = primals, tangents
    values, vectors = jnp.linalg.eigh(matrix)
    roots = jnp.sqrt(jnp.maximum(values, 0))
    inner = jnp.einsum("bji,bjk,bkl->bil", vectors, change, vectors)
    sums = roots[:, :, None] + roots[:, None, :]
    inner = jnp.where(sums > 1e-4, inner / jnp.where(sums > 0, sums, 1), 0)
    turned = jnp.einsum("bij,bjk,blk->bil", vectors, inner, vectors)
    return symmetric_root(matrix), turned


def _covariance(logits: Float[Array, "B C"]) -> Float[Array, "B C C"]:
    p = jax.nn.softmax(logits)
    return jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]


def _times(root: Float[Array, "B C C"], z: Cotangents) -> Cotangents:
    return jnp.einsum("bij,dbj->dbi", root, z)


def _signs(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    return jax.random.rademacher(key, shape, jnp.float32)


def _label_cotangents(logits: Float[Array, "B C"], labels: Array) -> Cotangents:
    return jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])


def stratified_labels(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """Two labels per example, one from each half of the distribution function."""
    place, swap = jax.random.split(key)
    batch = logits.shape[0]
    halves = jax.random.uniform(place, (batch,))[None] / 2 + jnp.array([[0.0], [0.5]])
    # In random order: else the first draw would hold low classes only, E[v] ≠ 0.
    order = jax.random.bernoulli(swap, 0.5, (batch,))
    halves = jnp.where(order, halves, halves[::-1])
    sums = jnp.cumsum(jax.lax.stop_gradient(jax.nn.softmax(logits)), axis=-1)
    drawn = jnp.sum(halves[..., None] >= sums / sums[:, -1:], axis=-1)
    return _label_cotangents(logits, drawn)


def weighted_labels(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """±√(p_c/q_c) (p − onehot(c)), c ~ q = p, with q a constant."""
    pick, sign = jax.random.split(key)
    log_p = jax.nn.log_softmax(logits)
    drawn = jax.random.categorical(pick, jax.lax.stop_gradient(log_p))
    chosen = jnp.take_along_axis(log_p, drawn[:, None], axis=-1)
    weight = jnp.exp(0.5 * (chosen - jax.lax.stop_gradient(chosen)))
    weight = weight * _signs(sign, weight.shape)
    return (weight * _label_cotangents(logits, drawn))[None]


def offered(
    draw: likelihoods.Draw, key: PRNGKeyArray, logits: Float[Array, "B C"]
) -> Cotangents:
    """A draw of ``fisher_jax.curvature``."""
    law = Categorical()
    noise = law.noise(key, draw, logits.shape, logits.dtype)
    return law.random_cotangent(draw, logits, noise)[None]


def two_signs(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """S z and S z' with independent signs."""
    return _times(covariance_root(logits), _signs(key, (2, *logits.shape)))


def orthogonal_signs(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """Two draws S z and S z', z' = z with half of its signs turned: zᵀ z' = 0."""
    draw, turn = jax.random.split(key)
    z = _signs(draw, logits.shape)
    half = jnp.where(jnp.arange(logits.shape[-1]) % 2, 1.0, -1.0)
    half = jax.random.permutation(turn, jnp.broadcast_to(half, z.shape), 1, True)
    return _times(covariance_root(logits), jnp.stack([z, z * half]))


def gaussian(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """S z with normal z."""
    return _times(covariance_root(logits), jax.random.normal(key, (1, *logits.shape)))


def sphere(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """S z with z uniform on the sphere of radius √C."""
    z = jax.random.normal(key, (1, *logits.shape))
    z = z * jnp.sqrt(logits.shape[-1]) / jnp.linalg.norm(z, axis=-1, keepdims=True)
    return _times(covariance_root(logits), z)


def symmetric(key: PRNGKeyArray, logits: Float[Array, "B C"]) -> Cotangents:
    """(diag p − p pᵀ)^½ z with independent signs z."""
    return _times(symmetric_root(_covariance(logits)), _signs(key, (1, *logits.shape)))


DRAWS = {
    "labels (FP)": Draw(partial(offered, "labels")),
    "two stratified labels": Draw(stratified_labels, cost=2),
    "labels, weights differentiated": Draw(weighted_labels),
    "importance": Draw(partial(offered, "importance")),
    "signs (RFP)": Draw(partial(offered, "rademacher")),
    "two draws of signs": Draw(two_signs, cost=2),
    "two orthogonal signs": Draw(orthogonal_signs, cost=2),
    "Gaussian": Draw(gaussian),
    "sphere": Draw(sphere),
    "signs, symmetric root": Draw(symmetric),
    "signs, batch in 8 groups": Draw(partial(offered, "rademacher"), groups=8),
    "importance, batch in 8 groups": Draw(partial(offered, "importance"), groups=8),
}


class Row(NamedTuple):
    """One draw on one network at one stage; see the module's docstring."""

    draw: str
    trace: float
    penalty: float
    gradient: float
    cosine: float
    unbiased_cosine: float


def penalty(problem: Problem, draw: Draw, params: PyTree, key: PRNGKeyArray) -> Array:
    """Mean over draws of Σ over groups of ‖(1/B) Σ_i J_iᵀ v_i‖²."""
    logits, pullback = jax.vjp(lambda p: problem.logits_fn(p, problem.inputs), params)
    v = draw.cotangents(key, logits)
    batch = logits.shape[0]
    group = jnp.arange(batch) * draw.groups // batch
    total = jnp.zeros(())
    for one_draw in v:
        for k in range(draw.groups):
            mine = jnp.where((group == k)[:, None], one_draw, 0) / batch
            flat, _ = ravel_pytree(pullback(mine)[0])
            total += flat @ flat
    return total / draw.cost


def trace(problem: Problem, draw: Draw, params: PyTree, key: PRNGKeyArray) -> Array:
    """Mean over examples and draws of ‖J_iᵀ v_i‖²."""
    logits = problem.logits_fn(params, problem.inputs)

    def squares(x: Array, rows: Float[Array, "D C"]) -> Array:
        _, pullback = jax.vjp(lambda p: problem.logits_fn(p, x[None])[0], params)
        return jax.vmap(lambda v: squared_norm(pullback(v)[0]))(rows)

    v = jnp.moveaxis(draw.cotangents(key, logits), 0, 1)
    return jnp.mean(jax.vmap(squares)(problem.inputs, v))


def measure(problem: Problem, draw: Draw, params: PyTree, num_draws: int) -> Row:
    """One row, its name left empty."""
    batch = len(problem.inputs)

    def exact_trace(p: PyTree) -> Array:
        return fisher_trace(
            problem.logits_fn, p, problem.inputs, estimator="exact"
        ).mean

    exact, slope = jax.jit(jax.value_and_grad(exact_trace))(params)
    slope = np.asarray(ravel_pytree(slope)[0], np.float64) / batch
    one_trace = jax.jit(lambda p, key: trace(problem, draw, p, key))
    one_penalty = jax.jit(
        jax.value_and_grad(lambda p, key: penalty(problem, draw, p, key))
    )
    traces, values, squares = [], [], []
    total = np.zeros_like(slope)
    for i in range(num_draws):
        key = jax.random.key(i)
        traces.append(float(one_trace(params, key)))
        value, gradient = one_penalty(params, key)
        flat = np.asarray(ravel_pytree(gradient)[0], np.float64)
        values.append(float(value) * batch)
        squares.append(np.sum((flat - slope) ** 2))
        total += flat

    def relative_error(estimates: list[float]) -> float:
        errors = np.asarray(estimates) / float(exact) - 1
        return float(np.sqrt(np.mean(errors**2) * draw.cost))

    length = np.linalg.norm(slope)
    noise = np.sqrt(np.mean(squares)) / length
    return Row(
        "",
        relative_error(traces),
        relative_error(values),
        float(noise * np.sqrt(draw.cost)),
        float(total @ slope / np.linalg.norm(total) / length),
        float(1 / np.sqrt(1 + noise**2 / num_draws)),
    )


def main() -> None:
    """Measures every draw and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--examples", type=int, default=64)
    arguments = parser.parse_args()
    for name in NETWORKS:
        for stage, problem in stages(name, arguments.examples):
            loss = float(problem.loss_fn(problem.params))
            print(f"\n{name}, {stage}, loss {loss:.4f}\n")
            print("| draw | trace | penalty | gradient | cosine |")
            print("| --- | --- | --- | --- | --- |", flush=True)
            for title, draw in DRAWS.items():
                row = measure(problem, draw, problem.params, arguments.draws)
                print(
                    f"| {title} | {row.trace:.3f} | {row.penalty:.3f} "
                    f"| {row.gradient:.3f} | {row.cosine:.3f} "
                    f"({row.unbiased_cosine:.3f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
