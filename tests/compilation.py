"""Compiling quickly: most of the time of tests is XLA's, not their arithmetic's."""

import os

import jax

FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
# XLA's older emitters: those of 0.10.0 round otherwise, 0.11 and later may have none.
if (0, 10, 2) <= jax.__version_info__ < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def quickly(flags: str = "") -> dict[str, str]:
    """The environment in which a command compiles in about half the time.

    For commands whose result does not depend on it; ``flags`` are more of XLA's.
    """
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), flags, *FLAGS])
    return os.environ | {"XLA_FLAGS": flags}
