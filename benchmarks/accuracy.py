"""Relative standard error times the square root of cost, for every estimator.

n independent draws have 1/√n of one draw's error and n times its cost, so this product
says how good an estimator is at any budget: the error for the price of one gradient.
Networks are trained on digits and measured at initialisation, in the middle and at
convergence, always over the same examples. The cost is XLA's FLOPs of one draw.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from benchmarks.cost import compile_program
from benchmarks.networks import MLP, NUM_CLASSES, Problem, switch_on
from fisher_jax.curvature import fisher_trace, hessian_trace
from fisher_jax.data.digits import load_digits
from fisher_jax.losses import cross_entropy
from fisher_jax.models import SimpleCNN, WideResNet

STAGES = {"initialisation": 0, "mid-training": 60, "convergence": 1500}
NETWORKS: dict[str, Callable[[], Any]] = {
    "SimpleCNN": lambda: SimpleCNN(NUM_CLASSES),
    "MLP": lambda: MLP((128, 128)),
    "Wide ResNet 8-1": lambda: WideResNet(NUM_CLASSES, 8, 1, "skip_init"),
}
_LEARNING_RATES = {"SimpleCNN": 0.02, "MLP": 0.05, "Wide ResNet 8-1": 0.02}


class Accuracy(NamedTuple):
    """One estimator on one network at one stage.

    Attributes:
        network: its name.
        stage: of training.
        loss: of the measured examples then.
        estimator: its name.
        relative_error: standard deviation of one draw over the exact value.
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


def estimators(problem: Problem) -> dict[str, Callable[[PyTree, jax.Array], Any]]:
    """(params, key) -> one draw; all estimate the same number, as these have ReLU."""

    def fisher(**options: Any) -> Callable[[PyTree, jax.Array], Any]:
        return lambda p, k: (
            fisher_trace(problem.logits_fn, p, problem.inputs, k, **options).mean
        )

    def hessian(**options: Any) -> Callable[[PyTree, jax.Array], Any]:
        return lambda p, k: (
            hessian_trace(problem.loss_fn, p, k, num_probes=1, **options).mean
        )

    return {
        "per_example, signs": fisher(draw="rademacher"),
        "per_example, labels": fisher(draw="labels"),
        "minibatch, signs": fisher(estimator="minibatch", draw="rademacher"),
        "minibatch, labels": fisher(estimator="minibatch", draw="labels"),
        "forward": fisher(estimator="forward"),
        "Tr(H) reverse, Gaussian": hessian(probes="gaussian", method="reverse"),
        "Tr(H) forward, Gaussian": hessian(probes="gaussian", method="forward"),
        "Tr(H) forward, signs": hessian(probes="rademacher", method="forward"),
    }


def measure(
    names: list[str], num_draws: int = 48, examples: int = 64
) -> list[Accuracy]:
    """The table for these networks.

    Args:
        names: keys of ``NETWORKS``.
        num_draws: draws from which a standard deviation is taken.
        examples: over which the trace is measured.
    """
    rows = []
    for name in names:
        rows += _measure_network(name, num_draws, examples)
    return rows


def _measure_network(name: str, num_draws: int, examples: int) -> list[Accuracy]:
    digits = load_digits().train
    images = jnp.asarray(digits.images, jnp.float32) / 255 - 0.3
    labels = jnp.asarray(digits.labels)
    model = NETWORKS[name]()
    params = switch_on(jax.jit(model.init)(jax.random.key(0), images[:1])["params"])
    problem = Problem(name, name, model, params, images[:examples], labels[:examples])
    draws = {key: jax.jit(draw) for key, draw in estimators(problem).items()}
    exact_fn = jax.jit(
        lambda p: fisher_trace(problem.logits_fn, p, problem.inputs, estimator="exact")
    )
    gradient_flops = compile_program(jax.grad(problem.loss_fn), params).flops
    costs = {
        key: compile_program(draw, params, jax.random.key(0)).flops / gradient_flops
        for key, draw in draws.items()
    }
    rows = []
    steps_done = 0
    for stage, steps in STAGES.items():
        params = _train(
            problem, params, images, labels, _LEARNING_RATES[name], steps_done, steps
        )
        steps_done = steps
        loss = float(problem.loss_fn(params))
        exact = float(exact_fn(params).mean)
        for key, draw in draws.items():
            values = [draw(params, jax.random.key(i)) for i in range(num_draws)]
            error = float(np.std(np.asarray(values), ddof=1)) / exact
            cost = costs[key]
            rows.append(
                Accuracy(name, stage, loss, key, error, cost, error * cost**0.5)
            )
    return rows


def _train(
    problem: Problem,
    params: PyTree,
    images: jax.Array,
    labels: jax.Array,
    learning_rate: float,
    first: int,
    last: int,
) -> PyTree:
    """Steps ``first`` to ``last`` of stochastic gradient descent, batch 64."""
    optimizer = optax.sgd(learning_rate, 0.9)
    optimizer_state = optimizer.init(params)

    @jax.jit
    def step(params: PyTree, state: Any, rows: jax.Array) -> tuple[PyTree, Any]:
        def loss(p: PyTree) -> jax.Array:
            logits = problem.logits_fn(p, images[rows])
            return jnp.mean(cross_entropy(logits, labels[rows]))

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    generator = np.random.default_rng(first)
    for _ in range(first, last):
        rows = generator.choice(len(labels), 64, replace=False)
        params, optimizer_state = step(params, optimizer_state, rows)
    return params
