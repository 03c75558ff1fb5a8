"""Finds a prepared TFDS folder by name, without importing TFDS.

TFDS lays a set out as ``data_dir/name[/config]/version/``. Finding it by hand lets a
start that hits the cache skip the import of TFDS and keeps the choice of folder, and
so the cache's key, independent of the TFDS version that is installed.
"""

import contextlib
import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from fisher_jax.data.errors import DataError
from fisher_jax.host.paths import local_path

_NAME = re.compile(
    r"(?P<dataset>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# The builders of ours, with their configurations; a bare name means the first one.
OWN_BUILDERS = {"tiny_imagenet": ("32x32", "64x64")}


class _Name(NamedTuple):
    dataset: str
    config: str | None
    version: str | None


def default_data_dir() -> str:
    """Returns TFDS's own default: ``$TFDS_DATA_DIR``, else ~/tensorflow_datasets."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.expanduser(
        os.path.join("~", "tensorflow_datasets")
    )


def resolve_data_dir(data_dir: str | None) -> Path:
    """Returns the folder that holds prepared sets.

    Args:
        data_dir: A local folder, ``~`` allowed; None takes `default_data_dir`.

    Raises:
        DataError: Where a remote address is given.
    """
    data_dir = data_dir or default_data_dir()
    if "://" in data_dir:
        raise DataError(
            f"dataset.data_dir={data_dir} is not a local folder: array_record files "
            "are read from a local or mounted disk, copy them there"
        )
    return local_path(data_dir, "dataset.data_dir")


def prepare_command(name: str, data_dir: Path | str) -> str:
    """Returns the command that prepares a set in a folder."""
    return f"python -m fisher_jax.data.prepare {name} --data_dir={data_dir}"


def find_prepared(name: str, data_dir: Path) -> Path | None:
    """Returns the folder of a prepared set.

    Without a version in the name the highest one there is taken; without a
    configuration, the default of a builder of ours, else the only one there.

    Args:
        name: "name", "name/config", "name:1.2.3" or "name/config:1.2.3".
        data_dir: The folder that holds prepared sets.

    Returns:
        The version's folder; None where the set is not there.

    Raises:
        DataError: Where the name has another form, a folder cannot be read, or
            several configurations are prepared and the name says none.
    """
    try:
        found = _find_versions(_parse_name(name), data_dir)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    if len(found) > 1:
        choices = ", ".join(
            f"{path.parent.parent.name}/{path.parent.name}" for path in found
        )
        raise DataError(
            f"dataset.name={name} is prepared in several configurations in {data_dir}: "
            f"name one of {choices}"
        )
    return found[0] if found else None


def _find_versions(name: _Name, data_dir: Path) -> list[Path]:
    """Returns the folders that a name may mean, one for each configuration."""
    set_dir = data_dir / name.dataset
    if name.config is not None:
        candidates = [set_dir / name.config]
    elif _pick_version(set_dir, name.version):
        candidates = [set_dir]
    else:
        candidates = sorted(_folders(set_dir))
    versions = [_pick_version(folder, name.version) for folder in candidates]
    return [version for version in versions if version is not None]


def _parse_name(name: str) -> _Name:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"dataset.name={name!r} is not a name of a data set: write 'name', "
            "'name/config' or 'name:1.2.3'"
        )
    parsed = _Name(**match.groupdict())
    configs = OWN_BUILDERS.get(parsed.dataset)
    if configs is None or parsed.config in configs:
        return parsed
    if parsed.config is None:
        return parsed._replace(config=configs[0])
    raise DataError(
        f"dataset.name={name}: {parsed.dataset} comes as {' or '.join(configs)}"
    )


def _folders(folder: Path) -> list[Path]:
    return (
        [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    )


def _pick_version(folder: Path, version: str | None) -> Path | None:
    """Returns the folder of a version, or of the highest where version is None."""
    found = [
        path
        for path in _folders(folder)
        if _VERSION.fullmatch(path.name) and version in (None, path.name)
    ]
    return max(
        found, key=lambda path: [int(n) for n in path.name.split(".")], default=None
    )


def missing_error(name: str, data_dir: Path) -> DataError:
    """Returns the error for a set that is not prepared: what to do, or nearest names.

    Args:
        name: The name asked for.
        data_dir: The folder where it was looked for.
    """
    for parent in (data_dir.parent, data_dir.parent.parent):
        # Looking there is only a courtesy, so what goes wrong there is no matter.
        with contextlib.suppress(DataError):
            if find_prepared(name, parent):
                return DataError(
                    f"{name} is not prepared in {data_dir} but in the folder above: "
                    f"use dataset.data_dir={parent}"
                )
    if not is_known(name):
        return unknown_error(name, data_dir)
    absent = "" if data_dir.is_dir() else " (no such folder)"
    return DataError(
        f"{name} is not prepared in {data_dir}{absent}; run: "
        f"{prepare_command(name, data_dir)}"
    )


def is_known(name: str) -> bool:
    """Says whether TFDS or a builder of ours can prepare a set; may import TFDS.

    Args:
        name: "name", "name/config", "name:1.2.3" or "name/config:1.2.3".

    Raises:
        DataError: Where the name has another form.
    """
    dataset = _parse_name(name).dataset
    return dataset in OWN_BUILDERS or dataset in _builder_names()


def unknown_error(name: str, data_dir: Path) -> DataError:
    """Returns the error for a name that nobody knows, with the nearest that exist."""
    prepared = {path.name for path in _folders(data_dir)}
    known = {"digits", *OWN_BUILDERS, *_builder_names(), *prepared}
    dataset = _parse_name(name).dataset
    nearest = difflib.get_close_matches(dataset.lower(), sorted(known), 3, cutoff=0.5)
    choices = f"the nearest are {', '.join(nearest)}" if nearest else "see tfds.org"
    return DataError(
        f"dataset.name={name} is neither digits nor a TFDS set, nor prepared in "
        f"{data_dir}: {choices}"
    )


def _builder_names() -> list[str]:
    """Returns all names TFDS can prepare; imports TFDS, so only for errors."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)
