"""The map from the paper leads to places that exist, and leaves nothing out."""

import re
from pathlib import Path

import pytest

from docs.paper_map import with_rows
from fisher_jax.report.item import all_items
from fisher_jax.train.keys import all_keys

ROOT = Path(__file__).parents[1]
KEYS = all_keys()
TEXT = (ROOT / "docs" / "paper_map.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(\w+/[\w/]+\.py)`", TEXT))))
def test_every_file_exists(path):
    top = path.split("/")[0]
    folder = (
        ROOT
        if top in ("tests", "experiments", "launch", "docs")
        else ROOT / "fisher_jax"
    )
    assert (folder / path).exists()


def test_every_function_exists():
    found = re.findall(
        r"`(curvature|penalties|baselines|measure|run_files)\.(\w+)[(`]", TEXT
    )
    functions = [(m, n) for m, n in found if f"measure.{n}" not in KEYS]
    assert len(functions) > 15
    for module, name in functions:
        imported = __import__(f"fisher_jax.{module}", fromlist=[name])
        assert callable(getattr(imported, name)), name
    in_files = re.findall(r"`\w+\.(\w+)(?:\([^`]*\))?` \(`([\w/]+\.py)`\)", TEXT)
    assert len(in_files) > 15
    named = re.findall(r"`((?:\w+/)?\w+\.py)`: `(\w+)", TEXT)
    for path, name in [*named, *((path, name) for name, path in in_files)]:
        folder = ROOT if path.startswith("launch/") else ROOT / "fisher_jax"
        assert f"def {name}(" in (folder / path).read_text(), name


def test_every_key_exists():
    groups = {key.split(".")[0] for key in KEYS}
    named = [
        name
        for name in re.findall(r"`(\w+\.\w+)(?:=\w+)?`", TEXT)
        if name.split(".")[0] in groups and not name.startswith("measure.measure_")
    ]
    assert len(named) > 10
    assert set(named) <= set(KEYS)


def test_the_rows_of_tables_and_figures_are_those_of_the_items():
    assert with_rows(TEXT) == TEXT, "run python -m docs.paper_map"


def test_every_equation_is_there():
    assert {"eq. 3 and 5", "eq. 4", "eq. 6"} <= set(
        re.findall(r"eq\. \d(?: and \d)?", TEXT)
    )


def test_every_appendix_has_one_row():
    found = re.findall(r"^\| ([A-I](?:\.\d)?) [A-Z]", TEXT, re.MULTILINE)
    expected = ["A.1", "A.2", "A.3", "A.4", "B", "C", "D", "E", "F", "G", "H"]
    assert found == [*expected, "I.1", "I.2", "I.3", "I.4"]


def test_every_row_names_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    heads = ("| in the", "| what |", "| table ", "| figure ")
    bodies = [row for row in rows if not row.startswith(heads)]
    assert len(bodies) > 25
    for row in bodies:
        assert "`tests/" in row.rsplit(" | ", 1)[1], row


def test_every_experiment_is_there_or_an_items():
    shared = {"__init__", "base", "methods", "settings", "sweeps"}
    shared |= {name for item in all_items().values() for name in item.experiments}
    for path in (ROOT / "experiments").glob("*.py"):
        assert path.stem in shared or f"`experiments/{path.name}`" in TEXT, path.name
