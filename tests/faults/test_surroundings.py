"""The real command where output, paths, signals or users are not as usual."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.command import (
    ROOT,
    SMALL,
    errors,
    lines_of,
    records,
    result,
    run,
    signal_when,
    start,
    without_user,
)

SHORT = (*SMALL, "--config.train.num_epochs=2")
COMMAND = [sys.executable, str(ROOT / "main.py"), *SHORT]


def test_the_home_folder_and_a_plain_terminal(tmp_path):
    """~ where shells leave it, a colon, and an encoding that lacks characters."""
    environment = {"HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    code, output = run(*SHORT, "--workdir=~/run:1", environment=environment)
    assert code == 0, output
    assert "Tr(F)" in output
    assert result(tmp_path / "run:1")["status"] == "finished"
    code, output = run(
        "--config=~/run:1/config.json", "--workdir=~/again",
        "--config.train.init_from=~/nothing:1", environment=environment,
    )  # fmt: skip
    assert code == 2, output
    (line,) = errors(output)
    assert "init_from" in line
    assert "no configuration file" not in line


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_estimate_on_a_plain_terminal(tmp_path, encoding):
    file = tmp_path / "one.py"
    file.write_text(
        "from experiments import base\nget_config = base.get_config\n"
        "def get_sweep(): return [{'seed': 0}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "launch.sweep", f"--config={file}", "--estimate"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"H100" in done.stdout + done.stderr


@pytest.mark.slow
def test_jaxs_strict_settings_change_nothing(tmp_path):
    """All at once, with what computes most: the same bits as without."""
    more = (
        "--config.penalty.draw=importance",
        "--config.penalty.num_groups=2",
        "--config.mixup.beta=0.4",
        "--config.dataset.augment=standard",
        "--config.measure.hessian_probes=2",
        "--config.measure.every_steps=2",
    )
    strict = {
        "JAX_DEBUG_NANS": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }
    for name, environment in (("plain", {}), ("strict", strict)):
        code, output = run(
            *SHORT, *more, f"--workdir={tmp_path / name}", environment=environment
        )
        assert code == 0, output
    assert records(tmp_path / "strict") == records(tmp_path / "plain")


@pytest.mark.slow
def test_output_on_a_full_disk_does_not_end_a_run(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, f"--workdir={tmp_path}/run"], cwd=ROOT, stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=180, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot write to standard output") == 1
    assert "Traceback" not in done.stderr
    assert result(tmp_path / "run")["status"] == "finished"


def test_an_address_as_workdir_is_refused_before_anything_is_made(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--workdir=gs://bucket/run"], cwd=tmp_path, capture_output=True,
        text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "is a remote address" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_closed_connection_saves_and_the_same_command_continues(tmp_path, fault):
    """SIGHUP; with nohup the run goes on."""
    tally = fault("SIGHUP")
    workdir = tmp_path / "run"
    command = (*SMALL, "--config.train.num_epochs=8", f"--workdir={workdir}")
    tally.tried()
    process = start(*command)
    code, output = signal_when(
        process, signal.SIGHUP, lambda: len(lines_of(workdir)) >= 2
    )
    assert code == 75, output
    assert "the same command continues" in output
    process = subprocess.Popen(
        ["nohup", sys.executable, str(ROOT / "main.py"), *command], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    before = len(lines_of(workdir))
    code, output = signal_when(
        process, signal.SIGHUP, lambda: len(lines_of(workdir)) > before
    )
    assert code == 0, output
    assert "Continuing from step" in output
    tally.survived()


@pytest.mark.slow
def test_a_run_survives_the_reader_of_its_output(tmp_path, fault):
    tally = fault("the reader of the output goes away")
    tally.tried()
    process = start(*SHORT, f"--workdir={tmp_path}/run")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=180) == 0
    assert result(tmp_path / "run")["status"] == "finished"
    tally.survived()


@pytest.mark.slow
def test_a_container_without_user_and_home(tmp_path, fault):
    tally = fault("no entry for the user, no HOME")
    tally.tried()
    done = subprocess.run(
        without_user(*COMMAND, f"--workdir={tmp_path}/run"), cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert not (ROOT / "~").exists()
    tally.survived()


@pytest.mark.slow
def test_a_rerun_from_a_folder_with_a_colon(tmp_path):
    code, output = run(*SHORT, f"--workdir={tmp_path}/run:1")
    assert code == 0, output
    done = subprocess.run(
        [sys.executable, "-m", "launch.rerun", f"{tmp_path}/run:1"],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout
    assert json.loads((tmp_path / "run:1" / "config.json").read_text())["config"]
