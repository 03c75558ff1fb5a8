"""One training run: configuration, compiled step, loop, checkpoints, records.

The only package that knows models, data and penalties together; no mathematics here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fisher_jax.train.trained import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    # Only when asked for: a mistyped key on a command line should not wait for Orbax.
    if name == "load_run":
        from fisher_jax.train.trained import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
