"""What came of an item: what build.py makes and page.py shows."""

from pathlib import Path
from typing import NamedTuple

from fisher_jax.report.claims import Verdict
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import Item
from fisher_jax.report.tables import Table


class Picture(NamedTuple):
    """A figure as it was written."""

    png: Path
    run_count: int
    notes: tuple[str, ...]
    width: int  # pixels
    height: int


class Entry(NamedTuple):
    """An item and what came of it; ``missing`` says why where nothing did."""

    key: str
    item: Item
    verdicts: tuple[Verdict, ...]
    table: Table | None = None
    picture: Picture | None = None
    missing: str = ""


class Report(NamedTuple):
    """Everything that was made."""

    runs: Runs
    entries: tuple[Entry, ...]
    command: str
