import contextlib
import fcntl
import os
import subprocess

import pytest

from fisher_jax.host.locks import lock_file
from launch import folder


def test_a_held_lock_is_no_other_error(tmp_path):
    file, is_locked = lock_file(tmp_path / ".lock")
    assert is_locked
    with file, pytest.raises(BlockingIOError):
        lock_file(tmp_path / ".lock")
    again, is_locked = lock_file(tmp_path / ".lock")
    again.close()
    assert is_locked


def test_a_run_is_found_by_device_and_inode(tmp_path):
    """An inode's number alone is that of many files on a machine."""
    lock, _ = lock_file(tmp_path / ".lock")
    with lock:
        locked = folder.locked_files()
        assert folder.is_locked(tmp_path, locked)
        inode = os.fstat(lock.fileno()).st_ino
        elsewhere = frozenset({((0, 0), inode)})
        assert not folder.is_locked(tmp_path, elsewhere)
    assert not folder.is_locked(tmp_path, folder.locked_files())
    assert not folder.is_locked(tmp_path / "nowhere", locked)


def test_a_lock_on_another_file_system_is_found(tmp_path):
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system may not be mounted here")
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", str(tmp_path)], check=False)
        with (tmp_path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert folder.is_locked(tmp_path, folder.locked_files())
