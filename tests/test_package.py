"""What is installed with and without extras: imports, programs, the wheel itself."""

import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

from fisher_jax.errors import needs_extra
from fisher_jax.version import __version__
from tests.test_imports import imported_modules

ROOT = Path(__file__).parents[1]
MATHEMATICS = ("curvature", "penalties", "baselines.py")
# Not installed without extras, and slow to import where they are.
HEAVY = ["absl", "flax", "grain", "matplotlib", "ml_collections", "orbax", "pandas"]
HEAVY += ["pydantic", "rich", "sklearn", "tensorboardX", "tensorflow"]
HEAVY += ["tensorflow_datasets"]
# What the extra train brings and optax does not.
TRAIN_ONLY = [name for name in HEAVY if name != "absl"]
# Looked for, used where they are, and in extras of their own (or come with train).
OPTIONAL = {"etils", "google", "mlflow", "tensorflow", "wandb"}

DISTRIBUTIONS = {
    module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    for module, names in packages_distributions().items()
}

# Runs a module as if the packages of argv[1] were not installed.
WITHOUT = """\
import runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
hidden = set(sys.argv[1].split())
sys.meta_path.insert(0, Finder())
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def requirements(extra=None):
    """Distributions that setup.cfg declares, names as pip compares them."""
    config = configparser.ConfigParser(comment_prefixes="#")
    config.read(ROOT / "setup.cfg")
    text = (
        config["options.extras_require"][extra]
        if extra
        else config["options"]["install_requires"]
    )
    names = (re.split(r"[ >;\[]", line)[0] for line in text.splitlines() if line)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def sources(*parts):
    for part in parts:
        path = ROOT / "fisher_jax" / part
        yield from [path] if path.suffix else path.rglob("*.py")


def undeclared(paths, declared):
    """Third-party modules that files import and no declared distribution holds."""
    known = {module for module, names in DISTRIBUTIONS.items() if names & declared}
    return {
        module
        for path in paths
        for name in imported_modules(path)
        if (module := name.split(".")[0]) not in known | sys.stdlib_module_names
        if module != "fisher_jax"
    }


def test_the_mathematics_needs_what_is_always_installed():
    assert undeclared(sources(*MATHEMATICS), requirements()) == set()
    assert undeclared(sources("models"), requirements()) == {"flax"}


def test_all_else_needs_the_extra_train():
    declared = requirements() | requirements("train")
    assert undeclared((ROOT / "fisher_jax").rglob("*.py"), declared) <= OPTIONAL


def test_nothing_is_required_that_is_not_imported():
    used = {
        distribution
        for path in sources(*MATHEMATICS)
        for name in imported_modules(path)
        for distribution in DISTRIBUTIONS.get(name.split(".")[0], ())
    }
    assert requirements() - {"jaxlib"} <= used


@pytest.mark.parametrize("module", ["curvature", "penalties"])
def test_importing_the_mathematics_brings_nothing_heavy(module):
    code = (
        f"import sys; import fisher_jax.{module}\n"
        f"print({{m.partition('.')[0] for m in sys.modules}} & set({TRAIN_ONLY}))"
    )
    assert python("-c", code) == (0, "set()\n")


@pytest.mark.parametrize(
    "program",
    [
        ["main", "--config=experiments/digits_fp.py", "--workdir=nowhere"],
        ["fisher_jax.report", "results", "--out=nowhere"],
        ["fisher_jax.report", "compare", "results"],
        ["fisher_jax.data.prepare", "cifar10", "--data_dir=nowhere"],
        ["launch.sweep", "--config=experiments/table1.py:small", "--out=nowhere"],
        ["launch.demo", "nowhere"],
        ["launch.rerun", "nowhere"],
    ],
    ids=" ".join,
)
def test_programs_without_their_extra_say_so_in_one_line(program):
    code, output = python("-c", WITHOUT, " ".join(HEAVY), *program)
    assert code == 2
    assert re.fullmatch(
        r"error: \w+ is not installed; it comes with the extra (train|prepare): "
        r"pip install -e '\.\[\1\]' in a clone\n",
        output,
    ), output
    assert not (ROOT / "nowhere").exists()


def test_a_mistake_of_ours_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError), needs_extra("train"):
        importlib.import_module("fisher_jax.no_such_module")


def test_the_version_is_semantic_and_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def python(*arguments, executable=sys.executable, folder=ROOT):
    """Runs Python; returns exit code and all output."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(executable), *arguments],
        cwd=folder,
        env=environment | ({"PYTHONPATH": str(ROOT)} if folder == ROOT else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A wheel, and the Python of an environment with it and no extra."""
    folder = tmp_path_factory.mktemp("package")
    pip = ["-m", "pip", "--disable-pip-version-check", "-q"]
    # A copy, as setuptools would put what an earlier build/ holds into the wheel.
    source = folder / "source"
    shutil.copytree(
        ROOT / "fisher_jax",
        source / "fisher_jax",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code, output = python(
        *pip, "wheel", "--no-deps", f"--wheel-dir={folder}", "./source", folder=folder
    )
    assert code == 0, output
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=True)
    executable = folder / "environment" / "bin" / "python"
    series = "py311" if sys.version_info[:2] == (3, 11) else "py312"
    constraints = ROOT / "constraints" / f"{series}.txt"
    code, output = python(
        *pip,
        *("install", "-c", str(constraints), str(wheel)),
        executable=executable,
        folder=folder,
    )
    assert code == 0, output
    return wheel, executable


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_types_and_no_more(installed):
    names = ZipFile(installed[0]).namelist()
    assert {name.split("/")[0] for name in names} == {
        "fisher_jax",
        f"fisher_jax-{__version__}.dist-info",
    }
    assert "fisher_jax/py.typed" in names
    tracked = subprocess.run(
        ["git", "ls-files", "fisher_jax"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert {n for n in names if n.startswith("fisher_jax/")} == set(tracked)


@pytest.mark.slow
def test_the_readme_runs_on_the_wheel_alone(installed, tmp_path):
    readme = (ROOT / "README.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL))
    check = "\nimport fisher_jax; print('from', fisher_jax.__file__)"
    status, output = python(
        "-c", code + check, executable=installed[1], folder=tmp_path
    )
    assert status == 0, output
    assert str(installed[1].parents[1]) in output.splitlines()[-1]


@pytest.mark.slow
def test_the_report_on_the_wheel_alone_asks_for_its_extra(installed, tmp_path):
    status, output = python(
        *("-m", "fisher_jax.report", "runs", "--out=report"),
        executable=installed[1],
        folder=tmp_path,
    )
    assert status == 2
    assert "pip install -e '.[train]' in a clone" in output


@pytest.mark.slow
def test_curvature_is_imported_in_less_than_300_ms_beyond_jax(installed, tmp_path):
    code = (
        "import time, jax; start = time.process_time()\n"
        "import fisher_jax.curvature; print(time.process_time() - start)"
    )
    times = [
        float(python("-c", code, executable=installed[1], folder=tmp_path)[1])
        for _ in range(5)
    ]
    assert min(times) < 0.3, times
