"""What is recorded of a run's surroundings, and what must not change in a restart."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from fisher_jax.host.machine import describe_machine
from fisher_jax.train.provenance import changes, code_hash, setting_differences
from tests.command import SMALL, errors, lines_of, run, signal_when, start
from tests.tiers import some


def settings_under(**environment):
    """What a program of its own records under these variables."""
    code = (
        "import json; from fisher_jax.train.provenance import numeric_settings as s;"
        "print(json.dumps(s()))"
    )
    environment = {**os.environ, "XLA_FLAGS": "", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_what_can_change_bits_is_told_and_nothing_else():
    plain = settings_under()
    assert plain["JAX_ENABLE_X64"] is False
    assert plain["JAX_DEFAULT_PRNG_IMPL"] == "threefry2x32"
    changed = settings_under(
        JAX_ENABLE_X64="1", JAX_THREEFRY_PARTITIONABLE="0",
        JAX_DEFAULT_PRNG_IMPL="rbg", JAX_DEFAULT_MATMUL_PRECISION="highest",
        NVIDIA_TF32_OVERRIDE="0", JAX_LOG_COMPILES="1",
        XLA_FLAGS="--xla_dump_to=/tmp/x --xla_cpu_enable_fast_math "
        "--xla_force_host_platform_device_count=2",
    )  # fmt: skip
    assert setting_differences(plain, changed) == [
        "JAX_DEFAULT_MATMUL_PRECISION unset then, highest now",
        "JAX_DEFAULT_PRNG_IMPL threefry2x32 then, rbg now",
        "JAX_ENABLE_X64 False then, True now",
        "JAX_THREEFRY_PARTITIONABLE True then, False now",
        "NVIDIA_TF32_OVERRIDE unset then, 0 now",
        "XLA_FLAGS --xla_cpu_enable_fast_math unset then, true now",
    ]
    # An option that a version does not have is not compared.
    del changed["JAX_ENABLE_X64"]
    assert "JAX_ENABLE_X64" not in " ".join(setting_differences(plain, changed))


def test_changes_of_the_surroundings_are_named():
    then = {"machine": "a", "versions": {"jax": "1", "numpy": "2"}, "git_commit": "x"}
    now = {"machine": "b", "versions": {"jax": "1", "numpy": "3"}, "git_commit": "x"}
    assert changes(then, now) == ["machine a then, b now", "numpy 2 then, 3 now"]
    assert changes({}, now) == []
    assert " cores" in describe_machine()


def test_commits_of_the_same_code_are_no_change(tmp_path):
    then = {"git_commit": "x", "code_hash": "1"}
    assert changes(then, {"git_commit": "y", "code_hash": "1"}) == []
    said = ["git_commit x then, y now"]
    assert changes(then, {"git_commit": "y", "code_hash": "2"}) == said
    said = ["code_hash 1 then, 2 now"]
    assert changes(then, {"git_commit": "x", "code_hash": "2"}) == said
    for name in ("step.py", "report/page.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    before = code_hash(tmp_path)
    (tmp_path / "report" / "page.py").write_text("x = 2")
    (tmp_path / "report" / "notes.txt").write_text("")
    assert code_hash(tmp_path) == before
    (tmp_path / "step.py").write_text("x = 2")
    assert code_hash(tmp_path) != before


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    process = start(*SMALL, "--config.train.num_epochs=8", f"--workdir={workdir}")
    code, output = signal_when(
        process, signal.SIGTERM, lambda: len(lines_of(workdir)) >= 3
    )
    assert code == 75, output
    return workdir


SETTINGS = {
    "JAX_THREEFRY_PARTITIONABLE": ("0", "True then, False now"),
    "JAX_ENABLE_X64": ("1", "False then, True now"),
    "JAX_DEFAULT_PRNG_IMPL": ("rbg", "threefry2x32 then, rbg now"),
    "JAX_DEFAULT_MATMUL_PRECISION": ("bfloat16", "unset then, bfloat16 now"),
}


@pytest.mark.parametrize(
    "name", some(SETTINGS, ["JAX_THREEFRY_PARTITIONABLE", "JAX_ENABLE_X64"])
)
def test_a_run_goes_on_with_its_own_settings_only(interrupted, name):
    value, said = SETTINGS[name]
    before = sorted(interrupted.rglob("*"))
    command = (*SMALL, "--config.train.num_epochs=8", f"--workdir={interrupted}")
    code, output = run(*command, environment={name: value})
    assert code == 2, output
    (line,) = errors(output)
    assert f"{name} {said}" in line
    assert "checkpoints are intact" in line
    assert "remove" not in line
    assert sorted(interrupted.rglob("*")) == before


@pytest.mark.slow
def test_other_versions_and_an_older_record_go_on_and_are_told(interrupted, tmp_path):
    workdir = shutil.copytree(interrupted, tmp_path / "run")
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    config["versions"]["numpy"] = "1.0"
    del config["settings"]
    path.write_text(json.dumps(config))
    command = (*SMALL, "--config.train.num_epochs=8", f"--workdir={workdir}")
    code, output = run(*command)
    assert code == 0, output
    assert "Continuing from step" in output
    assert "Warning: from here on the numbers may differ" in output
    assert "numpy 1.0 then" in output
