"""Decoded images on disk, so that only the first start decodes.

A cache entry is one file: a checksum of all that follows, a line of JSON that
describes the arrays, the arrays' bytes. It is written under another name and then
renamed, so a reader finds a whole file or none, however many processes start at once.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.errors import one_line
from fisher_jax.host.paths import local_path, user_cache

_FORMAT = 1
_ALIGNMENT = 64
_SECONDS_UNTIL_ABANDONED = 86_400

_logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Returns where decoded data goes when nothing else is said.

    ``$FISHER_JAX_CACHE_DIR/data``, else ``$XDG_CACHE_HOME/fisher_jax/data``, else
    ``~/.cache/fisher_jax/data``.
    """
    if root := os.environ.get("FISHER_JAX_CACHE_DIR"):
        return local_path(root, "FISHER_JAX_CACHE_DIR") / "data"
    return user_cache() / "fisher_jax" / "data"


def cache_path(cache_dir: Path, name: str, prepared_dir: Path) -> Path:
    """Returns the file that caches a prepared folder in the state it is in now.

    The file's name holds a hash of the set's name, the folder's name (the version),
    this file format, Pillow's version (which decides how a JPEG decodes) and the
    relative path, size and modification time of every file in the folder. So a set
    that is prepared again, or changed in any way, is decoded again.

    Returns:
        A path in cache_dir; need not exist.
    """
    import PIL

    state = [repr((_FORMAT, name, prepared_dir.name, PIL.__version__))]
    for path in sorted(prepared_dir.rglob("*")):
        # A link to nowhere counts by itself; reading the set will say what it lacks.
        stat = path.stat() if path.exists() else path.lstat()
        relative = path.relative_to(prepared_dir).as_posix()
        state.append(repr((relative, stat.st_size, stat.st_mtime_ns)))
    digest = hashlib.blake2b("\n".join(state).encode(), digest_size=16).hexdigest()
    file_name = name.replace("/", "-").replace(":", "-")
    return cache_dir / f"{file_name}-{digest}.images"


def _parts(source: Source) -> Iterator[bytes | memoryview]:
    """Yields what follows the checksum: the JSON line, each array and its padding."""
    arrays = [*source.train, *source.test]
    header = {
        "name": source.name,
        "num_classes": source.num_classes,
        "label_names": source.label_names,
        "arrays": [[array.dtype.str, array.shape] for array in arrays],
    }
    yield json.dumps(header).encode() + b"\n"
    for array in arrays:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        yield bytes(-array.nbytes % _ALIGNMENT)


def write_cache(path: Path, source: Source) -> None:
    """Writes a source to a cache file; warns where that fails.

    A run works without a cache, so nothing is raised when the disk is full or the
    folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        # The user's umask decides who may read it; tempfile would allow only the owner.
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as file:
                checksum = 0
                for part in _parts(source):
                    checksum = zlib.crc32(part, checksum)
                file.write(b"%08x\n" % checksum)
                file.writelines(_parts(source))
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        _logger.warning(
            "%s is decoded again at every start, because its cache %s cannot be "
            "written (%s); set FISHER_JAX_CACHE_DIR to another folder",
            source.name,
            path,
            one_line(error),
        )


def _remove_abandoned(folder: Path) -> None:
    """Removes what processes that were killed while writing left behind."""
    for partial in folder.glob("*.partial"):
        # Another process may finish its file, or remove it, at any moment.
        with contextlib.suppress(FileNotFoundError):
            if partial.stat().st_mtime < time.time() - _SECONDS_UNTIL_ABANDONED:
                partial.unlink()


def read_cache(path: Path) -> Source | None:
    """Reads a cache file.

    Returns:
        The source that was written, with read-only arrays; None where there is no
        such file and, with a warning, where it is damaged.
    """
    try:
        with path.open("rb") as file:
            checksum = int(file.readline(), 16)
            header_line = file.readline()
            payload = np.fromfile(file, np.uint8)
        if zlib.crc32(payload.data, zlib.crc32(header_line)) != checksum:
            raise ValueError("the checksum does not match")
        return _decode(json.loads(header_line), payload)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        _logger.warning(
            "the data cache %s is damaged (%s); rebuilding it",
            path,
            one_line(error),
        )
        return None


def _decode(header: dict, payload: np.ndarray) -> Source:
    """Returns the source of a header, its arrays views of the payload."""
    payload.setflags(write=False)
    arrays = []
    start = 0
    for dtype_name, shape in header["arrays"]:
        dtype = np.dtype(dtype_name)
        num_bytes = dtype.itemsize * math.prod(shape)
        arrays.append(payload[start : start + num_bytes].view(dtype).reshape(shape))
        start += num_bytes + -num_bytes % _ALIGNMENT
    return Source(
        name=header["name"],
        train=ImageSet(arrays[0], arrays[1]),
        test=ImageSet(arrays[2], arrays[3]),
        num_classes=header["num_classes"],
        label_names=tuple(header["label_names"]),
    )
