"""Devices: the mesh, what lies where on it, the compilation cache.

One mesh axis, ``data``: batches are split over it, everything else is replicated.
Knows neither models nor data nor training.
"""

import os
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fisher_jax.errors import UserError

DATA_AXIS = "data"


def make_mesh() -> Mesh:
    """Returns the mesh of all devices of all processes."""
    return Mesh(np.array(jax.devices()), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters, states and scalars: the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_devices(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis, over all devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Raises UserError unless the devices divide ``size``, the key ``name``."""
    if size % mesh.size:
        lower, upper = size - size % mesh.size, size + mesh.size - size % mesh.size
        nearest = f"{lower} or {upper}" if lower else f"{upper}"
        raise UserError(
            f"{name}={size} is not divided by the {mesh.size} devices; "
            f"the nearest that are: {nearest}"
        )


def start_compilation_cache(directory: Path) -> None:
    """Keeps compiled programs on disk, so that a second start skips compiling.

    JAX_COMPILATION_CACHE_DIR, where set, wins. An unwritable folder only costs time.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
