"""Imports point down only: curvature <- penalties <- train <- main."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part may import of ours; a part may always import itself and errors.
ALLOWED = {
    "errors": set(),
    "host": set(),
    "version": set(),
    "axes": set(),
    "trees": set(),
    "programs": set(),
    "compiled": {"programs"},
    "loops": {"axes", "programs"},
    "curvature": {"axes", "compiled", "loops", "programs", "trees"},
    "penalties": {"axes", "curvature", "loops", "programs", "trees"},
    "baselines": {"axes", "trees"},
    "models": set(),
    "data": {"host"},
    "parallel": set(),
    "startup": {"host", "parallel"},
    "liveness": set(),
    "measure": {"axes", "curvature", "data", "parallel", "trees"},
    "estimator_errors": {"curvature"},
    "report": {"host", "run_files"},
    "run_files": set(),
    "train": {
        "axes",
        "baselines",
        "curvature",
        "data",
        "estimator_errors",
        "host",
        "liveness",
        "loops",
        "measure",
        "models",
        "parallel",
        "penalties",
        "run_files",
        "startup",
        "trees",
    },
}
# What curvature and penalties stand on: JAX alone.
FOUNDATIONS = ("axes", "compiled", "loops", "programs", "trees")


def imported_modules(path: Path) -> set[str]:
    """Returns what a file imports, anywhere in it: dotted names, with what is taken."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_parts(path: Path) -> set[str]:
    """Returns the second words of all ``fisher_jax.X`` imports in a file."""
    names = imported_modules(path)
    return {name.split(".")[1] for name in names if name.startswith("fisher_jax.")}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "fisher_jax").parts[0].removesuffix(".py")


SOURCES = [
    path
    for path in sorted((ROOT / "fisher_jax").rglob("*.py"))
    if path != ROOT / "fisher_jax" / "__init__.py"
]


def test_every_part_has_a_rule():
    assert {part_of(path) for path in SOURCES} <= set(ALLOWED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    part = part_of(path)
    assert imported_parts(path) - {part, "errors", "version"} <= ALLOWED[part]


def test_an_upward_import_would_be_seen(tmp_path):
    source = tmp_path / "module.py"
    source.write_text("from fisher_jax.train import loop\nimport fisher_jax.data\n")
    assert imported_parts(source) == {"train", "data"}


def test_curvature_and_what_it_stands_on_know_jax_and_nothing_else():
    known = {"jax", "jaxtyping", "matfree", "numpy"}
    standard = {
        "collections",
        "contextlib",
        "dataclasses",
        "functools",
        "inspect",
        "itertools",
        "math",
        "operator",
        "types",
        "typing",
        "warnings",
        "weakref",
    }
    package = ROOT / "fisher_jax"
    foundations = [package / f"{name}.py" for name in FOUNDATIONS]
    for path in [*foundations, *(package / "curvature").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                assert module.split(".")[0] in known | standard | {"fisher_jax"}, path


def private_names(path: Path) -> set[str]:
    """Returns the underscored names of curvature that a file imports."""
    names = imported_modules(path)
    return {name for name in names if name.startswith("fisher_jax.curvature._")}


def test_private_modules_of_curvature_are_imported_by_curvature_only():
    programs = [
        path
        for folder in ("benchmarks", "experiments", "launch", "fisher_jax")
        for path in (ROOT / folder).rglob("*.py")
        if path.parent != ROOT / "fisher_jax" / "curvature"
    ]
    assert not [path for path in programs if private_names(path)]
    fisher = ROOT / "fisher_jax" / "curvature" / "fisher.py"
    assert "fisher_jax.curvature._norms" in private_names(fisher)


def test_only_tests_import_tests():
    for folder in ("fisher_jax", "launch", "experiments", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            modules = imported_modules(path)
            assert not any(name.split(".")[0] == "tests" for name in modules), path
