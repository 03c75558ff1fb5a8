"""Tuned values: what the sweeps' searches chose, from selection.json beside runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import pandas as pd

from fisher_jax.report.collect import Runs
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.tables import Row, Table
from fisher_jax.run_files import read_json


def _fill(rows: pd.DataFrame, runs: Runs) -> Table | str:
    """A line for each search of the sweeps that runs come from."""
    lines = []
    parents = rows.groupby(rows["path"].map(lambda path: str(Path(path).parent)))
    for folder, group in parents:
        form = str(group["form"].iloc[0])
        label = f"{group['experiment'].iloc[0]}{f' ({form})' if form else ''}"
        lines += [Row(label, c) for c in _lines(Path(folder) / "selection.json")]
    if not lines:
        return "no sweep with a search"
    columns = ("search", "key", "chosen", "grid", "by", "score", "edge")
    num_searched = int(rows["stage"].eq("search").sum())
    return Table(columns, tuple(lines), num_searched, label="sweep")


def _lines(path: Path) -> Iterator[tuple[str, ...]]:
    for search, entry in read_json(path).items():
        if not isinstance(entry, dict) or not isinstance(entry.get("candidates"), list):
            continue
        candidates = [c for c in entry["candidates"] if isinstance(c, dict)]
        grid = sorted(v for c in candidates if _is_number(v := c.get("value")))
        scores = [
            c.get("score") for c in candidates if c.get("run") == entry.get("run")
        ]
        score = scores[0] if scores and _is_number(scores[0]) else None
        yield (
            str(search),
            str(entry.get("key", "–")),
            _text(entry.get("value")),
            f"{grid[0]:g} to {grid[-1]:g} ({len(grid)})" if grid else "–",
            str(entry.get("by", "–")).replace("_", " "),
            f"{100 * score:.2f}%" if _is_number(score) else "–",
            "at the edge" if entry.get("at_edge") else "",
        )


def _text(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else "–"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


ITEM = Item(
    name="Tuned values",
    title="What the searches chose",
    place="",
    experiments=(),
    table=TablePart(
        _fill,
        "Learning rates and coefficients that won a sweep's search, with their grid. A "
        "winner at the edge of its grid is marked: a wider one may do better.",
    ),
)
