"""How long each setting's step takes to compile: ``python -m benchmarks.compile_time``.

For each file of the settings of section 3, or those named on the command line, the step
with and without an update of the Fisher Penalty is compiled at its real size for the
device at hand, and nothing is run. XLA compiles on all cores, so that processor time
stands beside the clock's; it is also what other programs disturb less.
"""

import sys
import time
from pathlib import Path

import jax

from fisher_jax.train.config import load_config
from fisher_jax.train.cost import lower_step
from fisher_jax.train.keys import Config

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SETTINGS = (
    "cifar10_simplecnn_fp",
    "cifar100_vgg11_fp",
    "cifar100_densenet_fp",
    "cifar100_wresnet_fp",
    "tinyimagenet_fp",
    "imagenet_resnet18_fixup",
)


def seconds_to_compile(config: Config, renew: bool) -> tuple[float, float, float]:
    """Returns the clock's seconds and processor time, and GiB of temporary memory."""
    started, cpu_started = time.perf_counter(), time.process_time()
    compiled = lower_step(config, renew=renew).compile()
    seconds = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu_started
    return seconds, cpu_seconds, compiled.memory_analysis().temp_size_in_bytes / 2**30


def main() -> None:
    """Prints a row for each setting and form of its step."""
    jax.config.update("jax_enable_compilation_cache", False)
    for name in sys.argv[1:] or SETTINGS:
        path = str(EXPERIMENTS / f"{name}.py")
        config = load_config(path)
        if config.penalty.name == "none":
            config = load_config(path, [("penalty.name", "fisher")])
        for renew in (False, True):
            seconds, cpu_seconds, memory = seconds_to_compile(config, renew)
            kind = "with the penalty" if renew else "without"
            print(
                f"{name:24} {kind:16} {seconds:6.1f} s ({cpu_seconds:.1f} s of "
                f"processor time), {memory:.1f} GiB temporary",
                flush=True,
            )


if __name__ == "__main__":
    main()
