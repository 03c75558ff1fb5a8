"""One process at a time in a folder, as far as its file system can tell."""

import errno
import fcntl
from pathlib import Path
from typing import IO

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
