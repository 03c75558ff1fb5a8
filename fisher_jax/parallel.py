"""Devices and processes: start-up, the mesh, what lies where, how XLA compiles.

One mesh of all devices of all processes, with one axis, ``data``: batches are split
over it, everything else is replicated. Every process runs the same program; what
differs between them, the files that only the first writes and the signals that only
some receive, is settled here. Knows neither models nor data nor training.
"""

import json
import os
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax._src.xla_bridge import backends_are_initialized
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Bool, Int, PyTree

from fisher_jax.errors import UserError, one_line
from fisher_jax.host import launcher

DATA_AXIS = "data"
YNNPACK_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# XLA's default but for convolutions. Reductions have to stay: some that jaxlib 0.10.2
# compiles itself are wrong (jax-ml/jax#39103).
YNNPACK_KINDS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"

# JAX aborts all processes when one has missed its heartbeats, which are half of this
# apart. Half of it is longer than ``liveness`` takes to notice and to say so.
HEARTBEAT_SECONDS = 90
START_SECONDS = 120
END_SECONDS = 60
POLL_SECONDS = 2e-4


def start_processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of the run, if there are any; before any JAX call.

    Without arguments JAX looks for a launcher: Slurm, a TPU pod, Open MPI, Kubernetes,
    or JAX_COORDINATOR_ADDRESS. Where there is none this is the only process. Ends the
    process with a line and exit code 2 when the others have not come after a while.

    Args:
        coordinator_address: HOST:PORT of process 0, the same for all.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        UserError: the arguments do not fit together, or the others cannot be joined.
    """
    given = (coordinator_address, num_processes, process_id)
    _check_arguments(*given)
    is_left_to_launcher = given == (None, None, None)
    if is_left_to_launcher and "JAX_COORDINATOR_ADDRESS" not in os.environ:
        num_processes = launcher.process_count()
    # A program that has used its devices before it calls us has decided to be alone.
    if num_processes == 1 or (is_left_to_launcher and backends_are_initialized()):
        return
    _check_port(*given)
    _give_simulated_devices_threads()
    # It would take SIGTERM from us; processes agree on stopping by Agreement.
    jax.config.update("jax_enable_preemption_service", False)
    which = "the processes of this run"
    if not is_left_to_launcher:
        which = (
            f"process {process_id} of {num_processes} with the coordinator "
            f"{coordinator_address}"
        )
    try:
        with warnings.catch_warnings(), _giving_up(which):
            warnings.simplefilter("ignore")
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                # It ends in an abort, ours in a line.
                initialization_timeout=10 * START_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=END_SECONDS,
            )
    except ValueError as error:
        if is_left_to_launcher and "should be defined" in str(error):
            return
        raise UserError(
            f"cannot start processes: {one_line(error)} Pass --coordinator_address, "
            "--num_processes and --process_id"
        ) from error
    # Kubernetes' client and the network raise what they like.
    except Exception as error:
        is_pod = is_left_to_launcher and "KUBERNETES_SERVICE_HOST" in os.environ
        if is_pod and launcher.kubernetes_index() is None:
            return  # no indexed job, the only thing in Kubernetes that JAX can join
        hint = ""
        if is_pod:
            hint = "; pass --num_processes=1 if it is alone, else --coordinator_address"
        raise UserError(
            f"cannot start {which}: {one_line(error)[:300]}{hint}"
        ) from error
    _keep_sums_apart_on_cpus()


def _check_port(
    address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Checks that process 0 can listen where the others will look for it.

    JAX crashes where it cannot.

    Raises:
        UserError: the port is in use, or not for this user.
    """
    address = address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None and (port := launcher.slurm_port()) is not None:
        address = f":{os.environ.setdefault('JAX_COORDINATOR_PORT', str(port))}"
        process_id = int(os.environ.get("SLURM_PROCID", "0"))
    has_own = "JAX_COORDINATOR_BIND_ADDRESS" in os.environ
    if process_id != 0 or address is None or has_own:
        return
    number = address.rpartition(":")[2]
    is_dual = socket.has_dualstack_ipv6()
    try:
        socket.create_server(
            ("", int(number)),
            family=socket.AF_INET6 if is_dual else socket.AF_INET,
            dualstack_ipv6=is_dual,
        ).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UserError(
            f"process 0 cannot listen at port {number} ({why}); another run may be "
            "using it: choose another --coordinator_address for all"
        ) from error


