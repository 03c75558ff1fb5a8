"""What checkpoints and records cost: ``python -m benchmarks.safety [NUMBER]``.

How long a checkpoint of a network of 6 million parameters (Wide ResNet 44-3, with the
penalty's gradient and the best parameters) keeps training waiting, and which share of
a run on CIFAR-10 with SimpleCNN goes into checkpoints and records at the default
interval.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import SummaryWriter

from experiments import base
from fisher_jax import parallel
from fisher_jax.models import MODELS
from fisher_jax.train import checkpoints
from fisher_jax.train.checkpoints import Best, Snapshot
from fisher_jax.train.loop import no_penalties
from fisher_jax.train.records import append_record
from fisher_jax.train.step import (
    StepMetrics,
    count_parameters,
    create_state,
    injected_penalty,
    sgd,
)

# Seconds of a step of SimpleCNN on CIFAR-10 at batch 128 on two cores, measured, for
# where the share is told without a run.
STEP_SECONDS = 0.35
STEPS_PER_EPOCH = 351


def make_snapshot(model_name: str, classes: int) -> Snapshot:
    """A run's state at its start, with everything a checkpoint may hold."""
    model = MODELS[model_name](num_classes=classes, dtype=jnp.float32)
    optimizer = sgd(lambda _: 0.01, 0.9, 0.0, injected_penalty(0.1))
    state = create_state(model, optimizer, (32, 32, 3), seed=0)
    metrics = StepMetrics(jnp.float32(0), jnp.float32(0), jnp.int32(0))
    best = Best(
        jnp.float32(0.5),
        jnp.int32(0),
        *jax.tree.map(jnp.copy, (state.params, state.batch_stats)),
    )
    everywhere = parallel.replicated(parallel.make_mesh())
    state, metrics, best = parallel.place((state, metrics, best), everywhere)
    return Snapshot(state, metrics, no_penalties(everywhere), best)


def time_checkpoints(snapshot: Snapshot, number: int) -> tuple[list[float], float]:
    """Milliseconds that each save blocks, and seconds that the last took in all.

    It blocks until the next program on the state is done, so that its copy counts.
    """
    next_program = jax.jit(lambda state: state.step + 1)
    next_program(snapshot.state)
    blocked = []
    total = float("nan")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "checkpoints"
        with checkpoints.open_manager(directory, keep=2) as manager:
            for step in range(1, number + 1):
                jax.block_until_ready(snapshot)
                started = time.perf_counter()
                checkpoints.save(manager, snapshot, step)
                jax.block_until_ready(next_program(snapshot.state))
                blocked.append(1e3 * (time.perf_counter() - started))
                checkpoints.finish(manager)
                total = time.perf_counter() - started
    return blocked, total


def time_records(number: int) -> float:
    """Milliseconds to write one record of twenty numbers, TensorBoard included."""
    names = [f"group/{i}" for i in range(20)]
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        started = time.perf_counter()
        for step in range(number):
            record = {"step": step, "epoch": step, "time": 0.1}
            record |= dict.fromkeys(names, np.pi * step)
            append_record(Path(folder) / "metrics.jsonl", record)
            for name in names:
                writer.add_scalar(name, record[name], step)
            writer.flush()
        return 1e3 * (time.perf_counter() - started) / number


def main() -> None:
    """Prints both."""
    number = int(sys.argv[1]) if sys.argv[1:] else 10
    every = base.get_config().checkpoint.min_seconds
    record = time_records(100)
    print(f"a record: {record:.1f} ms")
    for name, classes in (("simple_cnn", 10), ("wide_resnet", 100)):
        snapshot = make_snapshot(name, classes)
        size = count_parameters(snapshot.state.params)
        blocked, total = time_checkpoints(snapshot, number)
        # The first one compiles the checksum.
        median, worst = statistics.median(blocked[1:]), max(blocked[1:])
        print(
            f"{name}, {size:,} parameters: a checkpoint blocks {median:.0f} ms (worst "
            f"{worst:.0f}, the first {blocked[0]:.0f}) and is on disk after "
            f"{total:.2f} s"
        )
        if name == "simple_cnn":
            epoch = STEP_SECONDS * STEPS_PER_EPOCH
            # At most one checkpoint each ``every`` seconds and each epoch; its writing
            # is counted in full, as if it took the processor from training.
            saving = total / max(every, epoch)
            share = saving + record / 1e3 / epoch
            print(
                f"CIFAR-10, {STEP_SECONDS} s a step: at most {share:.2%} of the time "
                "goes into checkpoints and records"
            )


if __name__ == "__main__":
    main()
