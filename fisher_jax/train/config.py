"""The reading of a configuration: files, overrides, and what is wrong in one line.

Which keys there are and what they accept stands in ``keys.py``.
"""

import ast
import difflib
import functools
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from pydantic import ValidationError

from fisher_jax.errors import UserError, one_line
from fisher_jax.host.paths import local_path
from fisher_jax.run_files import flatten
from fisher_jax.train.keys import Config, all_keys

_OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)


class ConfigError(UserError):
    """A configuration that cannot be used."""


def split_overrides(
    argv: Sequence[str],
) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes the ``--config.a.b=v`` and ``--config.a.b v`` arguments out of argv.

    Returns:
        The other arguments, and pairs (key, text) in order.
    """
    rest: list[str] = []
    overrides: list[tuple[str, str]] = []
    arguments = iter(argv)
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None:
            rest.append(argument)
        else:
            key, text = match.groups()
            overrides.append((key, next(arguments, "") if text is None else text))
    return rest, overrides


def load_config(path: str, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Reads, overrides and checks a configuration.

    Args:
        path: ``FILE.py`` or ``FILE.py:arg``, whose ``get_config(arg)`` is called (the
            file is Python code and runs), or a run's ``config.json``, which runs no
            code. A key that it lacks has its default: it may be older than the key.
        overrides: pairs such as ("penalty.coefficient", "0.1"), applied in order.

    Raises:
        ConfigError: on anything that is wrong, in one line with the nearest valid
            choice.
    """
    flat = _read(path)
    for key, text in overrides:
        flat[key] = parse_value(key, text)
    return check_config(flat)


def check_config(flat: Mapping[str, Any]) -> Config:
    """Checks every key and value of {"a.b": value}; keys left out have their defaults.

    Raises:
        ConfigError: as ``load_config``.
    """
    for key in flat:
        _check_known(key)
    try:
        return Config.model_validate(_nest(flat))
    except ValidationError as error:
        raise ConfigError(_in_words(error, flat)) from error


def _in_words(error: ValidationError, flat: Mapping[str, Any]) -> str:
    """The first thing that is wrong, in the order of the keys."""
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:  # of several keys
        return str(problem["ctx"]["error"])
    name = ".".join(part for part in problem["loc"] if isinstance(part, str))
    key, value = all_keys()[name], flat[name]
    near = nearest(value, key.choices) if isinstance(value, str) else ""
    return f"{name} must be {key.description}, got {_shown(value)}{near}"


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(all_keys())


def _check_known(key: str) -> None:
    if key not in _names():
        raise ConfigError(f"unknown key {_shown(key)}{nearest(key, _names())}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, choices: Sequence[str]) -> str:
    """Returns "; did you mean 'x'?" for the choice nearest to ``name``, or ""."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def flat_config(config: Config) -> dict[str, Any]:
    """Returns {"a.b": value} as it stands in JSON (tuples as lists)."""
    return flatten(config.model_dump(mode="json"))


def split_path(path: str) -> tuple[str, str]:
    """Returns (FILE, arg) of ``FILE:arg``; a folder's name may have colons, too.

    Raises:
        UserError: ``~`` where no home folder is known.
    """
    path = str(local_path(path, "--config"))
    for end in (len(path), *(i for i, c in enumerate(path) if c == ":")):
        if Path(path[:end]).is_file():
            return path[:end], path[end + 1 :]
    file, _, argument = path.partition(":")
    return file, argument


def _read(path: str) -> dict[str, Any]:
    file, argument = split_path(path)
    if not Path(file).is_file():
        siblings = [str(p) for p in Path(file).parent.glob("*.py")]
        raise ConfigError(f"no configuration file {file!r}{nearest(file, siblings)}")
    if file.endswith(".json"):
        return _read_json(file)
    spec = importlib.util.spec_from_file_location("experiment_config", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file!r} is neither a .py file nor a config.json")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{file!r} has no function get_config")
        config = module.get_config(argument) if argument else module.get_config()
    except ConfigError:
        raise
    # The file is the user's own code: whatever it raises is an error in the file.
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(sys.exc_info()[2])
        lines = [frame.lineno for frame in frames if frame.filename == spec.origin]
        where = f" (line {lines[-1]})" if lines else ""
        text = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"{path}{where}: {text}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"{file!r}: get_config must return a ConfigDict")
    return flatten(config.to_dict())


def _read_json(file: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file!r} is not readable JSON: {error}") from error
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise ConfigError(
            f"{file!r} has no 'config' object; a run's config.json has one"
        )
    return flatten(config)


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        place = nested.setdefault(section, {}) if section else nested
        place[name] = value
    return nested


def parse_value(key: str, text: str) -> Any:
    """Returns a command-line text in the key's type.

    Raises:
        ConfigError: unknown key, or a text that is not of its type.
    """
    _check_known(key)
    declared = all_keys()[key]
    if declared.is_optional and text.lower() in ("none", ""):
        return None
    try:
        return _PARSERS[declared.kind](text)
    except _NOT_OF_ITS_TYPE as error:
        said = f"{key} must be {declared.description}, got {_shown(text)}"
        raise ConfigError(said) from error


def _tuple(text: str) -> tuple[Any, ...]:
    value = ast.literal_eval(text) if text.strip("()[], ") else ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


_NOT_OF_ITS_TYPE = (
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    MemoryError,
    RecursionError,
)
_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "array": _tuple,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
    "integer": int,
    "number": float,
    "string": str,
}
