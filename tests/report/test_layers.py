"""What decides and what draws are kept apart."""

import ast
from pathlib import Path

import pytest

from fisher_jax.report.item import all_items
from tests.test_imports import imported_modules

REPORT = Path(__file__).parents[2] / "fisher_jax" / "report"
WITHOUT_DRAWING = ("choose", "claims", "collect", "decide", "names", "phases", "rules")
WITHOUT_DRAWING += ("permutation", "statistics", "tables", "render", "values")


@pytest.mark.parametrize("name", WITHOUT_DRAWING)
def test_what_is_computed_and_decided_imports_no_drawing(name):
    seen, todo = set(), {name}
    while todo:
        module = todo.pop()
        seen.add(module)
        modules = imported_modules(REPORT / f"{module}.py")
        assert not any(name.startswith("matplotlib") for name in modules), module
        words = [name.split(".") for name in modules]
        ours = {w[2] for w in words if w[:2] == ["fisher_jax", "report"] and w[2:]}
        todo |= {part for part in ours if (REPORT / f"{part}.py").exists()} - seen
    assert "canvas" not in seen


def test_the_engine_and_the_shared_drawings_know_no_item():
    keys = set(all_items())
    for path in [*REPORT.glob("*.py"), *(REPORT / "shapes").glob("*.py")]:
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & keys, path
        assert "report.items." not in path.read_text(), path
