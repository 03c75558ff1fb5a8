"""The start of a program that computes: its processes, its devices, how XLA compiles.

What is here is called before the first use of a device, from ``start_processes`` to
``initialise_devices``.
"""

import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jaxlib

from fisher_jax.errors import UserError, one_line
from fisher_jax.host import launcher
from fisher_jax.parallel import leave

YNNPACK_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# XLA's default but for convolutions. Reductions have to stay: some that jaxlib 0.10.2
# compiles itself are wrong (jax-ml/jax#39103).
YNNPACK_KINDS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"

# JAX aborts all processes when one has missed its heartbeats, which are half of this
# apart. Half of it is longer than ``liveness`` takes to notice and to say so.
HEARTBEAT_SECONDS = 90
START_SECONDS = 120
END_SECONDS = 60


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
    if num_processes == 1:
        return
    _check_port(coordinator_address, process_id)
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
        # A program that has used its devices before it calls us has decided to be
        # alone.
        if is_left_to_launcher and "before any JAX calls" in one_line(error):
            return
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


def _check_port(address: str | None, process_id: int | None) -> None:
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
            f"process 0 cannot listen on port {number} ({why}); another run may be "
            "using it: choose another --coordinator_address for all"
        ) from error


@contextmanager
def _giving_up(which: str) -> Iterator[None]:
    """Ends the process when what is inside takes longer than START_SECONDS.

    From a thread: JAX waits in C++, and aborts with a stack trace at its own limit.
    """

    def give_up() -> None:
        print(
            f"error: cannot start {which}: the other processes did not start within "
            f"{START_SECONDS} s; start all of them with the same coordinator and "
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


def initialise_devices() -> None:
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
        r"xla_force_host_platform_device_count=(\d+)", " ".join(flags_in("XLA_FLAGS"))
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
    flags = flags_in("XLA_FLAGS")
    if not any(flag.partition("=")[0] == name for flag in flags):
        os.environ["XLA_FLAGS"] = " ".join([*flags, f"{name}={value}"])


def flags_in(variable: str) -> list[str]:
    """Returns the flags in XLA_FLAGS, or in another variable of its kind.

    A text that does not begin with "-" is the name of a file that holds them.

    Raises:
        UserError: the file cannot be read.
    """
    text = os.environ.get(variable, "").strip()
    if text and not text.startswith("-"):
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{variable}={text} is neither a flag such as --xla_a=b nor a file of "
                "flags"
            ) from error
    return text.split()


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
    # Some forty programs of a start take less than a tenth of a second each to compile,
    # and a hundredth to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
