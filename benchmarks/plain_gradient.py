"""Why our plain gradient is slower than PyTorch's on CPU, and what helps.

``python -m benchmarks.plain_gradient`` times SimpleCNN's gradient under several XLA
flags, each in a process of its own, with our max pooling (a reshape and a maximum) and
with Flax's, always in turns with PyTorch. It then times the parts: convolutions with
and without padding, weight gradients, pooling.

Each is done on all cores by the clock on the wall, and on one core by processor time,
which is steady on a machine that others use too.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from benchmarks.cost import compile_program
from benchmarks.networks import PROBLEMS, Problem
from benchmarks.timing import Effort, Times, take_turns
from fisher_jax import parallel
from fisher_jax.models import simple_cnn
from fisher_jax.models.pooling import max_pool_2x2

FOLDER = Path(__file__).parent
# XLA's default, main.py's, and XLA's other library.
FLAGS = (
    "",
    f"{parallel.YNNPACK_FLAG}={parallel.YNNPACK_KINDS}",
    "--xla_cpu_use_onednn=true",
)
_EFFORT = Effort(6.0, 5, 15)


def pool_as_flax(
    inputs: Float[Array, "B H W channels"],
) -> Float[Array, "B H//2 W//2 channels"]:
    """Max pooling by Flax, whose gradient is a scatter."""
    return nn.max_pool(inputs, (2, 2), strides=(2, 2))


def gradients(problem: Problem) -> dict[str, Callable[[], Any]]:
    """The gradient as it is and with Flax's pooling, and PyTorch's."""
    from benchmarks import torch_peers
    from benchmarks.torch_twins import make_twin

    ours = compile_program(jax.grad(problem.loss_fn), problem.params)
    with mock.patch.object(simple_cnn, "max_pool_2x2", pool_as_flax):
        pooled = compile_program(
            jax.grad(lambda params: problem.loss_fn(params)), problem.params
        )
    twin = make_twin(problem)
    return {
        "PyTorch": lambda: torch_peers.gradient(twin),
        "ours": ours.call,
        "ours, pooling as Flax": pooled.call,
    }


def parts(batch: int = 128) -> dict[str, Callable[[], Any]]:
    """The costly operations of SimpleCNN's second layer, 32 to 32 channels."""
    import torch
    from torch.nn import functional

    x, w = jnp.ones((batch, 32, 32, 32)), jnp.ones((3, 3, 32, 32))
    tx, tw = torch.ones(batch, 32, 32, 32), torch.ones(32, 32, 3, 3)
    ty = functional.conv2d(tx, tw)
    hidden = jax.random.normal(jax.random.key(0), (batch, 30, 30, 32))

    def conv(padding: str) -> Callable[[Array, Array], Array]:
        return lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def weight_gradient(x: Array, w: Array, y: Array) -> Array:
        return jax.vjp(lambda w: conv("VALID")(x, w), w)[1](y)[0]

    def pool_gradient(pool: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return jax.grad(lambda h: pool(h).sum())

    programs = {
        "convolution, padded": compile_program(conv("SAME"), x, w),
        "convolution, not padded": compile_program(conv("VALID"), x, w),
        "its weight gradient": compile_program(
            weight_gradient, x, w, conv("VALID")(x, w)
        ),
        "max pooling, gradient": compile_program(pool_gradient(max_pool_2x2), hidden),
        "the same by Flax": compile_program(pool_gradient(pool_as_flax), hidden),
    }
    return {name: program.call for name, program in programs.items()} | {
        "PyTorch, convolution, not padded": lambda: functional.conv2d(tx, tw),
        "PyTorch, its weight gradient": lambda: torch.ops.aten.convolution_backward(
            *(ty, tx, tw, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
            [False, True, False],
        ),
    }


def _measure(cores: int) -> dict[str, Any]:
    """In a process of its own: what the flags in XLA_FLAGS give."""
    # Before XLA and PyTorch start their threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import torch

    torch.set_num_threads(cores)
    clock = time.process_time if cores == 1 else time.perf_counter
    whole = take_turns(gradients(PROBLEMS["simple_cnn"]()), _EFFORT, clock)
    pieces = take_turns(parts(), Effort(1.5, 5, 15), clock)
    return {
        "load": os.getloadavg(),
        "gradient": {name: _numbers(whole, name, "PyTorch") for name in whole.seconds},
        "parts_ms": {name: 1e3 * pieces.median(name) for name in pieces.seconds},
    }


def _numbers(times: Times, name: str, reference: str) -> dict[str, Any]:
    ratio = times.ratio(name, reference)._asdict()
    return {"ms": 1e3 * times.median(name), "over_pytorch": ratio}


def _report(title: str, found: dict[str, Any]) -> None:
    print(f"{title}, load {found['load'][0]:.1f}")
    for name, row in found["gradient"].items():
        ratio = row["over_pytorch"]
        print(
            f"  {name}: {row['ms']:.1f} ms, {ratio['median']:.2f} of PyTorch's "
            f"({ratio['low']:.2f}–{ratio['high']:.2f})"
        )
    for name, milliseconds in found["parts_ms"].items():
        print(f"    {name}: {milliseconds:.1f} ms")


def main() -> None:
    """Measures under each set of flags, prints and writes plain_gradient.json."""
    if sys.argv[1:]:
        print(json.dumps(_measure(int(sys.argv[1]))))
        return
    results: list[dict[str, Any]] = []
    for cores, clock in ((2, "wall"), (1, "processor")):
        for flags in FLAGS:
            environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
            child = subprocess.run(
                [sys.executable, "-m", "benchmarks.plain_gradient", str(cores)],
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            found = json.loads(child.stdout.splitlines()[-1])
            setting = {"cores": cores, "clock": clock, "xla_flags": flags}
            results.append({"jax": jax.__version__} | setting | found)
            _report(f"{cores} core(s), {clock} time, XLA_FLAGS={flags!r}", found)
    text = json.dumps(results, indent=1) + "\n"
    (FOLDER / "plain_gradient.json").write_text(text)


if __name__ == "__main__":
    main()
