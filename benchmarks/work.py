"""The work that is timed: for each section, ours and the peers' calls by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks import naive_jax, torch_peers
from benchmarks.cost import Program, compile_program
from benchmarks.networks import Problem
from benchmarks.torch_twins import Twin, make_twin, torch_device
from fisher_jax import penalties
from fisher_jax.curvature import fisher_trace, hessian_trace, squared_gradient_norms
from fisher_jax.train.gradients import PenaltySettings, StepSettings
from fisher_jax.train.step import TrainState, compile_step, create_state, sgd

UPDATE_EVERY = 10
NUM_PROBES = 30
COEFFICIENT = 0.01
LEARNING_RATE = 1e-4
MOMENTUM = 0.9

Call = Callable[[], Any]


class Section(NamedTuple):
    """Programs that answer one question.

    Attributes:
        calls: timed against each other.
        programs: those of XLA among them, for FLOPs and memory.
        work: how many of the quantity one call computes, where it is not one.
    """

    calls: dict[str, Call]
    programs: dict[str, Program]
    work: dict[str, float]


def _section(
    programs: dict[str, Program],
    peers: dict[str, Call],
    work: dict[str, float] | None = None,
) -> Section:
    calls = {name: program.call for name, program in programs.items()}
    calls |= {name: _until_done(call) for name, call in peers.items()}
    return Section(calls, programs, work or {})


def _until_done(call: Call) -> Call:
    """A call of PyTorch that waits for its result, as ``Program.call`` does."""
    if torch_device() == "cpu":
        return call

    def waiting() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return waiting


def gradient(problem: Problem) -> Section:
    """The plain gradient of the mean cross-entropy."""
    twin = make_twin(problem)
    ours = compile_program(jax.grad(problem.loss_fn), problem.params)
    return _section({"ours": ours}, {"PyTorch": lambda: torch_peers.gradient(twin)})


def penalty_gradient(problem: Problem) -> Section:
    """The gradient of the Fisher Penalty alone, beside the plain one."""
    key = jax.random.key(1)
    twin = make_twin(problem)

    def ours(draw: penalties.Draw, method: penalties.Method) -> Program:
        return compile_program(
            jax.grad(
                lambda p: penalties.fisher_penalty(
                    problem.logits_fn,
                    p,
                    problem.inputs,
                    key,
                    draw=draw,
                    method=method,
                )
            ),
            problem.params,
        )

    programs = {
        "our gradient": compile_program(jax.grad(problem.loss_fn), problem.params),
        "ours, exact": ours("labels", "exact"),
        "ours, RFP": ours("rademacher", "exact"),
        "ours, finite difference": ours("labels", "finite_difference"),
        "naive JAX": compile_program(
            jax.grad(lambda p: naive_jax.fisher_penalty(problem, p, key)),
            problem.params,
        ),
    }
    peers = {"PyTorch, double backward": lambda: torch_peers.penalty_gradient(twin)}
    return _section(programs, peers)


def steps(problem: Problem) -> Section:
    """``UPDATE_EVERY`` training steps, the first of which renews the penalty."""
    calls: dict[str, Call] = {"ours, plain": _our_steps(problem, None)}
    for name, draw, method in (
        ("ours, exact", "labels", "exact"),
        ("ours, RFP", "rademacher", "exact"),
        ("ours, finite difference", "labels", "finite_difference"),
    ):
        settings = PenaltySettings("fisher", draw=draw, method=method)
        calls[name] = _our_steps(problem, settings)
    calls["naive JAX"] = _naive_steps(problem)
    for name, coefficient in (
        ("PyTorch, plain", None),
        ("PyTorch, double backward", COEFFICIENT),
    ):
        train = torch_peers.trainer(
            make_twin(problem), coefficient, LEARNING_RATE, MOMENTUM
        )
        calls[name] = _until_done(lambda train=train: train(UPDATE_EVERY))
    return Section(calls, {}, dict.fromkeys(calls, UPDATE_EVERY))


def _our_steps(problem: Problem, penalty: PenaltySettings | None) -> Call:
    """The steps of ``fisher_jax.train``, compiled and donated as its loop does."""
    optimizer = sgd(
        optax.constant_schedule(LEARNING_RATE),
        MOMENTUM,
        0.0,
        None if penalty is None else penalties.add_penalty(COEFFICIENT),
    )
    state = create_state(problem.model, optimizer, problem.inputs.shape[1:], 0)
    # Copies: the step donates its state.
    state = state.replace(params=jax.tree.map(jnp.copy, problem.params))
    step = compile_step(StepSettings(penalty=penalty))
    holder: list[TrainState] = [state]

    def call() -> None:
        state = holder[0]
        for index in range(UPDATE_EVERY):
            state, metrics = step(
                state,
                (problem.inputs, problem.labels),
                renew=penalty is not None and index == 0,
            )
        holder[0] = jax.block_until_ready(state)
        assert metrics.first_bad == 0

    return call


def _naive_steps(problem: Problem) -> Call:
    step = naive_jax.training_step(problem, COEFFICIENT, LEARNING_RATE, MOMENTUM)
    zeros = jax.tree.map(jnp.zeros_like, problem.params)
    holder = [jax.tree.map(jnp.copy, (problem.params, zeros, zeros))]

    def call() -> None:
        values = holder[0]
        for index in range(UPDATE_EVERY):
            values = step(*values, jax.random.key(index), update=index == 0)
        holder[0] = jax.block_until_ready(values)

    return call


def fisher(problem: Problem) -> Section:
    """Tr(F) over the batch, by one draw or exactly, and its values compared."""
    twin = make_twin(problem)
    assert_norms_agree(problem, twin)
    labels = twin.labels
    programs = {
        "ours, labels": our_fisher_trace(problem, draw="labels"),
        "ours, signs": our_fisher_trace(problem, draw="rademacher"),
        "ours, exact": our_fisher_trace(problem, estimator="exact"),
        "naive JAX, vmap(grad)": compile_program(
            lambda p: naive_jax.trace_by_vmap(
                problem, p, problem.inputs, problem.labels
            ),
            problem.params,
        ),
    }
    peers = {
        "PyTorch, vmap(grad)": torch_peers.norms_by_vmap(twin, labels),
        "BackPACK, BatchL2Grad": torch_peers.norms_by_backpack(twin, labels),
        **opacus_norms(twin),
        f"curvlinops, {NUM_PROBES} probes": lambda: (
            torch_peers.fisher_trace_by_curvlinops(twin, NUM_PROBES)
        ),
    }
    return _section(programs, peers)


def our_fisher_trace(problem: Problem, **options: Any) -> Program:
    """``fisher_trace`` over the problem's batch."""
    slices = 10 if options.get("estimator") == "exact" else 1
    return compile_program(
        lambda p, x, k: fisher_trace(problem.logits_fn, p, x, k, **options).mean,
        problem.params,
        problem.inputs,
        jax.random.key(2),
        num_slices=slices,
    )


