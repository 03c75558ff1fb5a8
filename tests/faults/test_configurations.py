"""Configurations at random, hostile ones among them: they run, or get one line."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fisher_jax.errors import UserError
from fisher_jax.train.config import flat_config, load_config
from fisher_jax.train.keys import all_keys
from tests.command import ROOT

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(
        ["", "../../etc/passwd", "$(reboot)", "a\nb", "\x00", "None", "nan", "1e999"]
    ),
    st.lists(st.integers(-5, 5), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)

KEYS = all_keys()

# What keeps a run that is allowed to happen short.
SMALL = {
    "dataset.name": "digits",
    "dataset.num_train": 32,
    "dataset.num_validation": 8,
    "train.num_epochs": 1,
    "train.batch_size": 16,
    "model.name": "simple_cnn",
    "measure.fisher_examples": 4,
    "measure.hessian_examples": 4,
    "measure.gradient_examples": 4,
    "measure.train_examples": 16,
    "measure.every_epochs": 1,
}


def sensible(key):
    """Values that a key allows, small ones."""
    if key.choices:
        values = st.sampled_from(key.choices)
    elif key.kind == "boolean":
        values = st.booleans()
    elif key.kind == "integer":
        low = int(key.low or 0)
        values = st.integers(low, low + 3)
    elif key.kind == "number":
        low = key.low if key.low is not None else (key.above or 0.0)
        high = key.high if key.high is not None else low + 2.0
        values = st.floats(low, high, exclude_min=key.above is not None)
    elif key.kind == "array":
        values = st.lists(st.integers(1, 5), max_size=2, unique=True).map(
            lambda items: tuple(sorted(items))
        )
    else:
        values = st.sampled_from(["digits", "cifar10", "no_such_set", "/nowhere"])
    return st.one_of(st.none(), values) if key.is_optional else values


@st.composite
def configurations(draw):
    """A small run with a few keys changed: sensibly, wildly, misspelt or left out."""
    flat = base_config() | SMALL
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=4)):
        flat[key] = draw(sensible(KEYS[key]))
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=2)):
        if draw(st.integers(0, 3)) == 0:
            flat[key] = draw(HOSTILE)
    if draw(st.integers(0, 9)) == 0:
        flat[draw(st.text(max_size=12))] = draw(HOSTILE)
    if draw(st.integers(0, 19)) == 0:
        del flat[draw(st.sampled_from(sorted(flat)))]
    return flat


def base_config():
    return flat_config(load_config("experiments/base.py"))


def write(flat, path):
    """The file as a stranger may have written it: nested by the dots of its keys."""
    nested = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                return False
        place[name] = value
    path.write_text(json.dumps({"config": nested}))
    return True


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(flat=configurations())
def test_a_configuration_is_taken_or_refused_in_one_line(tmp_path_factory, flat):
    path = tmp_path_factory.mktemp("config") / "config.json"
    if not write(flat, path):
        return
    with contextlib.suppress(UserError):
        load_config(str(path))


# Runs some configurations in one process, for the compiled programs to be shared;
# prints a line for each. A hang ends with the process's time.
PER_PROCESS = 50  # a process that compiles much more runs out of memory mappings
RUNNER = """
import json, sys, traceback
from fisher_jax.errors import UserError, one_line
from fisher_jax.train.command_line import CommandLine, Processes
from fisher_jax.train.config import load_config
from fisher_jax.train.run import run
for line in sys.stdin:
    path, workdir = line.split()
    command = CommandLine(path, [], workdir, Processes(), range(0), ["main.py"])
    try:
        code, text = run(load_config(path), command), ""
    except UserError as error:
        code, text = 2, one_line(error)
    except BaseException as error:
        code, text = 1, traceback.format_exc()
    print("RESULT", json.dumps([path, code, text]), flush=True)
"""


def run_all(paths):
    """Runs the configurations in one process; returns [path, exit code, text] each."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        input="".join(f"{path} {path.with_suffix('')}\n" for path in paths),
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    found = [
        json.loads(line.removeprefix("RESULT "))
        for line in done.stdout.splitlines()
        if line.startswith("RESULT ")
    ]
    assert len(found) == len(paths), done.stderr[-2000:]
    return found


@pytest.mark.slow
def test_five_hundred_configurations_run_or_are_refused(tmp_path, fault):
    tally = fault("generated configurations")
    paths = []

    @settings(
        max_examples=520,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(flat=configurations())
    def collect(flat):
        path = tmp_path / f"{len(paths)}.json"
        if len(paths) < 500 and write(flat, path):
            paths.append(path)

    collect()
    found = []
    for first in range(0, len(paths), PER_PROCESS):
        found += run_all(paths[first : first + PER_PROCESS])
    lost = []
    for path, code, text in found:
        tally.tried()
        if code in (0, 3) or (code == 2 and text and "\n" not in text):
            tally.survived()
        else:
            lost.append((path, code, text[-2000:]))
    assert not lost, lost[0]
    assert len(found) == len(paths) >= 450
    codes = [code for _, code, _ in found]
    assert codes.count(0) > 50  # many must run, or nothing is shown
    assert codes.count(2) > 50


def test_a_saved_configuration_runs_no_code(tmp_path):
    """Only JSON is read of it, whatever it says."""
    text = "__import__('os').system('touch %s')" % (tmp_path / "ran")
    path = tmp_path / "config.json"
    write(base_config() | {"dataset.name": text, "model.name": text}, path)
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(UserError):
        load_config(str(path))
    assert not (tmp_path / "ran").exists()
