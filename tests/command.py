"""Runs the real ``main.py`` in a process of its own, as a user does."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[1]

# Digits with label noise and RFP, a few seconds in all: 8 steps an epoch, an update of
# the penalty every 3 steps, a checkpoint at every epoch.
SMALL = (
    "--config=experiments/digits_fp.py:rfp",
    "--config.dataset.num_train=128",
    "--config.dataset.num_validation=64",
    "--config.train.batch_size=16",
    "--config.penalty.update_every=3",
    "--config.measure.fisher_examples=32",
    "--config.measure.gradient_examples=16",
    "--config.checkpoint.min_seconds=0",
)


def start(
    *arguments: str, environment: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.Popen[str]:
    """Starts main.py; output is piped, standard error into standard output."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def start_group(
    *arguments: str, processes: int = 2, devices: int = 4
) -> list[subprocess.Popen[str]]:
    """Starts one run in several processes on this machine, each with its devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices}"
    return [
        start(
            *arguments,
            f"--coordinator_address=localhost:{port}",
            f"--num_processes={processes}",
            f"--process_id={index}",
            environment={"XLA_FLAGS": flags},
        )
        for index in range(processes)
    ]


def finish_group(
    group: Sequence[subprocess.Popen[str]], timeout: float = 180
) -> list[tuple[int, str]]:
    """Waits for all; returns each one's exit code and output."""
    deadline = time.monotonic() + timeout
    try:
        outputs = [
            process.communicate(timeout=deadline - time.monotonic())[0]
            for process in group
        ]
    finally:
        for process in group:
            process.kill()
    return [
        (process.returncode, output)
        for process, output in zip(group, outputs, strict=True)
    ]


def run(
    *arguments: str,
    environment: dict[str, str] | None = None,
    cwd: Path = ROOT,
    timeout: float = 180,
) -> tuple[int, str]:
    """Runs main.py to its end; returns exit code and output."""
    process = start(*arguments, environment=environment, cwd=cwd)
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output


def without_user(*command: str) -> list[str]:
    """The command under a number that no user has; the caller has to unset HOME."""
    words = ["unshare", "--user", "--map-user=54321"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace of users may be made here")
    return [*words, *command]


def signal_when(
    process: subprocess.Popen[str],
    number: int,
    condition: Callable[[], bool],
    timeout: float = 120,
) -> tuple[int, str]:
    """Sends a signal as soon as the condition holds (or the process has ended)."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline, "the moment for the signal never came"
        time.sleep(0.001)
    process.send_signal(number)
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def lines_of(workdir: Path) -> list[bytes]:
    """The lines of metrics.jsonl; none where there is no file."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def final_parameters(workdir: Path, steps: int) -> dict[str, Any]:
    """The parameters in the checkpoint after the last step."""
    with ocp.CheckpointManager((workdir / "checkpoints").absolute()) as manager:
        tree = manager.restore(steps, args=ocp.args.StandardRestore())
    return tree["state"]["params"]


def assert_same_end(workdir: Path, undisturbed: Path, steps: int) -> None:
    """Two runs have the same records, result and parameters, to the bit."""
    assert records(workdir) == records(undisturbed)
    assert result(workdir) == result(undisturbed)
    ours, theirs = (final_parameters(run, steps) for run in (workdir, undisturbed))
    for layer in theirs:
        for name in theirs[layer]:
            np.testing.assert_array_equal(ours[layer][name], theirs[layer][name])


def records(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their time fields."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("time")}
        for line in lines
    ]


def result(workdir: Path) -> dict[str, Any]:
    """result.json without the one field that is a time."""
    content = json.loads((workdir / "result.json").read_text())
    content.pop("seconds_per_epoch")
    return content


def errors(output: str) -> Sequence[str]:
    """The lines of the output that tell the user of an error."""
    return [line for line in output.splitlines() if line.startswith("error: ")]
