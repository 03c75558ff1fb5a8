"""What a step of each of the paper's settings costs: ``python -m benchmarks.settings``.

For each file of the settings of section 3 the step with and without an update of the
Fisher Penalty is compiled at its real size, and nothing is run; printed are the seconds
that compiling took, XLA's count of FLOPs, temporary memory, and from these the time
that a run should take on a named accelerator. That time is an estimate: FLOPs over the
stated share of the accelerator's peak.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fisher_jax.train import assemble
from fisher_jax.train.config import load_config
from fisher_jax.train.state import count_parameters, create_state, make_eval_apply
from fisher_jax.train.step import train_step

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
ACCELERATOR, PEAK_TERAFLOPS, UTILISATION = "NVIDIA A100", 19.5, 0.2


class DataSet(NamedTuple):
    """Sizes of the official sets, as a setting uses them."""

    side: int
    num_classes: int
    num_train: int
    num_test: int


CIFAR10 = DataSet(32, 10, 50_000, 10_000)
CIFAR100 = DataSet(32, 100, 50_000, 10_000)
SETTINGS = {
    "cifar10_simplecnn_fp": CIFAR10,
    "cifar100_vgg11_fp": CIFAR100,
    "cifar100_densenet_fp": CIFAR100,
    "cifar100_wresnet_fp": CIFAR100,
    "tinyimagenet_fp": DataSet(32, 200, 100_000, 10_000),
    "imagenet_resnet18_fixup:eta_0.1": DataSet(224, 1000, 1_281_167, 50_000),
}


class Compiled(NamedTuple):
    """What compiling one program took and what XLA says of it."""

    seconds: float
    cpu_seconds: float  # not disturbed by what else the machine does
    flops: float
    temp_bytes: int


def compile_step(
    config: ConfigDict, data: DataSet, update_penalty: bool
) -> tuple[Compiled, int]:
    """Compiles a setting's training step; returns it and the number of parameters."""
    state = _abstract_state(config, data)
    inputs, labels = _batch(data, config.train.batch_size)
    step = jax.jit(
        partial(train_step, settings=assemble.step_settings(config)),
        static_argnames=("update_penalty",),
        donate_argnums=0,
    )
    return (
        _compile(step, state, inputs, labels, 0.01, update_penalty=update_penalty),
        count_parameters(state.params),
    )


def compile_evaluation(config: ConfigDict, data: DataSet) -> Compiled:
    """Compiles the network in evaluation mode, for one batch of training."""
    state = _abstract_state(config, data)
    apply = jax.jit(make_eval_apply(assemble.make_model(config, data.num_classes)))
    inputs, _ = _batch(data, config.train.batch_size)
    return _compile(apply, state.batch_stats, state.params, inputs)


def flops_of_a_run(
    config: ConfigDict, data: DataSet, plain: float, update: float, forward: float
) -> float:
    """Returns the FLOPs of all steps and of scoring all splits after each epoch.

    Args:
        config: the setting.
        data: its sizes.
        plain: FLOPs of a step without an update of the penalty.
        update: of one with it.
        forward: of one batch's evaluation.
    """
    num_train = data.num_train - config.dataset.num_validation
    steps = num_train // config.train.batch_size
    scored = config.measure.train_examples or num_train
    scored += config.dataset.num_validation + data.num_test
    batches = scored / config.train.batch_size + config.eval.reestimate_batch_norm
    share = 1 / config.penalty.update_every if config.penalty.name != "none" else 0
    per_step = (1 - share) * plain + share * update
    return config.train.num_epochs * (steps * per_step + batches * forward)


def _abstract_state(config: ConfigDict, data: DataSet) -> Any:
    model = assemble.make_model(config, data.num_classes)
    optimizer = assemble.make_optimizer(config, 1)
    shape = (data.side, data.side, 3)
    return jax.eval_shape(lambda: create_state(model, optimizer, shape, 0, True))


def _batch(data: DataSet, size: int) -> tuple[Any, Any]:
    images = jax.ShapeDtypeStruct((size, data.side, data.side, 3), jnp.float32)
    return images, jax.ShapeDtypeStruct((size,), jnp.int32)


def _compile(function: Any, *args: Any, **static: Any) -> Compiled:
    started, cpu_started = time.perf_counter(), time.process_time()
    compiled = function.lower(*args, **static).compile()
    return Compiled(
        time.perf_counter() - started,
        time.process_time() - cpu_started,
        compiled.cost_analysis()["flops"],
        compiled.memory_analysis().temp_size_in_bytes,
    )


def report(name: str) -> None:
    """Prints one setting's row."""
    config = load_config(f"{EXPERIMENTS / name.partition(':')[0]}.py")
    with_penalty = config.copy_and_resolve_references()
    if config.penalty.name == "none":
        with_penalty.penalty.name = "fisher"
    data = SETTINGS[name]
    plain, parameters = compile_step(with_penalty, data, update_penalty=False)
    update, _ = compile_step(with_penalty, data, update_penalty=True)
    forward = compile_evaluation(config, data)
    flops = flops_of_a_run(config, data, plain.flops, update.flops, forward.flops)
    seconds = flops / (UTILISATION * PEAK_TERAFLOPS * 1e12)
    print(
        f"{name}: {parameters:,} parameters; compiling: step {plain.seconds:.0f} s "
        f"({plain.cpu_seconds:.0f} s of processor time), with the penalty "
        f"{update.seconds:.0f} s ({update.cpu_seconds:.0f} s); GFLOP: forward "
        f"{forward.flops / 1e9:.0f}, step {plain.flops / 1e9:.0f}, with the penalty "
        f"{update.flops / 1e9:.0f}; temporary MiB with the penalty "
        f"{update.temp_bytes / 2**20:.0f}; {flops / 1e15:.1f} PFLOP in all, "
        f"{seconds / config.train.num_epochs:.0f} s an epoch, {seconds / 3600:.1f} h "
        f"on one {ACCELERATOR} at {UTILISATION:.0%} of {PEAK_TERAFLOPS} TFLOP/s "
        "(estimate)",
        flush=True,
    )


def main() -> None:
    """All settings, or those named on the command line."""
    jax.config.update("jax_enable_compilation_cache", False)
    for name in sys.argv[1:] or SETTINGS:
        report(name)


if __name__ == "__main__":
    main()
