"""Devices and processes: the mesh, what lies where, what only the first does.

One mesh of all devices of all processes, with one axis, ``data``: batches are split
over it, everything else is replicated. Every process runs the same program; what
differs between them, the files that only the first writes and the signals that only
some receive, is settled here. Knows neither models nor data nor training.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import compress
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Bool, Int, PyTree

from fisher_jax.errors import UserError

DATA_AXIS = "data"
POLL_SECONDS = 2e-4


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def leave(code: int) -> NoReturn:
    """Ends this process at once, without waiting for others as the normal end does.

    They may be waiting for this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.distributed.is_initialized() and is_first():
        # The others lose their coordinator with this process. Those that end for the
        # same reason should have the time to say so.
        time.sleep(2)
    os._exit(code)


def from_first(function: Callable[[], Any]) -> Any:
    """Returns on every process what ``function()``, a JSON value, is on the first.

    Raises:
        UserError: on every process, if it is raised on the first.
    """
    if jax.process_count() == 1:
        return function()
    content: dict[str, Any] = {}
    if is_first():
        try:
            content = {"value": function()}
        except UserError as error:
            content = {"error": str(error)}
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    text = np.resize(text, length)
    text = np.asarray(multihost_utils.broadcast_one_to_all(text), np.uint8)
    content = json.loads(text.tobytes())
    if "error" in content:
        raise UserError(content["error"])
    return content["value"]


def make_mesh() -> Mesh:
    """Returns the mesh of all devices of all processes, one process after another.

    So each process holds rows of a batch in one piece, as it reads them from disk.
    """
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters, states and scalars: the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_devices(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of a batch: its leading axis, or another, over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def place(tree: PyTree, sharding: Sharding) -> PyTree:
    """Makes global arrays of values that every process holds whole.

    Each process puts on its devices what they hold of it; nothing is sent.
    """

    def one(leaf: Any) -> Array:
        if jax.dtypes.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            words = one(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        value = np.asarray(leaf)
        return jax.make_array_from_callback(
            value.shape, sharding, lambda index: value[index]
        )

    return jax.tree.map(one, tree)


def place_rows(rows: Int[np.ndarray, " B"], mesh: Mesh | None) -> Array:
    """Spreads the rows of a global batch over the devices.

    Each process gives its devices only their share, so that what is gathered by these
    rows stays where it is used. Where the devices do not divide B, and without a mesh,
    every device gets all.
    """
    if mesh is None:
        return jnp.asarray(rows)
    is_ragged = rows.shape[0] % mesh.size != 0
    sharding = replicated(mesh) if is_ragged else split_over_devices(mesh)
    if jax.process_count() == 1:
        return jax.device_put(rows, sharding)
    return place(rows, sharding)


def is_on_cpu(mesh: Mesh) -> bool:
    """Whether its devices are CPUs, whatever machine traces the program."""
    platform: str = mesh.devices.flat[0].platform
    return platform == "cpu"


def round_up(size: int, mesh: Mesh | None) -> int:
    """Returns the next size that the devices divide."""
    return size if mesh is None else -(-size // mesh.size) * mesh.size


def wait_for_devices(value: Array) -> None:
    """Waits until all devices of this process have ``value``, or one has failed.

    When another process is lost, only the devices that talk to it notice at once. The
    others wait for those, so that asking any one device may take until a timeout.

    Raises:
        jax.errors.JaxRuntimeError: the computation failed on a device.
    """
    if jax.process_count() == 1:
        return
    waiting = [shard.data for shard in value.addressable_shards]
    while waiting:
        are_ready = [data.is_ready() for data in waiting]
        jax.block_until_ready(list(compress(waiting, are_ready)))
        waiting = [
            data for data, ready in zip(waiting, are_ready, strict=True) if not ready
        ]
        if waiting:
            time.sleep(POLL_SECONDS)


class Agreement:
    """Asks of all processes, once a step, whether any of them wants something.

    The answer comes one step late, so that no process waits for a device.
    """

    def __init__(self, mesh: Mesh):
        """Starts with nobody wanting anything."""
        self._sharding = split_over_devices(mesh)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._asked = False
        self._under_way: Bool[Array, ""] | None = None

    def any_wants(self, wanted: bool) -> bool:
        """Returns whether any process wanted it when this was called before.

        Every process must call it equally often.
        """
        before, self._under_way = self._under_way, self._ask(wanted)
        if before is not None:
            wait_for_devices(before)
        self._asked = self._asked or (before is not None and bool(before))
        return self._asked

    def _ask(self, wanted: bool) -> Bool[Array, ""]:
        own = np.full(jax.local_device_count(), wanted)
        votes = jax.make_array_from_process_local_data(self._sharding, own)
        return self._any(votes)


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Raises UserError unless the devices divide ``size``, the key ``name``."""
    if size % mesh.size:
        lower, upper = size - size % mesh.size, size + mesh.size - size % mesh.size
        nearest = f"{lower} or {upper}" if lower else f"{upper}"
        raise UserError(
            f"{name}={size} is not a multiple of the {mesh.size} devices; the nearest "
            f"multiples: {nearest}"
        )
