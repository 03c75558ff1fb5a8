"""Relative standard error times the square root of cost, for every estimator.

n independent draws have 1/√n of one draw's error and n times its cost, so this product
says how good an estimator is at any budget: the error for the price of one gradient.
Networks are trained on digits and measured at initialisation, in the middle and at
convergence, always over the same examples.

The error is the root mean square deviation of draws from the exact value. For labels
per example it is computed by enumerating them: late in training a few hundred draws
miss the rare wrong labels that carry the mean. (In minibatch form the same labels then
show a lower bound, near 1.) Cost is XLA's FLOPs of one draw; of a probe for Tr(H), a
thirtieth of thirty that share their gradient.

``python -m benchmarks.accuracy`` prints the tables alone.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from benchmarks.cost import compile_program
from benchmarks.networks import MLP, NUM_CLASSES, Problem, switch_on
from fisher_jax.curvature import (
    Categorical,
    fisher_trace,
    hessian_trace,
    hvp,
    squared_gradient_norms,
)
from fisher_jax.data.packaged import load_digits
from fisher_jax.models import SimpleCNN, WideResNet

# Steps of training done at each stage.
STAGES = {"initialisation": 0, "mid-training": 80, "convergence": 400}


class Setting(NamedTuple):
    """A network and how it is trained.

    Attributes:
        model: a Flax module.
        learning_rate: of stochastic gradient descent with momentum 0.9, batch 64.
        is_piecewise_linear: then Tr(H) = Tr(F), and the exact Tr(F) is known cheaply.
    """

    model: nn.Module
    learning_rate: float
    is_piecewise_linear: bool


NETWORKS = {
    "SimpleCNN": Setting(SimpleCNN(NUM_CLASSES), 0.02, True),
    "MLP, tanh": Setting(MLP((64, 64), activation="tanh"), 0.05, False),
    "Wide ResNet 8-1": Setting(WideResNet(NUM_CLASSES, 8, 1, "skip_init"), 0.02, True),
}

_PROBES = 30


class Accuracy(NamedTuple):
    """One estimator on one network at one stage.

    Attributes:
        network: its name.
        stage: of training.
        loss: of the measured examples then.
        estimator: its name.
        relative_error: root mean square error of one draw over the exact value.
        gradients: cost of one draw, in gradients of the same examples.
        product: relative_error · √gradients.
    """

    network: str
    stage: str
    loss: float
    estimator: str
    relative_error: float
    gradients: float
    product: float


class Estimator(NamedTuple):
    """A way to estimate a trace.

    Attributes:
        draw: (params, key, number of probes) -> an estimate.
        of_hessian: of Tr(H) and not Tr(F).
        slices: of its loop: classes, or probes over which the cost is shared.
    """

    draw: Callable[[PyTree, Array, int], Float[Array, ""]]
    of_hessian: bool
    slices: int


def estimators(problem: Problem) -> dict[str, Estimator]:
    """Every estimator of Tr(F) and of Tr(H) by name."""

    def fisher(slices: int = 1, **options: Any) -> Estimator:
        def draw(params: PyTree, key: Array, probes: int) -> Float[Array, ""]:
            del probes
            return fisher_trace(
                problem.logits_fn, params, problem.inputs, key, **options
            ).mean

        return Estimator(draw, False, slices)

    def hessian(probes: str, method: str) -> Estimator:
        def draw(params: PyTree, key: Array, number: int) -> Float[Array, ""]:
            return hessian_trace(
                problem.loss_fn,
                params,
                key,
                num_probes=number,
                probes=probes,
                method=method,
            ).mean

        return Estimator(draw, True, _PROBES)

    return {
        "Tr(F) per_example, signs": fisher(draw="rademacher"),
        "Tr(F) per_example, importance": fisher(draw="importance"),
        "Tr(F) per_example, labels": fisher(draw="labels"),
        "Tr(F) minibatch, signs": fisher(estimator="minibatch", draw="rademacher"),
        "Tr(F) minibatch, labels": fisher(estimator="minibatch", draw="labels"),
        "Tr(F) forward": fisher(estimator="forward"),
        "Tr(F) exact": fisher(NUM_CLASSES, estimator="exact"),
        **{
            f"Tr(H) {method}, {probes}": hessian(probes, method)
            for method in ("reverse", "forward")
            for probes in ("gaussian", "rademacher")
        },
    }


def stages(name: str, examples: int = 64) -> Iterator[tuple[str, Problem]]:
    """A network at each stage of training, with the examples to measure over.

    Args:
        name: a key of ``NETWORKS``.
        examples: over which to measure.
    """
    setting = NETWORKS[name]
    digits = load_digits().train
    images = jnp.asarray(digits.images, jnp.float32) / 255 - 0.3
    labels = jnp.asarray(digits.labels)
    variables = jax.jit(setting.model.init)(jax.random.key(0), images[:1])
    params = switch_on(variables["params"])
    problem = Problem(
        name, name, setting.model, params, images[:examples], labels[:examples]
    )
    train = _trainer(problem, images, labels, setting.learning_rate)
    steps_done = 0
    for stage, steps in STAGES.items():
        params = train(params, steps_done, steps)
        steps_done = steps
        yield stage, problem._replace(params=params)


def measure(name: str, num_draws: int = 64, examples: int = 64) -> list[Accuracy]:
    """The rows of one network.

    Args:
        name: a key of ``NETWORKS``.
        num_draws: draws from which an error is taken; its own relative error is about
            1/√(2 num_draws).
        examples: over which the trace is measured.
    """
    rows, costs, programs = [], {}, {}
    for stage, problem in stages(name, examples):
        params = problem.params
        if not programs:
            costs = _costs(problem)
            programs = {
                key: jax.jit(lambda p, k, e=e: e.draw(p, k, 1))
                for key, e in estimators(problem).items()
            }
        loss = float(problem.loss_fn(params))
        exact = _exact(problem, params, NETWORKS[name].is_piecewise_linear)
        for key, estimator in estimators(problem).items():
            value = exact[estimator.of_hessian]
            if key == "Tr(F) exact":
                error = 0.0  # but for rounding
            elif key == "Tr(F) per_example, labels":
                error = _label_deviation(problem, params) / value
            else:
                draws = [
                    programs[key](params, jax.random.key(i)) for i in range(num_draws)
                ]
                errors = np.asarray(draws, np.float64) / value - 1
                error = float(np.sqrt(np.mean(errors**2)))
            product = error * costs[key] ** 0.5
            rows.append(Accuracy(name, stage, loss, key, error, costs[key], product))
    return rows


def _costs(problem: Problem) -> dict[str, float]:
    """FLOPs of one draw in gradients."""
    gradient = compile_program(jax.grad(problem.loss_fn), problem.params).flops
    costs = {}
    for name, estimator in estimators(problem).items():
        probes = estimator.slices if estimator.of_hessian else 1
        program = compile_program(
            lambda p, k, e=estimator, n=probes: e.draw(p, k, n),
            problem.params,
            jax.random.key(0),
            num_slices=estimator.slices,
        )
        costs[name] = program.flops / gradient / probes
    return costs


def _exact(
    problem: Problem, params: PyTree, is_piecewise_linear: bool
) -> tuple[float, float]:
    """Tr(F) and Tr(H) without sampling."""
    fisher = fisher_trace(problem.logits_fn, params, problem.inputs, estimator="exact")
    if is_piecewise_linear:
        return float(fisher.mean), float(fisher.mean)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def entry(index: Int[Array, ""]) -> Float[Array, ""]:
        unit = unravel(jax.nn.one_hot(index, flat.size))
        return jax.flatten_util.ravel_pytree(hvp(problem.loss_fn, params, unit))[0][
            index
        ]

    diagonal = jax.jit(lambda i: jax.lax.map(entry, i, batch_size=256))
    return float(fisher.mean), float(diagonal(jnp.arange(flat.size)).sum())


def _label_deviation(problem: Problem, params: PyTree) -> float:
    """Standard deviation of mean ‖g(x_i, ŷ_i)‖² over labels drawn from the model."""
    logits = problem.logits_fn(params, problem.inputs)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    norms = jax.jit(
        lambda labels: squared_gradient_norms(
            problem.logits_fn, params, problem.inputs, labels
        )
    )
    squares = np.stack(
        [norms(jnp.full(len(logits), c)) for c in range(NUM_CLASSES)], axis=1
    ).astype(np.float64)
    means = np.sum(probabilities * squares, axis=1, keepdims=True)
    variances = np.sum(probabilities * (squares - means) ** 2, axis=1)
    return float(np.sqrt(variances.sum()) / len(logits))


def _trainer(
    problem: Problem, images: Array, labels: Array, learning_rate: float
) -> Callable[[PyTree, int, int], PyTree]:
    """Returns (params, first, last) -> params after those steps."""
    optimizer = optax.sgd(learning_rate, 0.9)

    @jax.jit
    def step(params: PyTree, state: Any, rows: Array) -> tuple[PyTree, Any]:
        def loss(p: PyTree) -> Float[Array, ""]:
            logits = problem.logits_fn(p, images[rows])
            return jnp.mean(Categorical().loss(logits, labels[rows]))

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    def train(params: PyTree, first: int, last: int) -> PyTree:
        state = optimizer.init(params)
        generator = np.random.default_rng(first)
        for _ in range(first, last):
            rows = generator.choice(len(labels), 64, replace=False)
            params, state = step(params, state, rows)
        return params

    return train


def main() -> None:
    """Prints one line per estimator, network and stage."""
    for name in NETWORKS:
        for row in measure(name):
            print(
                f"{row.network}, {row.stage} (loss {row.loss:.4f}), {row.estimator}: "
                f"error {row.relative_error:.4f}, cost {row.gradients:.2f}, "
                f"product {row.product:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
