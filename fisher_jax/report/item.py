"""What a file of ``items`` declares, and how the engine finds and orders them."""

import pkgutil
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import pandas as pd

from fisher_jax.report import items
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.tables import Table


class FigurePart(NamedTuple):
    """How an item is drawn.

    Attributes:
        draw: from the item's runs, a row each and never none, and all runs; or a
            sentence on why there is nothing to draw.
        caption: stands below it.
        alt: what is seen, for those who do not see it.
        shows_fisher_trace: an axis is Tr(F), so that the errors of its estimates are
            told below.
    """

    draw: Callable[[pd.DataFrame, Runs], Drawing | str]
    caption: str
    alt: str
    shows_fisher_trace: bool = False


class TablePart(NamedTuple):
    """How an item's table is filled: as ``FigurePart``."""

    fill: Callable[[pd.DataFrame, Runs], Table | str]
    caption: str


class Item(NamedTuple):
    """One table or figure, of the paper or of ours.

    Attributes:
        name: "Table 3"; names without a number stand behind the paper's.
        title: what is shown; whether the paper's claim holds is for the verdict.
        place: the paper's section, as "section 4.1" or "appendix A.3"; "" for ours.
        experiments: files of experiments/ whose runs it takes; (): all runs.
        published: the paper's values, by keys of the item's own, for those who read
            items; the table and the figure hold what they show themselves.
        claims: what the paper concludes from it.
    """

    name: str
    title: str
    place: str
    experiments: tuple[str, ...]
    figure: FigurePart | None = None
    table: TablePart | None = None
    claims: tuple[Claim, ...] = ()
    published: Mapping[Any, Any] | None = None


def all_items() -> dict[str, Item]:
    """Returns every module's ITEM by the module's name: tables, figures, then others.

    Raises:
        AttributeError: a module of ``items`` has none.
    """
    names = [module.name for module in pkgutil.iter_modules(items.__path__)]
    found = {name: import_module(f"{items.__name__}.{name}").ITEM for name in names}
    return dict(sorted(found.items(), key=lambda pair: _order(pair[1])))


def _order(item: Item) -> tuple[bool, str, int, str]:
    numbered = re.fullmatch(r"(Table|Figure) (\d+)", item.name)
    if numbered is None:
        return True, "", 0, item.name
    # "Table" before "Figure".
    return False, "" if numbered[1] == "Table" else numbered[1], int(numbered[2]), ""
