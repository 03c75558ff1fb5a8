"""What a configuration may hold, and the reading of it: files, overrides, checks.

SCHEMA is the one list of keys with their types and ranges; ``experiments/base.py``
is the list with defaults and explanations (a test holds the two together).
"""

import ast
import difflib
import importlib.util
import json
import math
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fisher_jax.errors import UserError, one_line
from fisher_jax.host.paths import local_path
from fisher_jax.models import MODEL_KEYS

_OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)


class ConfigError(UserError):
    """A configuration that cannot be used."""


class Rule(NamedTuple):
    """What one key accepts. ``low`` and ``high`` are inclusive unless ``above``."""

    kind: type  # bool, int, float, str or tuple (of integers)
    optional: bool = False  # None is allowed
    choices: tuple[str, ...] = ()
    low: float | None = None
    above: float | None = None  # strictly greater than
    high: float | None = None


# For sets whose images differ in size: they are read from disk while training.
STREAM_KEYS = (
    "resize_size",
    "crop_size",
    "decode_threads",
    "num_workers",
    "read_ahead",
)
OPTIONAL_MODEL_KEYS = ("padding", "depth", "width", "growth_rate", "normalisation")

SCHEMA: dict[str, Rule] = {
    "seed": Rule(int, low=0, high=2**31 - 1),
    "dataset.name": Rule(str),
    "dataset.data_dir": Rule(str, optional=True),
    "dataset.num_train": Rule(int, optional=True, low=1),
    "dataset.num_validation": Rule(int, low=0),
    "dataset.augment": Rule(str, choices=("none", "flip", "standard")),
    "dataset.label_noise": Rule(float, low=0, high=1),
    "dataset.resize_size": Rule(int, optional=True, low=1),
    "dataset.crop_size": Rule(int, optional=True, low=1),
    "dataset.decode_threads": Rule(int, optional=True, low=0),
    "dataset.num_workers": Rule(int, optional=True, low=0),
    "dataset.read_ahead": Rule(int, optional=True, low=1),
    "model.name": Rule(str, choices=tuple(MODEL_KEYS)),
    "model.padding": Rule(str, optional=True, choices=("same", "keras")),
    "model.depth": Rule(int, optional=True, low=1),
    "model.width": Rule(int, optional=True, low=1),
    "model.growth_rate": Rule(int, optional=True, low=1),
    "model.normalisation": Rule(
        str, optional=True, choices=("batch_norm", "skip_init", "weight_norm")
    ),
    "model.compute_dtype": Rule(str, choices=("float32", "bfloat16")),
    "optimizer.learning_rate": Rule(float, above=0),
    "optimizer.momentum": Rule(float, low=0, high=1),
    "optimizer.weight_decay": Rule(float, low=0),
    "optimizer.decay_factor": Rule(float, above=0, high=1),
    "optimizer.decay_epochs": Rule(tuple, low=1),
    "train.num_epochs": Rule(int, low=1),
    "train.batch_size": Rule(int, low=1),
    "train.microbatches": Rule(int, low=1),
    "train.init_from": Rule(str, optional=True),
    "train.deterministic": Rule(bool),
    "penalty.name": Rule(
        str,
        choices=(
            "none",
            "fisher",
            "fisher_single",
            "gradient",
            "random_label",
            "input_gradient",
            "gradient_norm",
        ),
    ),
    "penalty.draw": Rule(str, choices=("labels", "rademacher")),
    "penalty.coefficient": Rule(float, low=0),
    "penalty.update_every": Rule(int, low=1),
    "penalty.num_examples": Rule(int, optional=True, low=1),
    "penalty.start_epoch": Rule(int, low=0),
    "penalty.radius": Rule(float, above=0),
    "penalty.method": Rule(str, choices=("exact", "finite_difference")),
    "penalty.batch_norm": Rule(str, choices=("train", "eval")),
    "mixup.beta": Rule(float, low=0),
    "sam.radius": Rule(float, low=0),
    "measure.every_epochs": Rule(int, low=1),
    "measure.every_steps": Rule(int, low=0),
    "measure.train_examples": Rule(int, optional=True, low=1),
    "measure.fisher_examples": Rule(int, low=0),
    "measure.fisher_estimator": Rule(
        str, choices=("per_example", "exact", "minibatch", "forward")
    ),
    "measure.fisher_draw": Rule(str, choices=("rademacher", "labels", "importance")),
    "measure.hessian_probes": Rule(int, low=0),
    "measure.hessian_examples": Rule(int, low=1),
    "measure.hessian_every_epochs": Rule(int, low=1),
    "measure.gradient_examples": Rule(int, low=0),
    "measure.estimator_repeats": Rule(int, low=0),
    "measure.early_loss": Rule(float, above=0),
    "measure.batch_size": Rule(int, low=1),
    "measure.chunk_size": Rule(int, low=1),
    "eval.reestimate_batch_norm": Rule(int, low=0),
    "checkpoint.every_epochs": Rule(int, low=1),
    "checkpoint.min_seconds": Rule(float, low=0),
    "checkpoint.keep": Rule(int, low=1),
    "tracker": Rule(str, choices=("tensorboard", "wandb", "mlflow")),
}


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


