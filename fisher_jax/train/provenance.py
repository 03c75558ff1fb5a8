"""Where a run comes from: configuration, command, versions, devices, commit."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fisher_jax.data.selection import Selection
from fisher_jax.train import loop
from fisher_jax.train.state import TrainState, count_parameters
from fisher_jax.version import __version__

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ml_collections",
    "numpy",
)


def facts_of(data: Selection, plan: loop.Run, state: TrainState) -> dict[str, Any]:
    """What follows from the configuration, for the header and config.json."""
    height, width, channels = data.image_shape
    return {
        "parameters": f"{count_parameters(state.params):,}",
        "images": f"{height}x{width}x{channels}, {data.source.num_classes} classes",
        "training examples": data.labels.size,
        "validation examples": data.validation_ids.size,
        "test examples": data.num_test,
        "steps": plan.schedule.total_steps,
        "steps an epoch": plan.schedule.steps_per_epoch,
        "label_noise_hash": data.noise_hash,
        "label_noise_effective_rate": data.effective_noise_rate,
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
    }


def config_json(
    config: ConfigDict, argv: Sequence[str], facts: dict[str, Any]
) -> dict[str, Any]:
    """Returns config.json: what was asked for, and what it was computed with."""
    return {
        "config": config.to_dict(),
        "argv": list(argv),
        "versions": {
            "python": platform.python_version(),
            "fisher_jax": __version__,
            **{name: version(name) for name in PACKAGES},
        },
        "git_commit": _git_commit(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name.replace(" ", "_"): value for name, value in facts.items()},
    }


def _git_commit() -> str | None:
    """The checkout's commit, with "+changes" for a dirty one; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None
