"""Tables as Markdown, CSV and LaTeX; names out of runs are escaped for each."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from fisher_jax.report.decide import Difference
from fisher_jax.report.names import method_label, method_latex
from fisher_jax.report.statistics import Summary
from fisher_jax.report.tables import Cell, Published, Table

MINUS = "−"
_BELOW = " Below ours: the paper's value and ours minus the paper's."
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "√": r"$\sqrt{\mathrm{Tr}(F)}$",
    "η": r"$\eta$",
    "–": "--",
    "−": "$-$",
    "α": r"$\alpha$",
    "ε": r"$\varepsilon$",
    "ρ": r"$\rho$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def as_markdown(table: Table, title: str, caption: str) -> str:
    """Returns a GitHub-flavoured table with its caption, and footnotes below."""
    marks = Notes()
    head = [table.label, *(method_label(column) for column in table.columns)]
    lines = [_markdown_row(map(escape_markdown, head)), "| --- " * len(head) + "|"]
    for row in table.rows:
        cells = [_markdown_cell(cell, table.decimals, marks) for cell in row.cells]
        lines.append(_markdown_row([escape_markdown(row.label), *cells]))
    footnotes = [f"[{mark}] {escape_markdown(text)}  " for mark, text in marks]
    footnotes += [f"- {escape_markdown(note)}" for note in table.notes]
    heading = f"**{escape_markdown(title)}.** {escape_markdown(caption)}"
    blocks = [heading, "\n".join(lines), _legend(table), "\n".join(footnotes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def as_csv(table: Table) -> str:
    """Returns the texts as they stand, or a line for each cell with all digits."""
    if table.is_text:
        lines = [[row.label, *row.cells] for row in table.rows]
        frame = pd.DataFrame(lines, columns=[table.label, *table.columns])
    else:
        frame = pd.DataFrame(
            _csv_line(row.label, column, cell)
            for row in table.rows
            for column, cell in zip(table.columns, row.cells, strict=True)
            if isinstance(cell, Cell)
        )
    # As objects: whole numbers beside missing ones stay whole.
    escaped = frame.astype(object).map(_csv_text)
    return escaped.to_csv(index=False, lineterminator="\n")


def as_latex(table: Table, title: str, caption: str) -> str:
    """Returns a booktabs table over both columns of a page, shrunk where it is wider.

    A comment names the packages it needs.
    """
    marks = Notes()
    lines = []
    for row in table.rows:
        cells = [_latex_ours(cell, table.decimals, marks) for cell in row.cells]
        lines.append([escape_latex(row.label), *cells])
        paper = [_latex_published(cell, table.decimals) for cell in row.cells]
        if any(paper):
            lines.append([r"\quad paper", *paper])
    head = [escape_latex(table.label), *(_latex_method(c) for c in table.columns)]
    alignment = "l" + ("l" if table.is_text else "c") * len(table.columns)
    tabular = pd.DataFrame(lines, columns=head).to_latex(
        index=False, column_format=alignment
    )
    notes = [f"[{mark}] {text}" for mark, text in marks] + list(table.notes)
    full_caption = f"{title}. {caption}" + ("" if table.is_text else _BELOW)
    result = [
        r"% Needs \usepackage{booktabs,graphicx} and \usepackage[table]{xcolor}.",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(full_caption)}}}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        tabular.rstrip() + "}",
    ]
    if notes:
        texts = "; ".join(escape_latex(note) for note in notes)
        result += ["", rf"\parbox{{\textwidth}}{{\scriptsize {texts}}}"]
    return "\n".join([*result, r"\end{table*}", ""])


class Notes:
    """Footnotes by their text, lettered in order of first use."""

    def __init__(self) -> None:
        """Starts without any."""
        self._marks: dict[str, str] = {}

    def marks(self, cell: Cell | str) -> list[str]:
        """Returns the letters of a cell's notes and of its reason, if it is missing."""
        if isinstance(cell, str):
            return []
        texts = list(cell.notes)
        if cell.ours is None and cell.reason not in texts:
            texts.insert(0, cell.reason)
        return [self._marks.setdefault(text, self._next()) for text in texts]

    def _next(self) -> str:
        number, letters = len(self._marks), "abcdefghijklmnopqrstuvwxyz"
        return letters[number % 26] * (1 + number // 26)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterates over (letter, text)."""
        return iter([(mark, text) for text, mark in self._marks.items()])


def summary_text(ours: Summary | None, decimals: int) -> str:
    """Returns "66.10 ± 0.40" or, of one run, "66.10"; "–" for nothing."""
    if ours is None:
        return "–"
    spread = "" if math.isnan(ours.std) else f" ± {ours.std:.{decimals}f}"
    return f"{ours.mean:.{decimals}f}{spread}"


def published_text(value: Published | None, decimals: int) -> str:
    """Returns the published value as printed, "" for none."""
    if value is None:
        return ""
    spread = "" if value.std is None else f" ± {value.std:.{decimals}f}"
    return f"{value.value:.{decimals}f}{spread}"


def difference_text(cell: Cell, decimals: int) -> str:
    """Returns the signed difference with a true minus sign, "" for none."""
    if cell.difference is None:
        return ""
    return f"{cell.difference:+.{decimals}f}".replace("-", MINUS)


def interval_text(difference: Difference) -> str:
    """Returns "+1.55 [+0.79, +2.31]", with true minus signs."""
    ends = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.mean:+.2f} {ends}".replace("-", MINUS)


