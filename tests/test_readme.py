"""The README does what it says: its Python runs, its files and commands exist."""

import re
import shlex

import jax
import numpy as np
import pytest

from benchmarks import summary
from fisher_jax.curvature import fisher_trace
from fisher_jax.train.config import load_config, split_overrides


@pytest.fixture(scope="module")
def readme(request):
    return (request.config.rootpath / "README.md").read_text()


def blocks(readme, language):
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def test_the_python_runs_and_gives_what_it_names(readme):
    yours, added = blocks(readme, "python")
    assert len([line for line in added.splitlines() if line.strip()]) <= 10
    names = {}
    exec(yours + added, names)
    traces = names["traces"]
    # A ReLU network: both estimate one number, here with 30 probes.
    fisher, hessian = traces
    exact = fisher_trace(
        names["logits_fn"], names["params"], names["inputs"], estimator="exact"
    )
    assert abs(fisher.mean - exact.mean) < 5 * fisher.sem
    assert abs(hessian.mean - exact.mean) < 5 * hessian.sem
    penalty_gradient = jax.grad(names["penalty_fn"])(names["params"])
    for name, gradient in names["gradient"].items():
        np.testing.assert_allclose(
            names["updates"][name],
            -0.01 * (gradient + 0.1 * penalty_gradient[name]),
            rtol=1e-4,
            atol=1e-6,
        )


def test_every_main_command_has_a_valid_configuration(readme, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    shell = "\n".join(blocks(readme, "sh")).replace("\\\n", " ")
    commands = [line for line in shell.splitlines() if line.startswith("python main")]
    assert commands
    for command in commands:
        rest, overrides = split_overrides(shlex.split(command)[2:])
        flags = dict(argument.lstrip("-").split("=", 1) for argument in rest)
        assert flags.keys() <= {"config", "workdir"}
        load_config(flags["config"], overrides)


def test_every_make_target_and_file_exists(readme, request):
    root = request.config.rootpath
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\b(?:experiments|constraints)/[\w.]+", readme):
        assert (root / path).exists(), path


def test_two_commands_come_first(readme):
    assert blocks(readme, "sh")[0].split()[:2] == ["make", "demo"]
    assert "make test" in blocks(readme, "sh")[0]


def test_the_tables_of_speed_are_the_benchmarks(readme):
    tables = summary.tables()
    assert f"{summary.BEGIN}\n{tables}\n{summary.END}" in readme
    assert tables.count("| gradient |") == 2
    assert "PyHessian" in tables
