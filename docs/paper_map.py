"""The rows of paper_map.md that are made from report/items and written into it.

    python -m docs.paper_map

A test holds the page to them; run this where an item's title, place or runs change.
"""

from collections.abc import Iterator
from pathlib import Path

from fisher_jax.report.item import all_items

PAGE = Path(__file__).with_suffix(".md")
START, END = "<!-- Made by python -m docs.paper_map -->", "<!-- End of what is made -->"


def rows() -> Iterator[str]:
    """Yields the table's lines: an item of the paper each, in its order."""
    yield "| in the paper | what | runs of | declared in |"
    yield "|---|---|---|---|"
    for key, item in all_items().items():
        if item.place:
            runs = ", ".join(f"`experiments/{name}.py`" for name in item.experiments)
            yield (
                f"| {item.name.lower()}, {item.place} | {item.title} | {runs} "
                f"| `report/items/{key}.py` |"
            )


def with_rows(page: str) -> str:
    """Returns the page with its made rows anew."""
    before, rest = page.split(START)
    after = rest.split(END)[1]
    return "\n".join([before + START, "", *rows(), "", END + after])


if __name__ == "__main__":
    PAGE.write_text(with_rows(PAGE.read_text()))
