"""``python -m fisher_jax.report``: runs in; tables, figures and a page out."""

import argparse
import gc
import shlex
import sys
from collections.abc import Sequence
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
        "CSV, LaTeX) and figures (PNG, PDF), ours beside the published values, and "
        "one page with everything: OUT/index.html. Unfinished and damaged runs are "
        "used where they suffice, and named. 'compare' in place of folders overlays "
        "single runs; see 'compare --help'.",
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
        description="Overlays runs: prints what their configurations and results "
        "differ in and draws their curves in one figure.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=path_argument, help="a run directory"
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
    print(
        f"{len(report.runs.table)} runs: "
        f"{sum(entry.table is not None for entry in report.entries)} tables and "
        f"{sum(entry.picture is not None for entry in report.entries)} figures"
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
    runs = compare.read_all(arguments.runs)
    console = Console(highlight=False)
    for title, differences in (
        ("Results", compare.result_rows(runs)),
        ("Configurations differ in", compare.config_differences(runs)),
    ):
        console.print(_as_rich(title, differences))
    figure = compare.draw_runs(runs)
    if figure is None:
        print("No run has records yet, so there is no figure.")
    else:
        compare.save_figure(figure, arguments.out)
        print(f"Figure: {arguments.out}")
    return 0


def _as_rich(title: str, differences: "Differences") -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    for name in differences.names:
        table.add_column(Text(name), overflow="fold")
    rows = zip(differences.rows, differences.is_different, strict=True)
    for (key, values), is_different in rows:
        style = "bold" if is_different and len(values) > 1 else ""
        table.add_row(Text(key), *(Text(value) for value in values), style=style)
    if not differences.rows:
        table.add_row(Text("nothing"))
    return table


if __name__ == "__main__":
    keep_writing()
    sys.exit(main(sys.argv[1:]))
