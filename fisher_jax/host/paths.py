"""Folders and files as people write them on a command line."""

import argparse
import os
import re
import tempfile
from pathlib import Path

from fisher_jax.errors import UserError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local_path(text: str, option: str = "") -> Path:
    """Returns the path, with ``~`` for the home folder, which shells leave in --a=~/b.

    Args:
        text: as it was given.
        option: what it was given for, as "--workdir", for the error's text; not where
            the parser of the command line says it.

    Raises:
        UserError: nothing, an address, or ``~`` where no home folder is known.
    """
    given = f"{option}={text}" if option else text
    if not text:
        raise UserError(f"{option or 'a path'} is empty")
    if _ADDRESS.match(text):
        raise UserError(
            f"{given} is a remote address: mount it (gcsfuse, s3fs, NFS) and give the "
            "mounted folder"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{given}: your home folder is unknown; give the full path"
        ) from error


def check_name(folder: Path, what: str) -> None:
    """Checks that checkpoints can be stored in a folder of this name.

    Orbax takes some characters for wildcards when it puts a checkpoint together;
    TensorStore loses what lies behind a backslash, and takes UTF-8 only.

    Args:
        folder: the run's, or that of several.
        what: it is, for the error's text.

    Raises:
        UserError: they cannot.
    """
    try:
        name = str(folder.absolute())
    except FileNotFoundError as error:
        raise UserError(
            f"{what} {str(folder)!r}: the current folder no longer exists; change to "
            "another"
        ) from error
    refused = set(name) & set("[]*?\\\0")
    refused |= {c for c in name if "\ud800" <= c <= "\udfff"}
    if refused:
        shown = " ".join(c if c.isprintable() else ascii(c) for c in sorted(refused))
        raise UserError(
            f"{what} {name!r} has {shown} in its name, and checkpoints cannot be "
            "stored under such a name; choose another"
        )


def path_argument(text: str) -> Path:
    """``local_path`` as a ``type=`` of argparse, which says the option itself."""
    try:
        return local_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def user_cache() -> Path:
    """Returns where this user's caches go: $XDG_CACHE_HOME, else ~/.cache.

    In a container without HOME and without an entry for the user it is a folder of the
    user's among the temporary files.
    """
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
