"""One device, several, and several processes: the same training, the same traces."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compilation import quickly
from tests.train.on_devices import CASES

ROOT = Path(__file__).parents[2]


def start(steps, cases, devices, *arguments):
    flags = f"--xla_force_host_platform_device_count={devices}"
    # What is sent is decided before code is generated.
    only_compiles = cases == "HLO"
    environment = quickly(flags) if only_compiles else os.environ | {"XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.on_devices", str(steps), cases, *arguments],
        cwd=ROOT,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def found_on(steps, cases, devices, processes=1):
    """What ``processes`` with ``devices`` each compute."""
    if processes == 1:
        group = [start(steps, cases, devices)]
    else:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        group = [
            start(steps, cases, devices, address, str(processes), str(index))
            for index in range(processes)
        ]
    outputs = [process.communicate(timeout=900) for process in group]
    for process, (_, errors) in zip(group, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    content = json.loads(outputs[0][0].splitlines()[-1])
    assert content["devices"] == devices * processes
    return content["found"]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    compared = 0
    for case, (values, digests) in theirs.items():
        assert ours[case][1] == digests, case
        for name, value in values.items():
            found = ours[case][0][name]
            assert found == pytest.approx(value, rel=1e-5, nan_ok=True), (case, name)
            compared += 1
    assert compared > 50


@pytest.mark.slow
def test_two_processes_compute_what_one_device_does():
    cases = "rademacher,batch_norm"
    one = found_on(4, cases, devices=1)
    assert_same(found_on(4, cases, devices=4, processes=2), one)


def test_what_the_devices_send_each_other():
    """One sum of a gradient a step, three with an update, and nobody gathers anything.

    What is kept of the penalty's gradient is the same on all devices.
    """
    found = found_on(0, "HLO", devices=8)
    steps = {name: sent for name, sent in found.items() if not name.startswith("Tr")}
    assert len(steps) == 12
    for name, sent in found.items():
        assert not sent.keys() - {"all-reduce"}, name
    for name, sent in steps.items():
        bound = 3.1 if name.endswith("update") else 1.05
        if name == "input_gradient, update":
            bound = 2.1  # its square is of each example's own gradient
        if name == "groups, update":
            bound = 2.1  # a group's own gradient stays on its device
        if name.endswith("in a call"):
            bound = 3.1 + 2 * 1.05
        assert 0.95 <= sent["all-reduce"] <= bound, (name, sent)
    # Tr(F): two scalars where the devices divide the examples, else each has all.
    assert 0 < found["Tr(F) of 48"]["all-reduce"] <= 64
    assert found["Tr(F) of 43"] == {}


@pytest.mark.slow
def test_every_penalty_on_any_devices():
    """Twenty steps of each on 1, 2 and 8 devices and on two processes of four."""
    cases = ",".join(CASES)
    one = found_on(20, cases, devices=1)
    # Computed in parts, a step is the same step.
    assert_same({"parts": one["parts"]}, {"parts": one["rademacher"]})
    assert_same({"mixed_parts": one["mixed_parts"]}, {"mixed_parts": one["mixup"]})
    for devices, processes in ((2, 1), (8, 1), (4, 2)):
        assert_same(found_on(20, cases, devices, processes), one)
