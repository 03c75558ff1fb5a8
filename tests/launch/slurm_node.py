"""A real Slurm on this machine, one node of two CPUs, for as long as a test needs it.

Debian's slurm-wlm and munge (``apt-get install slurm-wlm munge``), run as root with a
configuration of its own in a temporary folder; nothing of the machine is changed.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")

# Two partitions: a job in "urgent" preempts those in "normal", which are requeued.
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
InactiveLimit=0
KillWait=30
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=normal Nodes=localhost Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=localhost PriorityTier=9 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """Returns what is not installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


@contextlib.contextmanager
def running_node(folder: Path) -> Iterator[dict[str, str]]:
    """Starts the daemons; yields the environment in which commands find them."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    ports = _free_ports(2)
    configuration = CONFIGURATION.format(
        folder=folder, controller_port=ports[0], node_port=ports[1]
    )
    (folder / "slurm.conf").write_text(configuration)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("wb") as output:
            daemons.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **environment},
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                )
            )

    try:
        start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        _wait_until(lambda: (folder / "munge.socket").exists(), "munged")
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D", "-N", "localhost")

        def is_idle() -> bool:
            done = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True,
                env={**os.environ, **environment}, check=False,
            )  # fmt: skip
            return "idle" in done.stdout

        _wait_until(is_idle, "slurmctld and slurmd")
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start within {seconds} s")
        time.sleep(0.2)
