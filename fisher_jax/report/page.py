"""index.html: one self-contained page with everything, for screen, phone and print."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from fisher_jax.report import render
from fisher_jax.report.beyond_tables import TextTable
from fisher_jax.report.claims import Verdict
from fisher_jax.report.collect import Runs
from fisher_jax.report.names import method_label
from fisher_jax.report.quantities import DIVERGED, FINISHED, INCOMPLETE
from fisher_jax.report.tables import Cell, Table

_KIND = ["experiment", "is_small", "is_in_sweep"]
MAX_PROBLEMS = 50  # shown; the rest is counted


class DrawnFigure(NamedTuple):
    """A figure as the page shows it."""

    key: str
    title: str
    caption: str
    alt: str
    experiments: tuple[str, ...]
    run_count: int
    notes: tuple[str, ...]
    png: bytes
    width: int
    height: int


class Report(NamedTuple):
    """Everything that the page shows."""

    runs: Runs
    tables: tuple[Table, ...]
    text_tables: tuple[TextTable, ...]
    figures: tuple[DrawnFigure, ...]
    missing: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    command: str


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
    table = report.runs.table
    problems = report.runs.problems
    shown = {t.key for t in report.tables} | {t.key for t in report.text_tables}
    shown |= {f.key for f in report.figures}
    return {
        "command": report.command,
        "facts": _facts(table),
        "verdicts": [_verdict_content(v, shown) for v in report.verdicts],
        "text_tables": [_text_content(t, table) for t in report.text_tables],
        "tables": [_table_content(t, table) for t in report.tables],
        "figures": [_figure_content(f, table) for f in report.figures],
        "missing": [(item_name(k), why) for k, why in report.missing.items()],
        "versions": _versions(table),
        "problems": problems[:MAX_PROBLEMS],
        "more_problems": max(0, len(problems) - MAX_PROBLEMS),
        "sweeps": _sweeps(table),
    }


def item_name(key: str) -> str:
    """Returns "Table 1", "Figure 21" or "Beyond: rfp" for a key."""
    for word in ("table", "figure"):
        if key.startswith(word):
            return f"{word.capitalize()} {key.removeprefix(word)}"
    if key == "tuned":
        return "Tuned values"
    words = key.removeprefix("beyond_").replace("_", " ").replace("rfp", "RFP")
    return f"Beyond the paper: {words}"


def command_for(experiment: str, *, is_small: bool, is_in_sweep: bool) -> str:
    """Returns the command that makes an experiment's runs."""
    name = experiment or "EXPERIMENT"
    if not is_in_sweep:
        config = f"experiments/{name}.py:VARIANT"
        return f"python main.py --config={config} --workdir=runs/{name}"
    config = f"experiments/{name}.py{':small' if is_small else ''}"
    out = f"runs/{name}{'_small' if is_small else ''}"
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


def _verdict_content(verdict: Verdict, shown: set[str]) -> dict[str, Any]:
    """A claim; its findings are also counted, as "3 settings: holds 2, unclear 1"."""
    ends = [finding.rpartition(": ")[2] for finding in verdict.findings]
    counts = {end: ends.count(end) for end in dict.fromkeys(ends)}
    words = ", ".join(f"{end} {count}" for end, count in counts.items())
    links = [(item_name(key), key if key in shown else "") for key in verdict.items]
    summary = f"{len(ends)} settings: {words}"
    return verdict._asdict() | {"links": links, "summary": summary}


def _facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    counts = table["status"].value_counts()
    ends = [f"{counts.get(FINISHED, 0)} finished"]
    ends += [f"{counts[s]} {w}" for s, w in _OTHER_ENDS if counts.get(s)]
    devices = table["device"].value_counts()
    return [
        ("Runs", f"{len(table)}: " + ", ".join(ends)),
        (
            "Experiments",
            ", ".join(sorted(set(table["experiment"]) - {""})) or "unknown",
        ),
        ("Total time of all runs", duration(float(table["seconds"].sum()))),
        ("Devices", ", ".join(f"{n} ({c} runs)" for n, c in devices.items())),
        ("Code versions", str(table["version"].nunique())),
    ]


_OTHER_ENDS = ((DIVERGED, "diverged"), (INCOMPLETE, "not ended"))


def _versions(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for _, group in table.groupby("version", sort=False):
        experiments = ", ".join(sorted(set(group["experiment"]) - {""}))
        label = group["version_label"].iloc[0]
        rows.append({"label": label, "runs": len(group), "experiments": experiments})
    return sorted(rows, key=lambda row: -row["runs"])


def _sweeps(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for keys, group in table.groupby(_KIND):
        experiment, is_small, is_in_sweep = keys
        counts = group["status"].value_counts()
        rows.append(
            {
                "name": (experiment or "unknown") + (" (small)" if is_small else ""),
                "runs": len(group),
                "finished": int(counts.get(FINISHED, 0)),
                "diverged": int(counts.get(DIVERGED, 0)),
                "incomplete": int(counts.get(INCOMPLETE, 0)),
                "seconds": float(group["seconds"].sum()),
                "time": duration(float(group["seconds"].sum())),
                "command": command_for(
                    experiment, is_small=is_small, is_in_sweep=is_in_sweep
                ),
            }
        )
    return rows


def _commands(experiments: tuple[str, ...], table: pd.DataFrame) -> list[str]:
    """The commands of the experiments that runs were found of."""
    found = table[table["experiment"].isin(experiments)]
    return [
        command_for(name, is_small=bool(small), is_in_sweep=bool(in_sweep))
        for name, small, in_sweep in sorted(found.groupby(_KIND).groups)
    ]


def _figure_content(figure: DrawnFigure, table: pd.DataFrame) -> dict[str, Any]:
    return figure._asdict() | {
        "name": item_name(figure.key),
        "data": base64.b64encode(figure.png).decode(),
        "commands": _commands(figure.experiments, table),
    }


def _table_content(table: Table, runs: pd.DataFrame) -> dict[str, Any]:
    notes = render.Notes()
    rows = [
        {
            "label": row.label,
            "cells": [_cell_content(c, table.decimals, notes) for c in row.cells],
        }
        for row in table.rows
    ]
    return {
        "key": table.key,
        "name": item_name(table.key),
        "title": table.title,
        "caption": table.caption,
        "columns": [method_label(column) for column in table.columns],
        "rows": rows,
        "notes": list(notes),
        "run_count": table.run_count,
        "commands": _commands(table.experiments, runs),
    }


def _text_content(table: TextTable, runs: pd.DataFrame) -> dict[str, Any]:
    return table._asdict() | {
        "name": item_name(table.key),
        "commands": _commands(table.experiments, runs),
    }


def _cell_content(cell: Cell, decimals: int, notes: render.Notes) -> dict[str, Any]:
    return {
        "ours": render.summary_text(cell.ours, decimals),
        "n": 0 if cell.ours is None else cell.ours.n,
        "sort": "" if cell.ours is None else repr(cell.ours.mean),
        "published": render.published_text(cell.published, decimals),
        "difference": render.difference_text(cell, decimals),
        "is_best": cell.is_best,
        "is_green": cell.is_green,
        "marks": notes.marks(cell),
    }
