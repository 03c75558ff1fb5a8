"""Where a run comes from: configuration, command, versions, machine and settings."""

import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from fisher_jax.data.selection import Selection
from fisher_jax.errors import UserError
from fisher_jax.host.machine import describe_machine
from fisher_jax.startup import flags_in
from fisher_jax.train import loop
from fisher_jax.train.keys import Config
from fisher_jax.train.records import require_json
from fisher_jax.train.step import TrainState, count_parameters
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

# What config.json says of the machine and the code, beside versions and settings.
SURROUNDINGS = (
    "machine",
    "device_kind",
    "device_count",
    "process_count",
    "git_commit",
    "code_hash",
    "xla_flags",
)

# JAX's options, by the names of their environment variables, that change what is drawn,
# how numbers are rounded or in which order they are added.
_JAX_OPTIONS = (
    "JAX_ALLOW_F16_REDUCTIONS",
    "JAX_COMPILER_ENABLE_REMAT_PASS",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_DISABLE_JIT",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_EMBEDDED_CONSTANTS_MAX_BYTES",
    "JAX_ENABLE_PGLE",
    "JAX_ENABLE_X64",
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT",
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL",
    "JAX_MEMORY_FITTING_EFFORT",
    "JAX_MEMORY_FITTING_LEVEL",
    "JAX_OPTIMIZATION_LEVEL",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_SOFTMAX_CUSTOM_JVP",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_USE_DIRECT_LINEARIZE",
    "JAX_USE_SHARDY_PARTITIONER",
    "JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS",
)
_LIBRARY_VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
_FLAG_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# Flags that say what is written down, and how many devices a CPU stands for: a run may
# go on with another number of devices.
_HARMLESS_FLAGS = ("xla_dump", "xla_hlo_dump", "xla_force_host_platform_device_count")


def numeric_settings() -> dict[str, Any]:
    """Returns every JAX and XLA setting that can change bits, by environment variable.

    To be called before this program adds XLA flags of its own, which follow from the
    configuration, the versions and the number of processes. Options that this version
    of JAX does not have are left out; flags of XLA are entries of their own.
    """
    options = jax.config.values
    settings: dict[str, Any] = {
        name: options[name.lower()] for name in _JAX_OPTIONS if name.lower() in options
    }
    for name in _LIBRARY_VARIABLES:
        settings[name] = os.environ.get(name)
    for name in _FLAG_VARIABLES:
        for word in flags_in(name):
            flag, _, value = word.partition("=")
            if not flag.lstrip("-").startswith(_HARMLESS_FLAGS):
                settings[f"{name} {flag}"] = value or "true"
    return settings


def setting_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns "NAME x then, y now" for each setting that is not as it was.

    JAX's own options are compared where both versions of JAX have them.
    """
    return [
        f"{name} {_shown(then.get(name))} then, {_shown(now.get(name))} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
        and not (name in _JAX_OPTIONS and (name not in then or name not in now))
    ]


def check_same_settings(directory: Path, now: Mapping[str, Any]) -> None:
    """Checks that a run goes on with the settings that it began with.

    Args:
        directory: the run's; its config.json, if written before settings were
            recorded, allows all.
        now: ``numeric_settings()``.

    Raises:
        UserError: one differs; the text names them all.
    """
    then = require_json(directory / "config.json").get("settings")
    differences = [] if then is None else setting_differences(then, now)
    if differences:
        raise UserError(
            f"the run in {directory} was started with other settings, and its numbers "
            f"would change: {'; '.join(differences)}. Its checkpoints are intact: "
            "restore those settings, or choose another workdir"
        )


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns "NAME x then, y now" for all that can change bits and is not as it was.

    Args:
        then, now: two config.json of one configuration. What the first did not record
            is not compared, nor are the commits of the same code.
    """
    names = set(SURROUNDINGS) & then.keys()
    if then.get("code_hash") == now.get("code_hash") is not None:
        names -= {"git_commit"}
    elif then.get("git_commit") != now.get("git_commit"):
        names -= {"code_hash"}  # the commit tells it
    pairs = [
        (name, then[name], now.get(name)) for name in SURROUNDINGS if name in names
    ]
    versions = now.get("versions", {})
    pairs += [(n, v, versions.get(n)) for n, v in then.get("versions", {}).items()]
    lines = [f"{n} {before} then, {after} now" for n, before, after in pairs
             if before != after]  # fmt: skip
    if "settings" in then:
        lines += setting_differences(then["settings"], now.get("settings", {}))
    return lines


def facts_of(data: Selection, plan: loop.Plan, state: TrainState) -> dict[str, Any]:
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


def image_facts(
    content: Mapping[str, Any], path: Path
) -> tuple[tuple[int, int, int], int]:
    """Returns height, width and channels, and the number of classes, of a config.json.

    Args:
        content: of the file, with what ``facts_of`` says.
        path: for the error's text.

    Raises:
        UserError: it does not say them.
    """
    images = str(content.get("images"))
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+), (\d+) classes", images)
    if match is None:
        raise UserError(f"{path} does not record the run's images and classes")
    height, width, channels, classes = map(int, match.groups())
    return (height, width, channels), classes


def config_json(
    config: Config,
    argv: Sequence[str],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns config.json: what was asked for, and what it was computed with."""
    return {
        "config": config.model_dump(mode="json"),
        "argv": list(argv),
        "versions": {
            "python": platform.python_version(),
            "fisher_jax": __version__,
            **{name: version(name) for name in PACKAGES},
        },
        "git_commit": _git_commit(),
        "code_hash": code_hash(Path(__file__).parent.parent),
        "machine": describe_machine(),
        "settings": dict(settings),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name.replace(" ", "_"): value for name, value in facts.items()},
    }


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def code_hash(package: Path) -> str:
    """A hash of the code that can change a run: all of the package but its report.

    By it runs of two commits that differ in documents, tests or experiments alone are
    known to be of the same code.
    """
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith("report/"):
            content.update(f"{name} {path.stat().st_size}\n".encode())
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


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