def nearest(name: str, choices: Sequence[str]) -> str:
    """Returns "; did you mean 'x'?" for the choice nearest to ``name``, or ""."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def load_config(path: str, overrides: Sequence[tuple[str, str]] = ()) -> ConfigDict:
    """Reads, overrides and checks a configuration; the result is locked.

    Args:
        path: ``FILE.py`` or ``FILE.py:arg``, whose ``get_config(arg)`` is called (the
            file is Python code and runs), or a run's ``config.json``, which runs no
            code.
        overrides: pairs such as ("penalty.coefficient", "0.1"), applied in order.

    Raises:
        ConfigError: on anything that is wrong, in one line with the nearest valid
            choice.
    """
    flat = flatten(_read(path))
    for key, text in overrides:
        flat[key] = parse_value(key, text)
    return check_config(flat, path)


def check_config(flat: Mapping[str, Any], origin: str) -> ConfigDict:
    """Checks every key and value of {"a.b": value}; the result is nested and locked.

    Args:
        flat: with every key of SCHEMA.
        origin: where it comes from, for the error's text.

    Raises:
        ConfigError: as ``load_config``.
    """
    for key in flat:
        if key not in SCHEMA:
            raise ConfigError(f"unknown key {key!r}{nearest(key, list(SCHEMA))}")
    checked: dict[str, Any] = {}
    for key, rule in SCHEMA.items():
        if key not in flat:
            raise ConfigError(f"{origin} lacks the key {key!r}")
        checked[key] = _checked(key, flat[key], rule)
    _check_together(checked)
    return _nest(checked)


def flat_config(config: ConfigDict) -> dict[str, Any]:
    """Returns {"a.b": value} as it stands in JSON (tuples as lists)."""
    return json.loads(json.dumps(flatten(config.to_dict())))


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


def _read(path: str) -> Mapping[str, Any]:
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
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{file!r}: get_config must return a ConfigDict")
    return config.to_dict()


def _read_json(file: str) -> Mapping[str, Any]:
    try:
        content = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file!r} is not readable JSON: {error}") from error
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise ConfigError(f"{file!r} holds no 'config' object, as a run's does")
    return config


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} for {"a": {"b": value}}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, name + "."))
        else:
            flat[name] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> ConfigDict:
    config = ConfigDict()
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        if section:
            if section not in config:
                config[section] = ConfigDict()
            config[section][name] = value
        else:
            config[name] = value
    return config.lock()


def parse_value(key: str, text: str) -> Any:
    """Returns a command-line text in the key's type.

    Raises:
        ConfigError: unknown key, or a text that is not of its type.
    """
    if key not in SCHEMA:
        raise ConfigError(f"unknown key {key!r}{nearest(key, list(SCHEMA))}")
    rule = SCHEMA[key]
    if rule.optional and text.lower() in ("none", ""):
        return None
    try:
        if rule.kind is tuple:
            value = ast.literal_eval(text) if text.strip("()[], ") else ()
            return tuple(value) if isinstance(value, list | tuple) else (value,)
        if rule.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return rule.kind(text)
    except (ValueError, SyntaxError, TypeError, KeyError) as error:
        raise ConfigError(f"{key} must be {_describe(rule)}, got {text!r}") from error


def _checked(key: str, value: Any, rule: Rule) -> Any:
    """Returns the value in its exact type, or raises ConfigError."""
    if value is None and rule.optional:
        return None
    value = _as_kind(value, rule.kind)
    if value is None:
        raise ConfigError(f"{key} must be {_describe(rule)}")
    if rule.choices and value not in rule.choices:
        near = nearest(value, rule.choices)
        raise ConfigError(f"{key} must be {_describe(rule)}, got {value!r}{near}")
    for number in value if rule.kind is tuple else (value,):
        if not isinstance(number, str) and not _in_range(number, rule):
            raise ConfigError(f"{key} must be {_describe(rule)}, got {value!r}")
    return value


def _as_kind(value: Any, kind: type) -> Any:
    """The value as ``kind`` where nothing is lost, else None."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if kind is tuple:
        if not isinstance(value, list | tuple):
            return None
        items = [_as_kind(item, int) for item in value]
        return None if None in items else tuple(items)
    if kind is float and (is_integer or isinstance(value, float)):
        return float(value)
    if kind is int:
        return value if is_integer else None
    return value if isinstance(value, kind) else None


