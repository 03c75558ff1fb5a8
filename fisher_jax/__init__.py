"""fisher_jax: the Fisher Penalty and curvature along training, in JAX and Flax.

Packages: ``curvature`` and ``penalties`` are the mathematics and know only jax; they
stand on ``trees``, ``axes``, ``loops`` and ``programs``, which everything may use.
Everything else trains with them. Nothing is imported here, so each stays light.
"""

from fisher_jax.version import __version__

__all__ = ["__version__"]
