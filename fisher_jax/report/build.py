"""The report: every table and figure that there are runs for, and index.html."""

import os
from collections.abc import Mapping, Sequence
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from fisher_jax.report import render
from fisher_jax.report.beyond_tables import TextTable, build_beyond_tables
from fisher_jax.report.claims import verdicts
from fisher_jax.report.collect import Runs, load_runs
from fisher_jax.report.figures.all import FIGURES, draw, write
from fisher_jax.report.figures.canvas import Drawing
from fisher_jax.report.page import DrawnFigure, Report, write_page
from fisher_jax.report.selections import selections_table
from fisher_jax.report.tables import Table, build_tables


class _Drawn(NamedTuple):
    """What a worker sends back: a figure without matplotlib's objects, or why not."""

    key: str
    figure: DrawnFigure | None
    reason: str


def build_report(
    folders: Sequence[Path], out: Path, command: str, num_processes: int | None = None
) -> Report:
    """Reads the runs and writes tables/, figures/ and index.html below ``out``.

    Args:
        command: how this report was asked for, shown on the page.
        num_processes: that draw; default one a core. 1 draws in this process.

    Raises:
        UserError: a folder does not exist or there is no run.
        OSError: ``out`` cannot be written.
    """
    runs = load_runs(folders)
    out.mkdir(parents=True, exist_ok=True)
    tables, missing = build_tables(runs.table)
    text_tables, missing_too = build_beyond_tables(runs)
    missing |= missing_too
    tuned = selections_table(runs.table)
    text_tables += [] if tuned is None else [tuned]
    for table in tables:
        _write_table(table, out / "tables")
    for text_table in text_tables:
        _write_text_table(text_table, out / "tables")
    drawn = _draw_all(runs, out / "figures", num_processes or os.cpu_count() or 1)
    missing |= {d.key: d.reason for d in drawn if d.figure is None}
    report = Report(
        runs=runs,
        tables=tuple(tables),
        text_tables=tuple(text_tables),
        figures=tuple(d.figure for d in drawn if d.figure is not None),
        missing=missing,
        verdicts=tuple(verdicts(runs)),
        command=command,
    )
    write_page(report, out / "index.html")
    return report


def _write_table(table: Table, folder: Path) -> None:
    forms = {
        "md": render.as_markdown(table),
        "csv": render.as_csv(table),
        "tex": render.as_latex(table),
    }
    _write_forms(table.key, forms, folder)


def _write_text_table(table: TextTable, folder: Path) -> None:
    rows = [table.columns, *table.rows]
    caption = f"{table.title}. {table.caption}"
    forms = {
        "md": render.texts_as_markdown(rows, caption, table.notes),
        "csv": render.texts_as_csv(rows),
        "tex": render.texts_as_latex(rows, caption, table.notes),
    }
    _write_forms(table.key, forms, folder)


def _write_forms(key: str, forms: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in forms.items():
        (folder / f"{key}.{ending}").write_text(text, encoding="utf-8")


def _draw_all(runs: Runs, folder: Path, num_processes: int) -> list[_Drawn]:
    """Draws in forked processes, which see the runs without a copy being sent."""
    keys = list(FIGURES)
    if num_processes == 1 or "fork" not in get_all_start_methods():
        return [_draw_one(key, runs, folder) for key in keys]
    context = get_context("fork")
    connections = []
    for start in range(num_processes):
        ours, theirs = context.Pipe(duplex=False)
        share = keys[start::num_processes]
        process = context.Process(
            target=_draw_share, args=(share, runs, folder, theirs)
        )
        process.start()
        theirs.close()
        connections.append((ours, process))
    by_key: dict[str, _Drawn] = {}
    for ours, process in connections:
        with ours:
            by_key |= {drawn.key: drawn for drawn in ours.recv()}
        process.join()
    return [by_key[key] for key in keys]


def _draw_share(
    keys: Sequence[str], runs: Runs, folder: Path, connection: Connection
) -> None:
    with connection:
        connection.send([_draw_one(key, runs, folder) for key in keys])


def _draw_one(key: str, runs: Runs, folder: Path) -> _Drawn:
    drawing = draw(key, runs)
    if not isinstance(drawing, Drawing):
        return _Drawn(key, None, drawing)
    path = write(drawing, folder)
    size = drawing.figure.get_size_inches() * drawing.figure.dpi
    fields = drawing._asdict()
    del fields["figure"]
    figure = DrawnFigure(
        **fields, png=path.read_bytes(), width=round(size[0]), height=round(size[1])
    )
    return _Drawn(key, figure, "")
