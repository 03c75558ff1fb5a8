"""Loads a data set by name: one that comes with a package, or any prepared TFDS set.

Sets whose images have one shape live in memory, others (photographs) are streamed.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fisher_jax.data.cache import (
    cache_path,
    default_cache_dir,
    read_cache,
    write_cache,
)
from fisher_jax.data.image_set import Source
from fisher_jax.data.packaged import PACKAGED
from fisher_jax.data.prepared import (
    Progress,
    find_prepared,
    has_one_shape,
    missing_error,
    read_prepared,
    resolve_data_dir,
)
from fisher_jax.data.stream import Stream, open_stream


def load_source(
    name: str,
    data_dir: str | None,
    cache_dir: str | None = None,
    *,
    progress: Progress | None = None,
) -> Source:
    """Loads a data set into memory.

    "digits" is scikit-learn's, 1000 training and 797 test images of 8×8 pixels, and
    needs no data_dir. Any name that is not in PACKAGED is an image-classification set
    prepared by TFDS in ``data_dir/name[/config]/version/``. The first load decodes it
    and keeps the result on disk; later loads read that, checked by its checksum.

    Args:
        name: "digits", or "name", "name/config", "name:1.2.3", "name/config:1.2.3".
            Without a version the highest prepared one is taken.
        data_dir: the folder of prepared sets. None: ``$TFDS_DATA_DIR`` or
            ~/tensorflow_datasets.
        cache_dir: the folder of decoded sets. None: ``$FISHER_JAX_CACHE_DIR/data`` or
            ~/.cache/fisher_jax/data. A cache that is damaged is made again, one that
            cannot be written is done without; both with a warning.
        progress: called with (images decoded, images in all) while decoding.

    Returns:
        Source. Its arrays may be read-only.

    Raises:
        DataError: where the name is unknown, the set is not prepared in data_dir, its
            files are missing or damaged, or it does not fit the purpose; see
            ``fisher_jax.data.prepared.read_prepared``.
    """
    cached = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    load: Callable[[], Source]
    if name in PACKAGED:
        load, package = PACKAGED[name]
        cached_at = cached / f"{name}-{version(package)}.images"
    else:
        prepared_dir = _prepared_dir(name, data_dir)
        load = partial(read_prepared, name, prepared_dir, progress)
        cached_at = cache_path(cached, name, prepared_dir)
    source = read_cache(cached_at)
    if source is None:
        source = load()
        write_cache(cached_at, source)
    return source


def find_stream(name: str, data_dir: str | None) -> Stream | None:
    """Opens a data set for streaming if its images have no one shape.

    Args:
        name: as for ``load_source``.
        data_dir: as for ``load_source``.

    Returns:
        Stream, or None where ``load_source`` loads the set into memory.

    Raises:
        DataError: as ``load_source``; see ``fisher_jax.data.stream.open_stream``.
    """
    if name in PACKAGED:
        return None
    prepared_dir = _prepared_dir(name, data_dir)
    return None if has_one_shape(prepared_dir) else open_stream(name, prepared_dir)


def _prepared_dir(name: str, data_dir: str | None) -> Path:
    folder = resolve_data_dir(data_dir)
    prepared_dir = find_prepared(name, folder)
    if prepared_dir is None:
        raise missing_error(name, folder)
    return prepared_dir
