"""Every tutorial runs as a script, and as the notebook that it also is.

Tutorials check what they claim in cells tagged "check", which the site leaves out.
"""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiers import some

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
# The others take up to a minute of CPU each.
FAST = [path for path in TUTORIALS if path.name.startswith("01_")]


def run(command, **options):
    completed = subprocess.run(
        command,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )
    assert completed.returncode == 0, completed.stderr[-4000:]


@pytest.mark.parametrize("path", some(TUTORIALS, FAST), ids=lambda path: path.stem)
def test_a_tutorial_runs_as_a_script(path, tmp_path):
    run([sys.executable, str(path)], cwd=tmp_path)


@pytest.mark.slow
def test_a_tutorial_runs_as_a_notebook(tmp_path):
    for package in ("jupytext", "nbclient", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} ABSENT (extra docs): no notebook is executed")
    import jupytext
    import nbclient

    notebooks = [jupytext.read(path) for path in TUTORIALS]
    for notebook in notebooks:
        kinds = [cell.cell_type for cell in notebook.cells]
        assert kinds[0] == "markdown"
        assert kinds.count("code") >= 3
    os.environ["PYTHONPATH"] = str(ROOT)
    nbclient.NotebookClient(
        notebooks[0], resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [o for c in notebooks[0].cells for o in c.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_what_a_tutorial_imports_of_ours_is_there(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fisher_jax"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module}.{name.name}"