def _in_range(number: float, rule: Rule) -> bool:
    return (
        math.isfinite(number)
        and (rule.low is None or number >= rule.low)
        and (rule.above is None or number > rule.above)
        and (rule.high is None or number <= rule.high)
    )


def _describe(rule: Rule) -> str:
    if rule.choices:
        none = " or None" if rule.optional else ""
        return "one of " + ", ".join(rule.choices) + none
    names = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a text",
        tuple: "integers",
    }
    text = names[rule.kind]
    if rule.low is not None and rule.high is not None:
        text += f" from {rule.low} to {rule.high}"
    elif rule.low is not None:
        text += f" of at least {rule.low:g}"
    if rule.above is not None:
        text += f" above {rule.above:g}"
        text += f" and at most {rule.high:g}" if rule.high is not None else ""
    return text + (" or None" if rule.optional else "")


def _check_together(flat: Mapping[str, Any]) -> None:
    """Checks that concern two keys at once."""
    model = flat["model.name"]
    for key in OPTIONAL_MODEL_KEYS:
        if flat[f"model.{key}"] is not None and key not in MODEL_KEYS[model]:
            takers = [name for name, keys in MODEL_KEYS.items() if key in keys]
            raise ConfigError(
                f"model.{key} is for {', '.join(takers)}, not for {model}"
            )
    batch_size = flat["train.batch_size"]
    num_examples = flat["penalty.num_examples"]
    if num_examples is not None and num_examples > batch_size:
        raise ConfigError(
            f"penalty.num_examples ({num_examples}) exceeds train.batch_size "
            f"({batch_size})"
        )
    if flat["penalty.draw"] != "labels" and flat["penalty.name"] not in (
        "none",
        "fisher",
    ):
        raise ConfigError(
            f"penalty.draw={flat['penalty.draw']} needs penalty.name=fisher, "
            f"got {flat['penalty.name']!r}"
        )
    if (flat["penalty.name"], flat["penalty.method"]) == (
        "input_gradient",
        "finite_difference",
    ):
        raise ConfigError("penalty.name=input_gradient has penalty.method=exact only")
    if flat["penalty.name"] == "gradient_norm":
        for key in ("penalty.start_epoch", "penalty.num_examples", "sam.radius"):
            if flat[key]:
                raise ConfigError(f"penalty.name=gradient_norm has no {key}")
    epochs = flat["optimizer.decay_epochs"]
    if list(epochs) != sorted(set(epochs)):
        raise ConfigError(f"optimizer.decay_epochs must increase, got {epochs}")
    if flat["train.microbatches"] > 1 and (
        flat["sam.radius"] or flat["penalty.name"] == "gradient_norm"
    ):
        raise ConfigError("train.microbatches above 1 has no SAM and no gradient_norm")
    if flat["mixup.beta"] and flat["sam.radius"]:
        raise ConfigError("mixup.beta and sam.radius cannot both be on")
