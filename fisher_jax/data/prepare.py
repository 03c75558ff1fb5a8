"""Downloads and prepares a TFDS set: python -m fisher_jax.data.prepare NAME.

Preparing image sets needs TensorFlow (``pip install -e '.[prepare]'`` in a clone), but
for tiny_imagenet; reading the result does not, so it can be done once, anywhere, and
copied.
"""

import argparse
import importlib.util
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fisher_jax.data.packaged import PACKAGED
from fisher_jax.data.prepared import (
    OWN_BUILDERS,
    file_format,
    find_prepared,
    is_known,
    prepare_command,
    resolve_data_dir,
    unknown_error,
)
from fisher_jax.errors import DataError, needs_extra, one_line
from fisher_jax.host.output import keep_writing
from fisher_jax.host.paths import path_argument

# TFDS retries 10 times with doubling pauses, over three minutes without a network.
_MAX_RETRIES = 5
_MAX_FILES_NAMED = 4
_SECONDS_UNTIL_ABANDONED = 86_400


def prepare(name: str, data_dir: Path, manual_dir: Path | None = None) -> Path:
    """Prepares a TFDS set as array_record files, unless it is prepared already.

    The folder gets its name when it is complete, so whatever interrupts preparing,
    the same call starts it again from the archives that are already there.

    Args:
        name: "name", "name/config" or "name:1.2.3" as TFDS knows it; "tiny_imagenet"
            (32×32 pixels) and "tiny_imagenet/64x64" are ours.
        data_dir: the set goes to data_dir/name[/config]/version, downloads to
            data_dir/downloads, which a later call uses again.
        manual_dir: a folder in which archives already are, under the names that TFDS
            gives them. None: data_dir/downloads/manual.

    Returns:
        The prepared folder.

    Raises:
        DataError: where the name is unknown, TensorFlow is missing, the set is there
            in another format, or downloading or preparing fails.
    """
    if name in PACKAGED:
        origin = PACKAGED[name][1]
        raise DataError(f"{name} comes with {origin} and needs no preparation")
    if prepared_dir := find_prepared(name, data_dir):
        if (found := file_format(prepared_dir)) == "array_record":
            return prepared_dir
        raise DataError(
            f"{prepared_dir} has {name} as {found} files; for array_record files, "
            f"run: {prepare_command(name, 'OTHER_FOLDER')}"
        )
    if not is_known(name):
        raise unknown_error(name, data_dir)
    if manual_dir is not None and not manual_dir.is_dir():
        raise DataError(f"--manual_dir={manual_dir} is not a folder")
    if not _is_ours(name) and importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"preparing {name} needs TensorFlow: pip install -e '.[prepare]' in a clone"
        )
    return _download_and_prepare(name, data_dir, manual_dir)


def _is_ours(name: str) -> bool:
    """Says whether the builder is one of ours; those work without TensorFlow."""
    return name.partition(":")[0].partition("/")[0] in OWN_BUILDERS


def _download_and_prepare(name: str, data_dir: Path, manual_dir: Path | None) -> Path:
    """Prepares a set that is known and not there yet."""
    # TensorFlow reads this when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = _MAX_RETRIES
    if _is_ours(name):
        from fisher_jax.data import tiny_imagenet  # noqa: F401  registers it

    builder = None
    try:
        builder = tfds.builder(
            name, data_dir=os.fspath(data_dir), file_format="array_record"
        )
        _remove_abandoned(Path(builder.data_dir).parent)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, try_download_gcs=False
            )
        )
    except DataError:
        raise
    # Each of TFDS's 400 builders may raise anything, and so may its downloader.
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        hint = _archive_hint(builder, manual_dir or data_dir / "downloads" / "manual")
        raise DataError(f"preparing {name} failed: {reason}{hint}") from error
    return Path(builder.data_dir)


def _remove_abandoned(folder: Path) -> None:
    """Removes what preparations that were killed long ago left behind."""
    for incomplete in folder.glob("incomplete.*"):
        if incomplete.stat().st_mtime < time.time() - _SECONDS_UNTIL_ABANDONED:
            shutil.rmtree(incomplete, ignore_errors=True)


def _archive_hint(builder: Any, manual_dir: Path) -> str:
    """Says which archives would be taken from where instead of being downloaded."""
    url_infos = (builder.url_infos or {}) if builder is not None else {}
    if not url_infos:
        return ""
    files = [f"{info.filename} ({url})" for url, info in url_infos.items()]
    named = ", ".join(files[:_MAX_FILES_NAMED])
    more = len(files) - _MAX_FILES_NAMED
    return (
        f"; archives that you already have are taken from {manual_dir} "
        f"(--manual_dir names another folder): {named}"
        + (f" and {more} more" if more > 0 else "")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 where preparing fails."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_jax.data.prepare",
        description="Download a TFDS set and prepare it for training.",
    )
    parser.add_argument(
        "name", help="TFDS name, such as cifar100 or imagenet2012, or tiny_imagenet"
    )
    parser.add_argument(
        "--data_dir", help="folder for prepared sets (default: ~/tensorflow_datasets)"
    )
    parser.add_argument(
        "--manual_dir",
        type=path_argument,
        help="folder with archives that you downloaded by hand",
    )
    arguments = parser.parse_args(argv)
    try:
        data_dir = resolve_data_dir(arguments.data_dir)
        was_prepared = find_prepared(arguments.name, data_dir) is not None
        with needs_extra("prepare"):
            prepared_dir = prepare(arguments.name, data_dir, arguments.manual_dir)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    if was_prepared:
        print(f"{arguments.name} is already prepared in {prepared_dir}")
    else:
        print(f"{arguments.name} is prepared in {prepared_dir}")
    print(f"train on it with --config.dataset.data_dir={data_dir}")
    return 0


if __name__ == "__main__":
    keep_writing()
    sys.exit(main())