def opacus_norms(twin: Twin) -> dict[str, Call]:
    """Opacus' norms, where it knows every layer that has parameters."""
    calls = {}
    for name, ghost in (("Opacus, per-example", False), ("Opacus, ghost", True)):
        try:
            call = torch_peers.norms_by_opacus(twin, twin.labels, ghost)
            call()
        except (NotImplementedError, AttributeError, ValueError, RuntimeError):
            continue
        calls[name] = call
    return calls


def assert_norms_agree(problem: Problem, twin: Twin, tolerance: float = 1e-3) -> None:
    """Compares everyone's norms of the same gradients.

    Raises:
        AssertionError: a peer's values differ from ours.
    """
    ours = np.asarray(
        jax.jit(squared_gradient_norms, static_argnums=0)(
            problem.logits_fn, problem.params, problem.inputs, problem.labels
        )
    )
    found = {
        "vmap": torch_peers.norms_by_vmap(twin, twin.labels)(),
        "BackPACK": torch_peers.norms_by_backpack(twin, twin.labels)(),
        **{name: call() for name, call in opacus_norms(twin).items()},
    }
    for name, norms in found.items():
        error = np.abs(norms.detach().cpu().numpy() / ours - 1).max()
        assert error < tolerance, f"{name}: differs from ours by {error:.1e}"


def hessian(problem: Problem) -> Section:
    """Tr(H) by ``NUM_PROBES`` probes."""
    twin = make_twin(problem)

    def ours(method: str) -> Program:
        return compile_program(
            lambda p, k: (
                hessian_trace(
                    problem.loss_fn, p, k, num_probes=NUM_PROBES, method=method
                ).mean
            ),
            problem.params,
            jax.random.key(3),
            num_slices=NUM_PROBES,
        )

    one_naive = "naive JAX, 1 probe of 30"
    programs = {
        "ours, forward": ours("forward"),
        "ours, reverse": ours("reverse"),
        one_naive: compile_program(
            lambda p, k: naive_jax.quadratic_form(problem, p, k),
            problem.params,
            jax.random.key(3),
        ),
    }
    peers = {
        "PyHessian's algorithm": lambda: torch_peers.quadratic_forms_as_pyhessian(
            twin, NUM_PROBES
        ),
        "curvlinops": lambda: torch_peers.hessian_trace_by_curvlinops(twin, NUM_PROBES),
    }
    return _section(programs, peers, {one_naive: 1 / NUM_PROBES})


def memory(problem: Problem, counts: tuple[int, ...]) -> dict[tuple[str, int], int]:
    """Temporary bytes of Tr(F) by program and number of examples; nothing is run."""
    params = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), problem.params
    )
    key = jax.random.key(2)
    programs = {
        "ours": lambda p, x, y: fisher_trace(problem.logits_fn, p, x, key).mean,
        "vmap(grad)": lambda p, x, y: naive_jax.trace_by_vmap(problem, p, x, y),
    }
    sizes = {}
    for name, program in programs.items():
        # The peer's grows in proportion; the largest would only take long to compile.
        for count in counts if name == "ours" else counts[:1]:
            images = jax.ShapeDtypeStruct(
                (count, *problem.inputs.shape[1:]), jnp.float32
            )
            labels = jax.ShapeDtypeStruct((count,), jnp.int32)
            compiled = compile_program(program, params, images, labels)
            sizes[name, count] = compiled.temp_bytes
    return sizes


def set_up(threads: int) -> None:
    """Limits PyTorch to so many threads, fixes its random numbers; float32 for both.

    On GPUs both would take TF32 for some operations and not for others, JAX for more.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if torch_device() == "cpu":
        return
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    jax.config.update("jax_default_matmul_precision", "highest")