@contextmanager
def _giving_up(which: str) -> Iterator[None]:
    """Ends the process when what is inside takes longer than START_SECONDS.

    From a thread: JAX waits in C++, and aborts with a stack trace at its own limit.
    """

    def give_up() -> None:
        print(
            f"error: cannot start {which}: the others have not come within "
            f"{START_SECONDS} s; start all of them, each with the same coordinator and "
            "number of processes",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(2)

    timer = threading.Timer(START_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_devices() -> None:
    """Initialises the devices; the first call that does, after ``start_processes``.

    Raises:
        UserError: there are none of the kind that JAX_PLATFORMS asks for, or they
            cannot be used.
    """
    try:
        jax.devices()
    # Of a platform whose plugin is absent JAX only asserts that there is one.
    except (RuntimeError, AssertionError) as error:
        why = one_line(error)[:300] or "JAX has no such backend here"
        said = f"no device to compute on: {why}"
        if asked := os.environ.get("JAX_PLATFORMS"):
            said += f" (JAX_PLATFORMS={asked} asks for it)"
        if jax.distributed.is_initialized():
            print(f"error: {said}", file=sys.stderr)
            leave(2)
        raise UserError(said) from error


def _give_simulated_devices_threads() -> None:
    """Lets XLA start enough threads where a CPU stands for several devices.

    One that waits for another process holds a thread; with a thread for each core, on
    few cores, those that it waits for would find none.
    """
    count = re.search(
        r"xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", "")
    )
    if count is not None:
        os.environ.setdefault("NPROC", str(4 * int(count[1])))


def _keep_sums_apart_on_cpus() -> None:
    """Has XLA:CPU sum one array over processes at a time; no effect on accelerators.

    When a process is lost, XLA goes on with the next array of a sum of several, whose
    messages Gloo takes for those of the one before: where devices of this process talk
    to each other it aborts ("Received data size doesn't match expected size") or waits
    for minutes. After a lost sum of a single array it stops with an error at once.
    """
    _add_xla_flag("--xla_disable_hlo_passes", "cpu-all-reduce-combiner")


def _add_xla_flag(name: str, value: str) -> None:
    """Sets a flag of XLA before the first use of a device, unless the user has."""
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


def require_determinism() -> None:
    """Makes XLA on GPUs use only operations whose bits repeat; before any JAX call.

    A choice that XLA_FLAGS makes already is left alone. CPUs and TPUs repeat anyway.
    """
    _add_xla_flag("--xla_gpu_deterministic_ops", "true")


def _check_arguments(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    if coordinator_address is not None:
        host, _, port = coordinator_address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(
                f"--coordinator_address={coordinator_address} must be HOST:PORT"
            )
    if num_processes is not None and num_processes < 1:
        raise UserError(f"--num_processes={num_processes} must be at least 1")
    if process_id is not None and not 0 <= process_id < (num_processes or 2**31):
        last = "" if num_processes is None else f" to {num_processes - 1}"
        raise UserError(f"--process_id={process_id} must be from 0{last}")


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


def split_over_devices(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis, over all devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


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
            f"{name}={size} is not divided by the {mesh.size} devices; "
            f"the nearest that are: {nearest}"
        )


def keep_convolutions_off_ynnpack() -> None:
    """Has XLA:CPU compile convolutions itself instead of handing them to YNNPACK.

    There jaxlib 0.10 is five times slower for those without padding, which all weight
    gradients are; 0.12 is as fast either way. By XLA_FLAGS, so before the first use of
    a device; what the user has set there about it wins. Other versions are left alone:
    XLA ends the process at a flag that it does not know.
    """
    if (0, 10) <= jaxlib.version.__version_info__[:2] <= (0, 12):
        _add_xla_flag(YNNPACK_FLAG, YNNPACK_KINDS)


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
