"""The benchmark's pieces agree on tiny sizes: what is timed is the same work."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import accuracy, draws, naive_jax, networks, report, spectra, summary
from benchmarks.cost import compile_program
from benchmarks.timing import Effort, take_turns
from fisher_jax.curvature import fisher_trace, hessian_trace, squared_gradient_norms
from fisher_jax.penalties import fisher_penalty
from tests.tiers import some

PROBLEMS = {
    "simple_cnn": lambda: networks.simple_cnn(4, 8),
    "wide_resnet": lambda: networks.wide_resnet(3, 8, 8, 1),
    "mlp": lambda: networks.mlp(4, 12, (7, 5)),
}


@pytest.fixture(params=some(PROBLEMS, ["simple_cnn", "mlp"]))
def problem(request):
    return PROBLEMS[request.param]()


@pytest.fixture
def peers():
    """The peers; without PyTorch their tests are skipped."""
    for name in ("torch", "backpack", "curvlinops", "opacus", "hessian_eigenthings"):
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


def test_flops_of_a_loop_count_every_slice():
    # Wide enough that products outweigh what is done once for all probes.
    problem = networks.mlp(8, 64, (64, 64))

    def trace(number):
        return compile_program(
            lambda p, k: hessian_trace(problem.loss_fn, p, k, num_probes=number).mean,
            problem.params,
            jax.random.key(0),
            num_slices=number,
        )

    one, ten = trace(1).flops, trace(10).flops
    assert 3 < ten / one < 10.5


def test_deviation_of_drawn_labels_is_that_of_draws():
    problem = PROBLEMS["mlp"]()

    def one(key):
        return fisher_trace(
            problem.logits_fn, problem.params, problem.inputs, key, draw="labels"
        ).mean

    draws = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 2000))
    found = accuracy._label_deviation(problem, problem.params)
    np.testing.assert_allclose(found, np.std(draws), rtol=0.08)


def test_exact_hessian_trace_is_that_of_the_hessian():
    problem = PROBLEMS["mlp"]()
    model = networks.MLP((7, 5), activation="tanh")
    problem = problem._replace(model=model)
    flat, unravel = jax.flatten_util.ravel_pytree(problem.params)
    dense = jax.jit(jax.hessian(lambda v: problem.loss_fn(unravel(v))))(flat)
    fisher, hessian = accuracy._exact(problem, problem.params, False)
    np.testing.assert_allclose(hessian, np.trace(dense), rtol=1e-4)
    assert abs(fisher / hessian - 1) > 1e-3


@pytest.mark.parametrize("name", draws.DRAWS)
def test_every_draw_has_mean_zero_and_the_softmax_covariance(name):
    logits = jnp.array([[0.3, -1.0, 2.0, 0.1], [0.0, 0.0, 0.0, 0.0]])
    p = jax.nn.softmax(logits)
    covariance = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
    keys = jax.random.split(jax.random.key(0), 20_000)
    v = jax.jit(jax.vmap(lambda key: draws.DRAWS[name].cotangents(key, logits)))(keys)
    assert v.shape == (len(keys), draws.DRAWS[name].cost, *logits.shape)
    # Draws of one key may depend on each other: their mean counts as one.
    products = (v[..., :, None] * v[..., None, :]).mean(axis=1)
    for values, expected in ((v.mean(axis=1), 0), (products, covariance)):
        sem = np.std(values, axis=0, ddof=1) / np.sqrt(len(keys))
        assert np.all(np.abs(np.mean(values, axis=0) - expected) <= 5 * sem + 1e-6)


def test_symmetric_root_and_its_derivative():
    p = jax.nn.softmax(jnp.array([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]]))
    matrix = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
    root = draws.symmetric_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-6)
    # A change that stays in the range of the matrix, as those of p do.
    change = matrix @ jnp.diag(jnp.array([1.0, 2.0, -1.0])) @ matrix
    slope = jax.jvp(draws.symmetric_root, (matrix,), (change,))[1]
    np.testing.assert_allclose(root @ slope + slope @ root, change, atol=1e-5)


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


def test_traces_of_the_peers_agree(peers):
    from benchmarks import torch_peers
    from benchmarks.torch_twins import make_twin

    problem = PROBLEMS["mlp"]()
    exact = fisher_trace(
        problem.logits_fn, problem.params, problem.inputs, estimator="exact"
    ).mean
    twin = make_twin(problem)
    # curvlinops refuses as many probes as there are parameters, 191 here.
    forms = np.asarray(torch_peers.quadratic_forms_as_pyhessian(twin, 144))
    spread = 4.5 * forms.std() / 12
    assert abs(forms.mean() - exact) < spread
    assert abs(torch_peers.fisher_trace_by_curvlinops(twin, 144) - exact) < spread
    assert abs(torch_peers.hessian_trace_by_curvlinops(twin, 144) - exact) < spread


@pytest.mark.parametrize("name", summary.RESULTS)
def test_the_markdown_is_that_of_the_json(name, tmp_path):
    folder = summary.FOLDER / name
    report.write(report.read(folder), tmp_path)
    for file in ("results.json", "results.md"):
        assert (tmp_path / file).read_text() == (folder / file).read_text()


def test_report_is_written(peers, tmp_path):
    from benchmarks import run

    problem = PROBLEMS["mlp"]()
    benchmark = run.Benchmark(5, tmp_path)
    effort = Effort(0.01, 1, 1)
    benchmark.run("gradient", lambda: benchmark.gradient(problem, effort))
    benchmark.run("penalty", lambda: benchmark.penalty(problem, effort))
    benchmark.run("steps", lambda: benchmark.steps(problem, effort))
    benchmark.run("fisher", lambda: benchmark.fisher(problem, effort))
    benchmark.deadline = 0
    benchmark.run("the rest", lambda: pytest.fail("is left out"))
    record = json.loads((tmp_path / "results.json").read_text())
    assert {t["title"] for t in record["tables"]} >= {"Plain gradient"}
    assert len(record["targets"]) > 8
    assert "| ours, exact |" in (tmp_path / "results.md").read_text()
    assert benchmark.results.notes


@pytest.mark.slow
def test_the_densitys_peer_has_the_same_value(monkeypatch):
    monkeypatch.setattr(spectra, "NUM_PROBES", 2)
    monkeypatch.setattr(spectra, "NUM_STEPS", 8)
    rows = spectra.of_hessian(networks.mlp(8, 12, (7,)), Effort(0.1, 2, 2))
    assert [row.limit for row in rows] == [None, 1.1, None]
    with pytest.raises(AssertionError, match="differs from ours"):
        spectra.check("x", 1.0, 1.1)


@pytest.mark.slow
def test_spectra_of_the_peers_agree(peers, monkeypatch):
    """Each section compares values before it returns what is to be timed."""
    from benchmarks import spectra_peers

    problem = PROBLEMS["mlp"]()
    diagonals = spectra_peers.diagonals(problem).calls
    assert list(diagonals)[:2] == ["ours, F exactly", "BackPACK, F exactly"]
    for section in (spectra_peers.eigenpairs, spectra_peers.densities):
        assert len(section(problem).calls) == 3
    with pytest.raises(AssertionError, match="standard errors"):
        spectra_peers.check_within("x", 1.0, 2.0, 0.1)
    # Of another batch the Hessian is another.
    monkeypatch.setattr(spectra_peers, "make_twin", twin_of_another_batch)
    with pytest.raises(AssertionError, match="differs from ours"):
        spectra_peers.eigenpairs(problem)


@pytest.mark.slow
def test_the_gpt_of_pytorch_has_our_norms(peers, monkeypatch):
    from benchmarks import torch_gpt
    from benchmarks.gpt import gpt

    problem = gpt(2, vocabulary=11, num_positions=5, width=8, depth=2, num_heads=2)
    assert len(torch_gpt.calls(problem)) == 4
    monkeypatch.setattr(torch_gpt, "_EPSILON", 0.5)
    with pytest.raises(AssertionError, match="differs from ours"):
        torch_gpt.calls(problem)


def twin_of_another_batch(problem):
    from benchmarks.torch_twins import make_twin

    return make_twin(problem._replace(inputs=2 * problem.inputs))
