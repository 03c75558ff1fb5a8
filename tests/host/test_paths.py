import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fisher_jax.errors import UserError
from fisher_jax.host.paths import check_name, local_path, path_argument
from tests.command import ROOT, without_user


@pytest.mark.parametrize(
    "address", ["gs://b/run", "s3://b", "file:///tmp/run", "a+b://"]
)
def test_an_address_is_no_folder(address):
    with pytest.raises(UserError, match=r"^--workdir=.* is a remote address: mount"):
        local_path(address, "--workdir")
    with pytest.raises(argparse.ArgumentTypeError, match="is a remote address"):
        path_argument(address)


def test_nothing_is_no_folder():
    with pytest.raises(argparse.ArgumentTypeError, match="a path is empty"):
        path_argument("")


def test_home_is_found_where_shells_leave_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/runs/a") == tmp_path / "runs" / "a"
    assert local_path("runs/~a:b//c") == Path("runs/~a:b/c")


WITHOUT_HOME = """
from fisher_jax.errors import UserError
from fisher_jax.host.paths import local_path, user_cache
print(user_cache())
try:
    local_path("~/runs", "--out")
except UserError as error:
    print(error)
"""


def test_a_user_without_entry_and_home(tmp_path):
    """As in containers that are started with --user=54321."""
    command = without_user(sys.executable, "-c", WITHOUT_HOME)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    cache, said = done.stdout.splitlines()
    assert cache == "/tmp/cache-54321"
    assert said == "--out=~/runs: your home folder is unknown; give the full path"
    assert not list(tmp_path.iterdir())


def test_a_current_folder_that_is_gone_is_told(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(
        UserError, match=r"workdir 'run': the current folder no longer exists"
    ):
        check_name(Path("run"), "workdir")
    check_name(tmp_path / "run", "workdir")
