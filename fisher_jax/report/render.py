"""Tables as Markdown, CSV and LaTeX; names out of runs are escaped for each."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence

from fisher_jax.report.names import METHODS, method_label
from fisher_jax.report.published import Published
from fisher_jax.report.statistics import Summary
from fisher_jax.report.tables import Cell, Table

MINUS = "−"
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


def as_markdown(table: Table) -> str:
    """Returns a GitHub-flavoured table with its caption, and footnotes below."""
    notes = Notes()
    head = ["", *(escape_markdown(method_label(c)) for c in table.columns)]
    lines = [_markdown_row(head), _markdown_row(["---"] * len(head))]
    for row in table.rows:
        cells = [_markdown_cell(c, table.decimals, notes) for c in row.cells]
        lines.append(_markdown_row([escape_markdown(row.label), *cells]))
    legend = (
        "Ours: mean ± standard deviation (n runs); then the paper's value and, in "
        "brackets, ours minus the paper's. Bold: best of ours in the row."
    )
    if any(cell.is_green for row in table.rows for cell in row.cells):
        legend += " ✓: green cell."
    footnotes = [f"[{mark}] {escape_markdown(text)}  " for mark, text in notes]
    caption = f"**{escape_markdown(table.title)}.** {escape_markdown(table.caption)}"
    blocks = [caption, "\n".join(lines), legend, "\n".join(footnotes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def as_csv(table: Table) -> str:
    """Returns one line a cell: tidy, for a program to read."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ("row", "column", "mean", "std", "n", "published", "published_std")
        + ("difference", "best", "green", "reason_missing", "notes")
    )
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            ours, value = cell.ours, cell.published
            writer.writerow(
                (
                    escape_csv(row.label),
                    escape_csv(column),
                    "" if ours is None else repr(ours.mean),
                    "" if ours is None or math.isnan(ours.std) else repr(ours.std),
                    0 if ours is None else ours.n,
                    "" if value is None else value.value,
                    "" if value is None or value.std is None else value.std,
                    "" if cell.difference is None else repr(cell.difference),
                    int(cell.is_best),
                    int(cell.is_green),
                    escape_csv(cell.reason if ours is None else ""),
                    escape_csv("; ".join(cell.notes)),
                )
            )
    return file.getvalue()


def as_latex(table: Table) -> str:
    """Returns a booktabs table; a comment names the packages it needs."""
    notes = Notes()
    head = " & ".join(["", *(_latex_method(c) for c in table.columns)])
    body = []
    for row in table.rows:
        ours = " & ".join(_latex_ours(c, table.decimals, notes) for c in row.cells)
        paper = " & ".join(_latex_published(c, table.decimals) for c in row.cells)
        body.append(f"{escape_latex(row.label)} & {ours}")
        if any(cell.published for cell in row.cells):
            body.append(rf"\quad paper & {paper}")
    caption = f"{table.title}. {table.caption} Below ours: the paper's value and ours "
    caption += "minus the paper's."
    columns = "l" + "c" * len(table.columns)
    return _latex_float(
        caption, columns, head, body, [f"[{m}] {text}" for m, text in notes]
    )


def texts_as_markdown(
    rows: Sequence[Sequence[str]], caption: str, notes: Sequence[str]
) -> str:
    """Returns a table of texts, headings first, with its caption and notes."""
    escaped = [[escape_markdown(text) for text in row] for row in rows]
    lines = [_markdown_row(row) for row in escaped]
    lines.insert(1, _markdown_row(["---"] * len(rows[0])))
    blocks = [f"**{escape_markdown(caption)}**", "\n".join(lines)]
    blocks += [f"- {escape_markdown(note)}" for note in notes]
    return "\n\n".join(blocks) + "\n"


def texts_as_csv(rows: Sequence[Sequence[str]]) -> str:
    """Returns the rows, headings first."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([escape_csv(text) for text in row] for row in rows)
    return file.getvalue()


def texts_as_latex(
    rows: Sequence[Sequence[str]], caption: str, notes: Sequence[str]
) -> str:
    """Returns a booktabs table of texts, headings first."""
    head, *body = [" & ".join(escape_latex(text) for text in row) for row in rows]
    return _latex_float(caption, "l" * len(rows[0]), head, body, notes)


def _latex_float(
    caption: str, columns: str, head: str, body: Sequence[str], notes: Sequence[str]
) -> str:
    """A table over both columns of a page, shrunk where it is wider than that."""
    lines = [
        r"% Needs \usepackage{booktabs,graphicx} and \usepackage[table]{xcolor}.",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(caption)}}}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *(rf"{line} \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    if notes:
        texts = "; ".join(escape_latex(note) for note in notes)
        lines += ["", rf"\parbox{{\textwidth}}{{\scriptsize {texts}}}"]
    return "\n".join([*lines, r"\end{table*}", ""])


class Notes:
    """Footnotes by their text, lettered in order of first use."""

    def __init__(self) -> None:
        """Starts without any."""
        self._marks: dict[str, str] = {}

    def marks(self, cell: Cell) -> list[str]:
        """Returns the letters of a cell's notes and of its reason, if it is missing."""
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


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell, decimals: int, notes: Notes) -> str:
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
    return METHODS[column].latex if column in METHODS else escape_latex(column)


def _latex_ours(cell: Cell, decimals: int, notes: Notes) -> str:
    text = escape_latex(summary_text(cell.ours, decimals))
    if cell.ours is not None:
        text = rf"\textbf{{{text}}}" if cell.is_best else text
        text += rf" {{\footnotesize({cell.ours.n})}}"
    marks = ",".join(notes.marks(cell))
    text += rf"$^{{\mathrm{{{marks}}}}}$" if marks else ""
    return rf"\cellcolor{{green!18}}{text}" if cell.is_green else text


def _latex_published(cell: Cell, decimals: int) -> str:
    difference = difference_text(cell, decimals).replace(MINUS, "$-$")
    value = escape_latex(published_text(cell.published, decimals))
    return rf"{value} ({difference})" if difference else value
