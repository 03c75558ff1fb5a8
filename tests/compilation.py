"""Compiling quickly: most of the time of tests is XLA's, not their arithmetic's."""

import os

import jax

FLAGS = ["--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):  # later ones have no others
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def quickly(flags: str = "") -> dict[str, str]:
    """The environment in which a command compiles in about half the time.

    For commands whose result does not depend on it; ``flags`` are more of XLA's.
    """
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), flags, *FLAGS])
    return os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
