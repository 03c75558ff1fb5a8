"""Sweeps on a real Slurm of one node: arrays, preemption, failure, cancellation."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.command import ROOT, records
from tests.launch.slurm_node import missing_programs, running_node
from tests.launch.test_sweep import HEADER

pytestmark = pytest.mark.slow
SLURM = ("--executor=slurm", "--partition=normal", "--cpus_per_task=1", "--time=60",
         "--poll_seconds=2")  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    pytest.importorskip("submitit", reason="SUBMITIT ABSENT: Slurm is not tested")
    missing = missing_programs()
    if missing or os.getuid():
        what = f"SLURM ABSENT: no {' '.join(missing)}" if missing else "NOT ROOT"
        pytest.skip(f"{what}; Slurm is not tested (apt-get install slurm-wlm munge)")
    with running_node(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**os.environ, **environment}


def experiment(tmp_path, sweep):
    file = tmp_path / "tiny.py"
    file.write_text(f"{HEADER}\ndef get_sweep(): return {sweep}\n")
    return f"--config={file}"


def start(node, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "launch.sweep", *map(str, arguments)],
        cwd=ROOT, env=node, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(node, *arguments, timeout=900):
    process = start(node, *arguments)
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output


def wait_for_records(directory, number, timeout=200):
    deadline = time.monotonic() + timeout
    while len(records(directory)) < number:
        assert time.monotonic() < deadline, f"{directory} does not run"
        time.sleep(0.1)


def command(node, *words):
    return subprocess.run(
        words, env=node, capture_output=True, text=True, check=True
    ).stdout


def test_an_array_with_one_run_that_fails(node, tmp_path):
    config = experiment(
        tmp_path, "[{'seed': 0}, {'seed': 1}, {'dataset.name': 'no_such_set'}]"
    )
    code, output = run(node, config, f"--out={tmp_path}/out", *SLURM)
    assert code == 1, output
    assert "submitted 3 runs" in output
    for seed in (0, 1):
        result = json.loads((tmp_path / f"out/seed_{seed}/result.json").read_text())
        assert result["status"] == "finished"
    _, shown = run(node, "--status", f"--out={tmp_path}/out")
    assert "2 done, 1 failed" in shown
    assert "no_such_set" in shown.split("failed", 1)[1]


def test_a_preempted_run_goes_on_by_itself_to_the_same_bits(node, tmp_path):
    config = experiment(tmp_path, "[{'seed': 0}]")
    long = "--config.train.num_epochs=300"
    code, output = run(node, config, f"--out={tmp_path}/whole", long)
    assert code == 0, output
    sweep = start(node, config, f"--out={tmp_path}/out", long, *SLURM)
    preempted = tmp_path / "out" / "seed_0"
    wait_for_records(preempted, 20)
    command(node, "sbatch", "--partition=urgent", "-c2", "-o/dev/null", "--wrap=true")
    output, _ = sweep.communicate(timeout=900)
    assert sweep.returncode == 0, output
    log = (tmp_path / "out" / "seed_0.log").read_text()
    assert "Saved at step" in log
    assert "Continuing from step" in log
    assert output.count("submitted") == 1  # it was requeued, not submitted again
    assert records(preempted) == records(tmp_path / "whole" / "seed_0")


def test_a_cancelled_sweep_is_continued_by_the_same_command(node, tmp_path):
    config = experiment(tmp_path, "[{'seed': s} for s in range(3)]")
    arguments = (
        config, f"--out={tmp_path}/out", "--config.train.num_epochs=100",
        "--at_a_time=1", *SLURM,
    )  # fmt: skip
    sweep = start(node, *arguments)
    wait_for_records(tmp_path / "out" / "seed_0", 20)
    command(node, "scancel", "--user=root")
    output, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 1, output
    assert "3 of 3 runs have not ended" in output
    code, output = run(node, *arguments)
    assert code == 0, output
    log = (tmp_path / "out" / "seed_0.log").read_text()
    assert "Continuing from step" in log
