"""index.html: one self-contained page with everything, for screen, phone and print."""

import base64
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from fisher_jax.report import render
from fisher_jax.report.claims import Verdict
from fisher_jax.report.collect import INCOMPLETE
from fisher_jax.report.decide import UNDECIDED, by_chance
from fisher_jax.report.entry import Entry, Picture, Report
from fisher_jax.report.names import method_label
from fisher_jax.report.tables import Cell, Table
from fisher_jax.run_files import DIVERGED, FINISHED

_KIND = ["experiment", "form", "is_in_sweep", "config_file"]
MAX_PROBLEMS = 50  # shown; the rest is counted


def write_page(report: Report, path: Path) -> None:
    """Writes the page; every text out of runs is escaped by the template engine."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fisher_jax.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html.j2").render(page_content(report))
    path.write_text(text, encoding="utf-8")


def page_content(report: Report) -> dict[str, Any]:
    """Returns the template's variables: strings and numbers only."""
    rows = report.runs.rows
    problems = report.runs.problems
    return {
        "command": report.command,
        "facts": _facts(rows),
        "chance": chance(report),
        "items": [_item_content(e, rows) for e in report.entries if _is_shown(e)],
        "missing": [(e.item.name, e.missing) for e in report.entries if e.missing],
        "verdicts": [
            _verdict_content(verdict, entry)
            for entry in report.entries
            for verdict in entry.verdicts
            if verdict.findings
        ],
        "without_runs": [
            (entry.item.name, verdict.claim)
            for entry in report.entries
            for verdict in entry.verdicts
            if not verdict.findings
        ],
        "versions": _versions(rows),
        "problems": problems[:MAX_PROBLEMS],
        "more_problems": max(0, len(problems) - MAX_PROBLEMS),
        "sweeps": _sweeps(rows),
    }


def chance(report: Report) -> str:
    """Returns how many claims were tested, and how many chance alone would decide."""
    claims = [v.decision for entry in report.entries for v in entry.verdicts]
    tested, expected = by_chance(claims)
    decided = sum(decision.status != UNDECIDED for decision in claims)
    if not tested:
        return f"None of {len(claims)} claims could be tested on these runs."
    return (
        f"{tested} of {len(claims)} claims were tested, and {decided} are decided. If "
        f"there were no effect anywhere, about {expected:.1f} would be decided by "
        "chance, half of them as holding."
    )


def command_for(
    experiment: str, *, form: str, is_in_sweep: bool, file: str = ""
) -> str:
    """Returns the command that makes an experiment's runs.

    Args:
        file: where the runs' configuration was, "" for experiments/.
    """
    name = experiment or "EXPERIMENT"
    file = file or f"experiments/{name}.py"
    if not is_in_sweep:
        return f"python main.py --config={file}:VARIANT --workdir=runs/{name}"
    config = f"{file}{f':{form}' if form else ''}"
    out = f"runs/{name}{f'_{form}' if form else ''}"
    return f"python -m launch.sweep --config={config} --out={out}"


