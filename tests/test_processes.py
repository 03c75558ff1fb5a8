"""The real command in several processes of four devices each, joined by Gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.command import (
    ROOT,
    SMALL,
    errors,
    finish_group,
    lines_of,
    records,
    result,
    run,
    signal_when,
    start,
    start_group,
)
from tests.tiers import some

EPOCHS = "--config.train.num_epochs=4"
STEPS = 32


def assert_close(workdir, other):
    """The same records to rounding, which training amplifies from step to step."""
    ours, theirs = records(workdir), records(other)
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_one_run_and_survive_a_kill(tmp_path):
    """One is killed: the other ends by itself, both continue, the result is right."""
    alone, workdir = tmp_path / "alone", tmp_path / "run"
    code, output = run(*SMALL, EPOCHS, f"--workdir={alone}")
    assert code == 0, output

    group = start_group(*SMALL, EPOCHS, f"--workdir={workdir}")
    # Once the first epoch is saved, which has its final name only then.
    first = workdir / "checkpoints" / "8"
    signal_when(group[1], signal.SIGKILL, first.exists)
    killed_at = time.monotonic()
    ((code, output), _) = finish_group(group)
    assert time.monotonic() - killed_at < 60
    assert code == 75, output
    (line,) = errors(output)
    assert "another process" in line

    (code, output), (other_code, other_output) = finish_group(
        start_group(*SMALL, EPOCHS, f"--workdir={workdir}")
    )
    assert (code, other_code) == (0, 0), output + other_output
    assert "Continuing from step" in output
    # Only the first process speaks, but for Gloo itself.
    spoken = [line for line in other_output.splitlines() if "[Gloo]" not in line]
    assert spoken == []
    assert result(workdir)["steps"] == STEPS
    assert_close(workdir, alone)
    config = json.loads((workdir / "config.json").read_text())
    assert config["device_count"] == 8
    assert len(list((workdir / "tensorboard").glob("events.out.tfevents.*"))) == 2


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_once_and_all_continue(tmp_path):
    workdir = tmp_path / "run"
    command = (*SMALL, EPOCHS, f"--workdir={workdir}")
    code, output = signal_when(
        start(*command), signal.SIGTERM, lambda: len(lines_of(workdir)) >= 3
    )
    assert code == 75, output
    steps = sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())
    assert len(steps) == 2
    newest = workdir / "checkpoints" / str(steps[1])
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (code, output), (other_code, other_output) = finish_group(start_group(*command))
    assert (code, other_code) == (0, 0), output + other_output
    assert f"continuing from step {steps[0]}" in " ".join(output.split())
    assert len(list((workdir / "damaged_checkpoints").iterdir())) == 1
    assert result(workdir)["steps"] == STEPS


@pytest.mark.slow
def test_the_first_process_killed_ends_the_second(tmp_path):
    workdir = tmp_path / "run"
    group = start_group(*SMALL, EPOCHS, f"--workdir={workdir}")
    signal_when(group[0], signal.SIGKILL, lambda: len(lines_of(workdir)) >= 2)
    killed_at = time.monotonic()
    _, (code, output) = finish_group(group)
    assert time.monotonic() - killed_at < 60
    assert code not in (0, None), output
    assert "another" in output


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_saving(tmp_path):
    workdir = tmp_path / "run"
    group = start_group(*SMALL, EPOCHS, f"--workdir={workdir}")
    signal_when(group[1], signal.SIGTERM, lambda: len(lines_of(workdir)) >= 2)
    (code, output), (other_code, _) = finish_group(group)
    assert (code, other_code) == (75, 75), output
    assert "the same command continues" in output


@pytest.mark.slow
def test_a_mistake_known_only_after_the_start_is_told_in_one_line(tmp_path):
    arguments = (*SMALL, f"--workdir={tmp_path}/run", "--config.train.batch_size=12")
    for code, output in finish_group(start_group(*arguments)):
        assert code == 2, output
        (line,) = errors(output)
        assert "the nearest multiples: 8 or 16" in line
        assert "Traceback" not in output


FLAGS = {
    "address": (["--coordinator_address=here"], "must be HOST:PORT"),
    "index": (["--process_id=2", "--num_processes=2"], "from 0 to 1"),
    "count": (["--num_processes=0"], "at least 1"),
    "missing": (["--num_processes=2", "--process_id=0"], "--coordinator_address"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags_that_do_not_fit_are_told_before_the_start(case, tmp_path):
    arguments, said = FLAGS[case]
    code, output = run(*SMALL, f"--workdir={tmp_path}/run", *arguments)
    assert code == 2, output
    (line,) = errors(output)
    assert said in line
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_workdir_in_use_is_refused_by_all_processes(tmp_path):
    workdir = tmp_path / "run"
    holder = start(*SMALL, "--config.train.num_epochs=500", f"--workdir={workdir}")
    while not lines_of(workdir):
        assert holder.poll() is None
        time.sleep(0.05)
    try:
        for code, output in finish_group(
            start_group(*SMALL, EPOCHS, f"--workdir={workdir}")
        ):
            assert code == 2, output
            assert "another process is running" in errors(output)[0]
    finally:
        holder.kill()
        holder.communicate()


# How start_processes ends, with a shorter wait, in a program of its own.
START = """
import sys
from fisher_jax import startup
from fisher_jax.errors import UserError
startup.START_SECONDS = 3
try:
    startup.start_processes(*eval(sys.argv[1]))