def escape_markdown(text: str) -> str:
    """Escapes what Markdown or HTML would read as markup, line breaks included."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$!])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Escapes LaTeX's special characters and spells out our few symbols."""
    return "".join(_LATEX.get(character, character) for character in text)


def escape_csv(text: str) -> str:
    """Keeps a spreadsheet from reading a name as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _csv_text(value: Any) -> Any:
    return escape_csv(value) if isinstance(value, str) else value


def _csv_line(label: str, column: str, cell: Cell) -> dict[str, Any]:
    ours, value = cell.ours, cell.published
    return {
        "row": label,
        "column": column,
        "mean": None if ours is None else ours.mean,
        "std": None if ours is None else ours.std,
        "n": 0 if ours is None else ours.n,
        "published": None if value is None else value.value,
        "published_std": None if value is None else value.std,
        "difference": cell.difference,
        "best": int(cell.is_best),
        "green": int(cell.is_green),
        "reason_missing": cell.reason if ours is None else "",
        "notes": "; ".join(cell.notes),
    }


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _legend(table: Table) -> str:
    if table.is_text:
        return ""
    legend = (
        "Ours: mean ± standard deviation (n runs); then the paper's value and, in "
        "brackets, ours minus the paper's. Bold: best of ours in the row."
    )
    cells = [cell for row in table.rows for cell in row.cells]
    is_green = any(isinstance(cell, Cell) and cell.is_green for cell in cells)
    return legend + (" ✓: green cell." if is_green else "")


def _markdown_cell(cell: Cell | str, decimals: int, notes: Notes) -> str:
    if isinstance(cell, str):
        return escape_markdown(cell)
    text = summary_text(cell.ours, decimals)
    if cell.ours is not None:
        text = f"**{text}**" if cell.is_best else text
        text += f" ({cell.ours.n})" + (" ✓" if cell.is_green else "")
    text += "".join(f" [{mark}]" for mark in notes.marks(cell))
    if cell.published is None:
        return text
    difference = difference_text(cell, decimals)
    bracket = f" ({difference})" if difference else ""
    return f"{text}<br>paper {published_text(cell.published, decimals)}{bracket}"


def _latex_method(column: str) -> str:
    return method_latex(column) or escape_latex(column)


def _latex_ours(cell: Cell | str, decimals: int, notes: Notes) -> str:
    if isinstance(cell, str):
        return escape_latex(cell)
    text = escape_latex(summary_text(cell.ours, decimals))
    if cell.ours is not None:
        text = rf"\textbf{{{text}}}" if cell.is_best else text
        text += rf" {{\footnotesize({cell.ours.n})}}"
    marks = ",".join(notes.marks(cell))
    text += rf"$^{{\mathrm{{{marks}}}}}$" if marks else ""
    return rf"\cellcolor{{green!18}}{text}" if cell.is_green else text


def _latex_published(cell: Cell | str, decimals: int) -> str:
    if isinstance(cell, str):
        return ""
    difference = difference_text(cell, decimals).replace(MINUS, "$-$")
    value = escape_latex(published_text(cell.published, decimals))
    return rf"{value} ({difference})" if difference else value
