"""``python -m fisher_jax.report``: runs in; tables, figures and a page out."""

import argparse
import gc
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fisher_jax.errors import UserError, needs_extra
from fisher_jax.host.output import keep_writing
from fisher_jax.host.paths import path_argument

with needs_extra("train"):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

if TYPE_CHECKING:
    from fisher_jax.report.compare import Differences

_CELL = 16  # characters of a value on one line, where columns are to fit side by side

_EPILOG = """\
examples:
  python -m fisher_jax.report runs --out=report
  python -m fisher_jax.report runs/table1 runs/fig02 --out=report
  python -m fisher_jax.report compare runs/demo/fp runs/demo/rfp --out=fp_and_rfp.png
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command line and returns the exit code: 0, or 2 on bad input."""
    try:
        if argv[:1] == ["compare"]:
            return _compare(_compare_parser().parse_args(argv[1:]))
        return _report(_report_parser().parse_args(argv), argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        print(f"error: cannot write{where}: {error.strerror}", file=sys.stderr)
    return 2


def _report_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fisher_jax.report",
        description="Reads run directories and writes the paper's tables (Markdown, "
        "CSV, LaTeX) and figures (PNG, PDF), ours beside the published values, and one "
        "page with everything: OUT/index.html. Unfinished and damaged runs "
        "are used as far as they go, and named. 'compare' instead of folders "
        "overlays runs; see 'compare --help'.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="RUNS_DIR",
        type=path_argument,
        help="a folder with run directories in or below it",
    )
    parser.add_argument(
        "--out", type=path_argument, required=True, metavar="DIR", help="where to write"
    )
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fisher_jax.report compare",
        description="Overlays runs: prints where their configurations and results "
        "differ, and draws their curves in one figure. Runs that differ only in their "
        "seed are averaged.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        type=path_argument,
        help="a run directory, or a folder of them",
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        default=Path("comparison.png"),
        metavar="FILE",
        help="the figure, .png or .pdf (default: %(default)s)",
    )
    return parser


def _report(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    with needs_extra("train"):
        from fisher_jax.report.build import build_report

    # Drawing makes and drops many objects; what is imported stays, and walking it at
    # each collection takes a tenth of the time.
    gc.freeze()
    command = "python -m fisher_jax.report " + shlex.join(argv)
    report = build_report(arguments.folders, arguments.out, command)
    problems = report.runs.problems
    tables = sum(entry.table is not None for entry in report.entries)
    figures = sum(entry.picture is not None for entry in report.entries)
    print(
        f"{_counted(len(report.runs.rows), 'run')}: {_counted(tables, 'table')} and "
        f"{_counted(figures, 'figure')}"
    )
    for problem in problems[:5]:
        print(f"warning: {problem}", file=sys.stderr)
    if len(problems) > 5:
        print(f"warning: and {len(problems) - 5} more, see the page", file=sys.stderr)
    print(f"Page: {arguments.out / 'index.html'}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    with needs_extra("train"):
        from fisher_jax.report import compare

    if arguments.out.suffix not in (".png", ".pdf"):
        raise UserError(f"--out must end in .png or .pdf, got {str(arguments.out)!r}")
    groups, skipped = compare.read_all(arguments.runs)
    if skipped:
        names = ", ".join(path.name for path in skipped)
        print(f"Skipped, no runs in: {names}", file=sys.stderr)
    console = Console(highlight=False)
    for number, (name, runs) in enumerate(groups.items(), start=1):
        seeds = "" if len(runs) == 1 else f" ({len(runs)} seeds)"
        console.print(Text(f"#{number} {name}{seeds}"))
    if any(len(runs) > 1 for runs in groups.values()):
        console.print(
            "Seeds are averaged: ± is half a 95% interval, bands are one standard "
            "deviation."
        )
    for title, differences in (
        ("Results", compare.result_rows(groups)),
        ("Configurations differ in", compare.config_differences(groups)),
    ):
        for table in _as_rich(title, differences, len(groups), console.width):
            console.print(table)
    figure = compare.draw_runs(groups)
    if figure is None:
        print("No run has records yet, so there is no figure.")
    else:
        compare.save_figure(figure, arguments.out)
        print(f"Figure: {arguments.out}")
    return 0


def _as_rich(
    title: str, differences: "Differences", count: int, width: int
) -> Iterator[Table]:
    """One table or, where the columns do not fit side by side, several."""
    rows = differences.rows
    if not rows:
        yield Table(title=Text(f"{title}: nothing"), title_justify="left")
        return
    keys = max(len(key) for key, _ in rows)
    widest = max(len(value) for _, values in rows for value in values)
    at_a_time = max(1, (width - keys - 4) // (min(widest, _CELL) + 3))
    for first in range(0, count, at_a_time):
        chosen = slice(first, first + at_a_time)
        table = Table(title=Text(title), title_justify="left")
        table.add_column("", no_wrap=True)
        for number in range(first, min(first + at_a_time, count)):
            table.add_column(f"#{number + 1}", overflow="fold")
        entries = zip(rows, differences.is_different, strict=True)
        for (key, values), is_different in entries:
            style = "bold" if is_different and count > 1 else ""
            table.add_row(Text(key), *map(Text, values[chosen]), style=style)
        yield table


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


if __name__ == "__main__":
    keep_writing()
    sys.exit(main(sys.argv[1:]))
