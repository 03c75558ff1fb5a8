"""The benchmark's pieces agree on tiny sizes: what is timed is the same work."""

import jax
import numpy as np
import pytest

from benchmarks import naive_jax, networks
from benchmarks.timing import Effort, take_turns
from fisher_jax.curvature import squared_gradient_norms
from fisher_jax.penalties import fisher_penalty

PROBLEMS = {
    "simple_cnn": lambda: networks.simple_cnn(4, 8),
    "wide_resnet": lambda: networks.wide_resnet(3, 8, 8, 1),
    "mlp": lambda: networks.mlp(4, 12, (7, 5)),
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


@pytest.fixture
def peers():
    """The peers; without PyTorch their tests are skipped."""
    for name in ("torch", "backpack", "curvlinops", "opacus"):
        pytest.importorskip(name, reason=f"NO {name.upper()}: peers are not tested")
    from benchmarks import work

    return work


def assert_trees_close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_naive_jax_is_the_same_work(problem):
    @jax.jit
    def everything(params):
        key = jax.random.key(5)
        batch = problem.inputs, problem.labels
        norms = squared_gradient_norms(problem.logits_fn, params, *batch)
        return (
            norms.mean(),
            naive_jax.trace_by_vmap(problem, params, *batch),
            fisher_penalty(problem.logits_fn, params, problem.inputs, key),
            naive_jax.fisher_penalty(problem, params, key),
        )

    trace, naive_trace, penalty, naive_penalty = everything(problem.params)
    np.testing.assert_allclose(naive_trace, trace, rtol=1e-4)
    np.testing.assert_allclose(naive_penalty, penalty, rtol=1e-4)


def test_takes_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = take_turns(calls, Effort(0.01, 2, 2))
    ratio = times.ratio("a", "b")
    assert ratio.rounds == 2
    assert ratio.low <= ratio.median <= ratio.high
    assert set(order) == {"a", "b"}


def test_twins_compute_the_same(problem, peers):
    from benchmarks.torch_twins import copy_parameters, make_twin

    twin = make_twin(problem)
    logits = twin.model(twin.inputs).detach().numpy()
    expected = jax.jit(problem.logits_fn)(problem.params, problem.inputs)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    # The twin with our gradient as its parameters holds it in its own layout.
    holder = make_twin(problem)
    copy_parameters(jax.jit(jax.grad(problem.loss_fn))(problem.params), holder.model)
    from benchmarks import torch_peers

    assert_trees_close(
        [g.numpy() for g in torch_peers.gradient(twin)],
        [p.detach().numpy() for p in holder.params],
        2e-4,
    )


def test_penalty_gradients_agree(problem, peers):
    from benchmarks import torch_peers
    from benchmarks.torch_twins import copy_parameters, make_twin

    twin, holder = make_twin(problem), make_twin(problem)
    ours = jax.grad(lambda p: naive_jax.penalty(problem, p, problem.labels))
    copy_parameters(jax.jit(ours)(problem.params), holder.model)
    expected = [p.detach().numpy() for p in holder.params]
    scale = max(np.abs(e).max() for e in expected)
    found = torch_peers.penalty_gradient(twin, twin.labels)
    assert_trees_close(
        [g.numpy() / scale for g in found], [e / scale for e in expected], 1e-3
    )


def test_norms_agree(problem, peers):
    from benchmarks.torch_twins import make_twin

    peers.assert_norms_agree(problem, make_twin(problem))
