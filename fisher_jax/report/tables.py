"""What a finished table is: ours as mean ± std over seeds, beside published values."""

from typing import NamedTuple

from fisher_jax.report.statistics import Summary


class Published(NamedTuple):
    """One printed value; ``std`` where the paper gives one."""

    value: float
    std: float | None = None


class Cell(NamedTuple):
    """A mean over runs; without ``ours`` the ``reason`` says why."""

    ours: Summary | None
    published: Published | None
    reason: str = ""
    notes: tuple[str, ...] = ()
    is_best: bool = False
    is_green: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the published value."""
        if self.ours is None or self.published is None:
            return None
        return self.ours.mean - self.published.value


class Row(NamedTuple):
    """A label and what stands in each column: a cell of numbers, or a text."""

    label: str
    cells: tuple[Cell | str, ...]


class Table(NamedTuple):
    """A finished table; the first column is that of the rows' labels.

    Attributes:
        columns: methods by key, which a page and LaTeX show by name, or titles.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    run_count: int
    notes: tuple[str, ...] = ()
    label: str = "setting"
    decimals: int = 2

    @property
    def is_text(self) -> bool:
        """Whether it holds no cell of numbers."""
        return all(isinstance(cell, str) for row in self.rows for cell in row.cells)
