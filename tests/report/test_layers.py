"""What decides and what draws are kept apart."""

import ast
from pathlib import Path

import pytest

from fisher_jax.report.item import all_items

REPORT = Path(__file__).parents[2] / "fisher_jax" / "report"
WITHOUT_DRAWING = ("choose", "claims", "collect", "decide", "names", "phases", "rules")
WITHOUT_DRAWING += ("statistics", "tables", "render")


@pytest.mark.parametrize("name", WITHOUT_DRAWING)
def test_what_is_computed_and_decided_imports_no_drawing(name):
    seen, todo = set(), [name]
    while todo:
        text = (REPORT / f"{todo.pop()}.py").read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("matplotlib")
                _, _, part = node.module.partition("fisher_jax.report.")
                if part and part not in seen:
                    seen.add(part)
                    todo.append(part)
            elif isinstance(node, ast.Import):
                assert all(a.name != "matplotlib" for a in node.names)
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