except UserError as error:
    sys.exit(f"error: {error}")
print("alone")
"""


def starting(arguments=(), **environment):
    """Returns exit code, standard output and error."""
    names = ("SLURM_", "OMPI_", "KUBERNETES_", "JOB_COMPLETION_INDEX")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    done = subprocess.run(
        [sys.executable, "-c", START, repr(arguments)], cwd=ROOT,
        env={**plain, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), done.stderr.splitlines()


@pytest.fixture
def port():
    with socket.create_server(("localhost", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize("process", some([0, 1], [0]))
def test_a_peer_that_never_comes_is_told_in_one_line(port, process):
    code, _, said = starting((f"localhost:{port}", 2, process))
    assert code == 2
    (line,) = said
    assert line.startswith(f"error: cannot start process {process} of 2 with the ")
    assert "the other processes did not start within 3 s" in line


def test_a_port_in_use_is_told_in_one_line():
    with socket.create_server(("", 0)) as server:
        code, _, said = starting((f"localhost:{server.getsockname()[1]}", 2, 0))
    assert code == 1
    (line,) = said
    assert "cannot listen on port" in line
    assert "Address already in use" in line


SLURM = {
    "SLURM_JOB_ID": "1", "SLURM_STEP_ID": "3", "SLURM_STEP_NODELIST": "localhost",
    "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4",
}  # fmt: skip


def test_a_step_of_a_larger_allocation_counts_its_own_processes():
    assert starting(**SLURM, SLURM_STEP_NUM_TASKS="1") == (0, "alone", [])
    # It waits for one more, not for three, at a port of this step's own.
    code, _, said = starting(**SLURM, SLURM_STEP_NUM_TASKS="2")
    assert code == 2
    assert "the other processes did not start" in said[-1]
    with socket.create_server(("", 61_440 + 1 + 61 * 3)):
        code, _, said = starting(**SLURM, SLURM_STEP_NUM_TASKS="2")
    assert code == 1
    assert f"cannot listen on port {61_440 + 1 + 61 * 3}" in said[-1]


def test_one_process_of_one_is_alone():
    assert starting((None, 1, None)) == (0, "alone", [])
    assert starting(OMPI_COMM_WORLD_SIZE="1", SLURM_NTASKS="4") == (0, "alone", [])


# As the real one ends in a pod without a service account's token.
KUBERNETES = """
class ConfigException(Exception): pass
class config:
    @staticmethod
    def load_incluster_config():
        raise ConfigException("Service token file does not exist.")
"""


def test_a_pod_without_token_is_alone_unless_it_is_one_of_several(tmp_path):
    (tmp_path / "kubernetes.py").write_text(KUBERNETES)
    pod = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert starting(**pod) == (0, "alone", [])
    code, _, said = starting(**pod, JOB_COMPLETION_INDEX="1")
    assert code == 1
    (line,) = said
    assert "token file does not exist" in line
    assert "--num_processes=1" in line


@pytest.mark.parametrize("platform", some(["cuda", "tpu", "cdua"], ["cuda"]))
def test_a_platform_that_is_not_there_is_told_in_one_line(platform, tmp_path):
    environment = {"JAX_PLATFORMS": platform}
    code, output = run(*SMALL, f"--workdir={tmp_path}/run", environment=environment)
    if code == 0:
        pytest.skip(f"{platform} is there")
    assert code == 2, output
    (line,) = errors(output)
    assert line.startswith("error: no device to compute on: ")
    assert f"JAX_PLATFORMS={platform}" in line
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