def duration(seconds: float) -> str:
    """Returns a time in the two largest of days, hours, minutes and seconds."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _is_shown(entry: Entry) -> bool:
    return entry.table is not None or entry.picture is not None


def _verdict_content(verdict: Verdict, entry: Entry) -> dict[str, Any]:
    """A claim; its findings are also counted, as "3 settings: holds 2, undecided 1"."""
    statuses = [finding.decision.status for finding in verdict.findings]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    words = ", ".join(f"{status} {count}" for status, count in counts.items())
    why = f" ({verdict.reason})" if verdict.reason else ""
    return {
        "claim": verdict.claim,
        "status": verdict.status,
        "reason": verdict.reason,
        "findings": [finding.text for finding in verdict.findings],
        "summary": f"{len(statuses)} settings: {words}{why}",
        "name": entry.item.name,
        "key": entry.key if _is_shown(entry) else "",
    }


def _facts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    counts = rows["status"].value_counts()
    ends = [f"{counts.get(FINISHED, 0)} finished"]
    ends += [f"{counts[s]} {w}" for s, w in _OTHER_ENDS if counts.get(s)]
    devices = rows["device"].value_counts()
    return [
        ("Runs", f"{len(rows)}: " + ", ".join(ends)),
        (
            "Experiments",
            ", ".join(sorted(set(rows["experiment"]) - {""})) or "unknown",
        ),
        ("Total time of all runs", duration(float(rows["seconds"].sum()))),
        ("Devices", ", ".join(f"{n} ({c} runs)" for n, c in devices.items())),
        ("Code versions", str(rows["version"].nunique())),
    ]


_OTHER_ENDS = ((DIVERGED, "diverged"), (INCOMPLETE, "not ended"))


def _versions(rows: pd.DataFrame) -> list[dict[str, Any]]:
    versions = []
    for _, group in rows.groupby("version", sort=False):
        experiments = ", ".join(sorted(set(group["experiment"]) - {""}))
        label = group["version_label"].iloc[0]
        versions.append(
            {"label": label, "runs": len(group), "experiments": experiments}
        )
    return sorted(versions, key=lambda row: -row["runs"])


def _sweeps(rows: pd.DataFrame) -> list[dict[str, Any]]:
    sweeps = []
    for keys, group in rows.groupby(_KIND):
        experiment, form, is_in_sweep, file = keys
        counts = group["status"].value_counts()
        sweeps.append(
            {
                "name": (experiment or "unknown") + (f" ({form})" if form else ""),
                "runs": len(group),
                "finished": int(counts.get(FINISHED, 0)),
                "diverged": int(counts.get(DIVERGED, 0)),
                "incomplete": int(counts.get(INCOMPLETE, 0)),
                "seconds": float(group["seconds"].sum()),
                "time": duration(float(group["seconds"].sum())),
                "command": command_for(
                    experiment, form=form, is_in_sweep=is_in_sweep, file=file
                ),
            }
        )
    return sweeps


def _commands(experiments: tuple[str, ...], rows: pd.DataFrame) -> list[str]:
    """The commands of the experiments, () for all, that runs were found of."""
    found = rows[rows["experiment"].isin(experiments)] if experiments else rows
    return [
        command_for(name, form=form, is_in_sweep=bool(in_sweep), file=file)
        for name, form, in_sweep, file in sorted(found.groupby(_KIND).groups)
    ]


def _item_content(entry: Entry, rows: pd.DataFrame) -> dict[str, Any]:
    item = entry.item
    counts = [part.run_count for part in (entry.table, entry.picture) if part]
    return {
        "key": entry.key,
        "name": item.name,
        "title": item.title,
        "place": item.place,
        "verdicts": [_verdict_content(v, entry) for v in entry.verdicts],
        "table": _table_content(entry.table) if entry.table else None,
        "table_caption": item.table.caption if item.table else "",
        "picture": _picture_content(entry.picture) if entry.picture else None,
        "caption": item.figure.caption if item.figure else "",
        "alt": item.figure.alt if item.figure else "",
        "run_count": max(counts),
        "commands": _commands(item.experiments, rows),
    }


def _picture_content(picture: Picture) -> dict[str, Any]:
    data = base64.b64encode(picture.png.read_bytes()).decode()
    return picture._asdict() | {"data": data}


def _table_content(table: Table) -> dict[str, Any]:
    marks = render.Notes()
    rows = [
        {
            "label": row.label,
            "cells": [_cell_content(c, table.decimals, marks) for c in row.cells],
        }
        for row in table.rows
    ]
    return {
        "label": table.label,
        "columns": [
            {"label": method_label(column), "kind": _kind(table, index)}
            for index, column in enumerate(table.columns)
        ],
        "rows": rows,
        "marks": list(marks),
        "notes": table.notes,
    }


def _kind(table: Table, column: int) -> str:
    """Whether a column is sorted as numbers or as text."""
    cells = [row.cells[column] for row in table.rows]
    is_text = all(isinstance(c, str) for c in cells) and any(map(_is_word, cells))
    return "text" if is_text else "number"


def _is_word(cell: Cell | str) -> bool:
    if not isinstance(cell, str) or cell in ("", "–"):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _cell_content(
    cell: Cell | str, decimals: int, marks: render.Notes
) -> dict[str, Any]:
    if isinstance(cell, str):
        cell_text, numbers = cell, Cell(None, None)
        sort, used = cell, []
    else:
        cell_text, numbers = render.summary_text(cell.ours, decimals), cell
        sort = "" if cell.ours is None else repr(cell.ours.mean)
        used = marks.marks(cell)
    return {
        "ours": cell_text,
        "n": 0 if numbers.ours is None else numbers.ours.n,
        "sort": sort,
        "published": render.published_text(numbers.published, decimals),
        "difference": render.difference_text(numbers, decimals),
        "is_best": numbers.is_best,
        "is_green": numbers.is_green,
        "marks": used,
    }
