"""The report: every table and figure that there are runs for, and index.html."""

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from fisher_jax.host.machine import count_cores
from fisher_jax.report import canvas, render
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.claims import verdicts_on
from fisher_jax.report.collect import Runs, load_runs
from fisher_jax.report.entry import Entry, Picture, Report
from fisher_jax.report.item import FigurePart, Item, all_items
from fisher_jax.report.names import DRAWS
from fisher_jax.report.page import write_page
from fisher_jax.report.tables import Table


def build_report(folders: Sequence[Path], out: Path, command: str) -> Report:
    """Reads the runs and writes tables/, figures/ and index.html below ``out``.

    Args:
        command: how this report was asked for, shown on the page.

    Raises:
        UserError: a folder does not exist or there is no run.
        OSError: ``out`` cannot be written.
    """
    runs = load_runs(folders)
    out.mkdir(parents=True, exist_ok=True)
    report = Report(runs, tuple(_side_by_side(runs, out)), command)
    write_page(report, out / "index.html")
    return report


def _side_by_side(runs: Runs, out: Path) -> list[Entry]:
    """Makes all items, shared out to a process for each core, four at most.

    Processes are forked, which the threads of JAX would not bear: where it has been
    imported, this process makes them all.
    """
    keys = list(all_items())
    can_fork = sys.platform == "linux" and "jax" not in sys.modules
    count = min(count_cores(), 4) if can_fork else 1
    make = partial(_fill_and_write_all, runs=runs, out=out)
    if count == 1:
        return make(keys)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, fork) as pool:
        shares = pool.map(make, [keys[start::count] for start in range(count)])
        made = {entry.key: entry for share in shares for entry in share}
    return [made[key] for key in keys]


def _fill_and_write_all(keys: Sequence[str], *, runs: Runs, out: Path) -> list[Entry]:
    items = all_items()
    return [fill_and_write(key, items[key], runs, out) for key in keys]


def fill_and_write(key: str, item: Item, runs: Runs, out: Path) -> Entry:
    """Fills, draws and decides one item, and writes its files."""
    rows = item_rows(item, runs)
    verdicts = tuple(verdicts_on(item.claims, rows, runs))
    entry = Entry(key, item, verdicts)
    if not len(rows):
        return entry._replace(missing=f"no runs of {' or '.join(item.experiments)}")
    if item.table:
        table = item.table.fill(rows, runs)
        if isinstance(table, str):
            entry = entry._replace(missing=table)
        else:
            _write_table(table, item.title, item.table.caption, out / "tables" / key)
            entry = entry._replace(table=table)
    if item.figure:
        drawing = draw(item.figure, rows, runs)
        if isinstance(drawing, str):
            entry = entry._replace(missing=drawing)
        else:
            png = out / "figures" / f"{key}.png"
            canvas.save(drawing.figure, png, item.title, item.figure.alt)
            entry = entry._replace(picture=_picture(drawing, png))
    return entry


def _picture(drawing: Drawing, png: Path) -> Picture:
    figure = drawing.figure
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    return Picture(png, drawing.run_count, drawing.notes, width, height)


def item_rows(item: Item, runs: Runs) -> pd.DataFrame:
    """Returns the rows of the runs that an item takes, all where it names none."""
    if not item.experiments:
        return runs.rows
    return runs.rows[runs.rows["experiment"].isin(item.experiments)]


def draw(figure: FigurePart, rows: pd.DataFrame, runs: Runs) -> Drawing | str:
    """Draws in the report's style, or returns why there is nothing to draw."""
    with canvas.style():
        drawing = figure.draw(rows, runs)
        if isinstance(drawing, str):
            return drawing
        canvas.finish(drawing.figure)
    notes = drawing.notes
    if figure.shows_fisher_trace:
        notes += tuple(fisher_draw_notes(rows, runs))
    if rows["is_thinned"].any():
        # Each run's peak is kept, at an epoch of its own, where no mean is drawn.
        notes += ("archived runs keep a part of their records: curves may miss a peak",)
    return drawing._replace(notes=notes)


def fisher_draw_notes(rows: pd.DataFrame, runs: Runs) -> list[str]:
    """Returns for each draw of Tr(F) what it is and how large its errors are."""
    notes = []
    for kind, group in rows.groupby("fisher_draw", sort=True):
        shares = []
        for index in group.index:
            records = runs.metrics[index]
            if {"trace/fisher", "trace/fisher_sem"} <= set(records):
                value = records["trace/fisher"].where(records["trace/fisher"] > 0)
                shares.append(records["trace/fisher_sem"] / value)
        errors = pd.concat(shares).dropna() if shares else pd.Series(dtype=float)
        if kind in DRAWS and len(errors):
            usual, most = 100 * errors.median(), 100 * errors.quantile(0.95)
            notes.append(
                f"Tr(F) by {DRAWS[kind]}: half of the records have a standard error "
                f"below {usual:.0f}%, 95 in 100 below {most:.0f}%. A single run's band "
                "is this error"
            )
    return notes


def _write_table(table: Table, title: str, caption: str, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending, text in (
        ("md", render.as_markdown(table, title, caption)),
        ("csv", render.as_csv(table)),
        ("tex", render.as_latex(table, title, caption)),
    ):
        stem.with_suffix(f".{ending}").write_text(text, encoding="utf-8")
