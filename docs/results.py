"""The tables of results.md that are made from the archived runs and written into it.

    python -m docs.results

A test holds the page to them; run this where results/ or a claim's rule changes.
"""

from collections.abc import Iterator
from pathlib import Path

from fisher_jax.report.build import item_rows
from fisher_jax.report.claims import verdicts_on
from fisher_jax.report.collect import Runs, load_runs
from fisher_jax.report.decide import by_chance
from fisher_jax.report.item import Item, all_items
from fisher_jax.report.render import as_markdown, escape_markdown
from fisher_jax.report.tables import Table

PAGE = Path(__file__).with_suffix(".md")
ARCHIVE = PAGE.parents[1] / "results"
START = "<!-- Made by python -m docs.results: {} -->"
END = "<!-- End of what is made -->"


def made_parts(runs: Runs) -> dict[str, Iterator[str]]:
    """Returns the lines of each made part by its name."""
    items = all_items()
    return {
        "runs": _versions(runs),
        "claims": claims(items, runs),
        "beyond_rfp": _table(items["beyond_rfp"], runs),
        "beyond_stale": _table(items["beyond_stale"], runs),
        "beyond_estimators": _table(items["beyond_estimators"], runs),
    }


def _versions(runs: Runs) -> Iterator[str]:
    groups = runs.rows.groupby(["version_label", "device"])
    yield "| code and versions | device | runs of | number |"
    yield "|---|---|---|---|"
    for (version, device), group in groups:
        names = ", ".join(sorted(set(group["experiment"])))
        yield f"| {version} | {device} | {names} | {len(group)} |"


def claims(items: dict[str, Item], runs: Runs) -> Iterator[str]:
    """Yields how many of the paper's are decided, and a row for each that has runs.

    Claims of ours, of items that are not the paper's, have rows only.
    """
    verdicts = [
        (item, verdict)
        for item in items.values()
        for verdict in verdicts_on(item.claims, item_rows(item, runs), runs)
    ]
    with_runs = [(item, verdict) for item, verdict in verdicts if verdict.findings]
    of_paper = [verdict for item, verdict in verdicts if item.place]
    tried = [verdict for verdict in of_paper if verdict.findings]
    statuses = [verdict.status for verdict in tried]
    tested, expected = by_chance([verdict.decision for verdict in tried])
    yield (
        f"Of the paper's {len(of_paper)} claims {len(tried)} have runs: "
        f"{statuses.count('holds')} hold, {statuses.count('fails')} fail, "
        f"{statuses.count('undecided')} are undecided. {tested} could be tested at "
        f"all; if there were no effect anywhere, about {expected:.1f} of these would "
        "be decided by chance."
    )
    yield ""
    yield "| item | claim | verdict | what the runs say, by setting |"
    yield "|---|---|---|---|"
    for item, verdict in with_runs:
        found = "<br>".join(escape_markdown(f.text) for f in verdict.findings)
        claim = escape_markdown(verdict.claim)
        yield f"| {item.name} | {claim} | **{verdict.status}** | {found} |"


def _table(item: Item, runs: Runs) -> Iterator[str]:
    assert item.table is not None
    table = item.table.fill(item_rows(item, runs), runs)
    assert isinstance(table, Table)
    yield as_markdown(table, item.title, item.table.caption).strip()


def with_parts(page: str, runs: Runs) -> str:
    """Returns the page with its made parts anew."""
    for name, lines in made_parts(runs).items():
        start = START.format(name)
        before, rest = page.split(start)
        after = rest.split(END, 1)[1]
        page = "\n".join([before + start, "", *lines, "", END + after])
    return page


if __name__ == "__main__":
    PAGE.write_text(with_parts(PAGE.read_text(), load_runs([ARCHIVE])))
