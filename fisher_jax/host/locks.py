"""One process at a time in a folder, as far as its file system can tell."""

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fisher_jax.errors import UserError, one_line

LOCK = ".lock"  # in the folder that is locked

# How file systems say that they have no locks: NFS without its lock service, Lustre and
# others that are mounted without them, FUSE.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def lock_file(path: Path) -> tuple[IO[str], bool]:
    """Opens a file, made if absent, and locks it for as long as it is open.

    Returns:
        The open file, and whether it is locked: False where the file system has no
        locks, so that nobody can say whether another process is there.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file cannot be opened or locked for another reason.
    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return file, False
        file.close()
        raise
    return file, True


def hold(folder: Path, what: str, busy: str, warn: Callable[[str], None]) -> IO[str]:
    """Locks a folder for this process, until what is returned is closed.

    Args:
        what: it is, for the texts.
        busy: the error's text where another process holds it.
        warn: takes a line where the file system has no locks.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    try:
        file, is_locked = lock_file(folder / LOCK)
    except BlockingIOError as error:
        raise UserError(busy) from error
    except OSError as error:
        raise UserError(f"cannot write to {what}: {one_line(error)}") from error
    if not is_locked:
        warn(
            f"the file system of {what} has no locks, so nothing stops another "
            "process from running there too"
        )
    return file
