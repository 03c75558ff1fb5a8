"""The pages of the site that are made, not written. mkdocs calls the ``on_`` functions.

Tutorials are executed and become pages with their plots, the report of results/ becomes
the gallery, formulas become MathML. What was executed is kept in build/docs. With
EXECUTE_TUTORIALS=0 in the environment tutorials are shown without their plots.
"""

import hashlib
import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import jupytext
import nbclient
import nbconvert
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from benchmarks.chart import draw
from fisher_jax.models import MODELS
from fisher_jax.report.build import build_report
from fisher_jax.report.claims import Verdict
from fisher_jax.report.entry import Entry
from fisher_jax.report.render import escape_markdown
from fisher_jax.train.keys import Config, Key, all_keys, takers

ROOT = Path(__file__).parents[1]
MADE = ROOT / "build" / "docs"
TUTORIALS = ROOT / "docs" / "tutorials"
# Pages of the site whose text lies elsewhere in the repository.
COPIED = {
    "speed.md": "benchmarks/results.md",
    "speed_h100.md": "benchmarks/h100/results.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
# Pages of speed, which open with a chart of the results in these folders.
SPEED = {"speed.md": "benchmarks", "speed_h100.md": "benchmarks/h100"}
# Of latex2mathml: "is drawn from" as an ASCII tilde, "log" without a space after it.
BETTER_MATHML = {
    "<mi>&#x0007E;</mi>": "<mo>&#x0223C;</mo>",
    "<mi>log</mi>": '<mi>log</mi><mspace width="0.17em"/>',
}
REPORT_COMMAND = "python -m fisher_jax.report results --out=report"
SECONDS_FOR_A_CELL = 600
IS_EXECUTING = os.environ.get("EXECUTE_TUTORIALS") != "0"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made and what they show."""
    for name, source in COPIED.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for script in sorted(TUTORIALS.glob("*.py")):
        folder = tutorial(script)
        for path in sorted(folder.iterdir()):
            name = f"tutorials/{path.name}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for page, folder in SPEED.items():
        path = MADE / page.replace(".md", ".png")
        draw(ROOT / folder, path)
        files.append(File.generated(config, path.name, abs_src_path=str(path)))
    for path in sorted(report().glob("figures/*.png")):
        name = f"gallery/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    page = str(report() / "index.html")
    files.append(File.generated(config, "gallery/page.html", abs_src_path=page))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:  # type: ignore[no-untyped-def]
    """Leads links to the site's pages; appends figures and tables to the gallery."""
    # As written they lead somewhere in the repository, too.
    markdown = re.sub(r"\]\((tutorials/\w+)\.py\)", r"](\1.md)", markdown)
    for name, source in COPIED.items():
        markdown = markdown.replace(f"](../{source})", f"]({name})")
    if page.file.src_uri in SPEED:
        title, _, rest = markdown.partition("\n")
        chart = page.file.src_uri.replace(".md", ".png")
        return f"{title}\n\n![Milliseconds, ours and peers]({chart})\n{rest}"
    made = {"gallery.md": gallery, "api/configuration.md": configuration_keys}
    if page.file.src_uri not in made:
        return markdown
    return "\n\n".join([markdown, *made[page.file.src_uri]()])


def on_page_content(content: str, page, config, files) -> str:  # type: ignore[no-untyped-def]
    """Turns formulas, as arithmatex marks them, into MathML; lets paths break."""
    content = re.sub(r"(?<=<code>)[^<]{16,}(?=</code>)", _breakable, content)
    pattern = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>([.,:;)]*)'
    return re.sub(pattern, _as_mathml, content, flags=re.DOTALL)


def _breakable(code: re.Match[str]) -> str:
    # Long paths and calls are wider than the columns of a table.
    return re.sub(r"(?<=\w)([/_=(])(?=\w)", r"\1<wbr>", code[0])


def _as_mathml(formula: re.Match[str]) -> str:
    # latex2mathml does not read \Big\|.
    tex = html.unescape(formula[2]).replace(r"\|", "‖")
    mathml = convert(tex, display="inline" if formula[1] == "span" else "block")
    for given, better in BETTER_MATHML.items():
        mathml = mathml.replace(given, better)
    # A line does not break between a formula and the comma after it.
    return f'<span style="white-space: nowrap">{mathml}{formula[3]}</span>'


def tutorial(script: Path) -> Path:
    """A folder with a tutorial as Markdown and its plots; executed where it is new."""
    sources = [script, *sorted((ROOT / "fisher_jax").rglob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    name = digest.hexdigest()[:12] if IS_EXECUTING else "not-executed"
    folder = MADE / "tutorials" / f"{script.stem}-{name}"
    if IS_EXECUTING and folder.exists():
        return folder
    notebook = jupytext.read(script)
    notebook.metadata["language_info"] = {"name": "python"}
    if IS_EXECUTING:
        print(f"Executing {script.name} (up to a minute)", flush=True)
        os.environ["PYTHONPATH"] = str(ROOT)
        place = {"metadata": {"path": str(MADE)}}
        MADE.mkdir(parents=True, exist_ok=True)
        nbclient.NotebookClient(
            notebook, timeout=SECONDS_FOR_A_CELL, resources=place
        ).execute()
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Cells that hold the text to its claims are run, and not shown.
    notebook.cells = [
        cell for cell in notebook.cells if "check" not in cell.metadata.get("tags", ())
    ]
    text, resources = nbconvert.MarkdownExporter().from_notebook_node(notebook)
    for output, content in resources["outputs"].items():
        (partial / f"{script.stem}_{output}").write_bytes(content)
        text = text.replace(f"]({output})", f"]({script.stem}_{output})")
    where = f"*Made by executing `docs/tutorials/{script.name}`, a notebook, too.*"
    title, _, rest = text.lstrip().partition("\n")
    (partial / f"{script.stem}.md").write_text(f"{title}\n\n{where}\n{rest}")
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)


def report() -> Path:
    """The folder of the report of results/, made where it is not there yet."""
    paths = sorted(path for path in (ROOT / "results").rglob("*") if path.is_file())
    sources = (ROOT / "fisher_jax" / "report").rglob("*")
    paths += sorted(p for p in sources if p.suffix in (".py", ".j2", ".mplstyle"))
    paths.append(ROOT / "fisher_jax" / "run_files.py")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    folder = MADE / f"report-{digest.hexdigest()[:12]}"
    if not (folder / "gallery.json").exists():
        entries = build_report([ROOT / "results"], folder, REPORT_COMMAND).entries
        shown = [_gallery_entry(folder, entry) for entry in entries]
        (folder / "gallery.json").write_text(json.dumps([s for s in shown if s]))
    return folder


def _gallery_entry(folder: Path, entry: Entry) -> str:
    """An item as Markdown: headline, verdicts, figure and table; "" without runs."""
    item, parts = entry.item, []
    title = escape_markdown(item.title)
    if entry.picture and item.figure:
        parts.append(f"![{title}](gallery/{entry.key}.png)")
        parts.append(escape_markdown(item.figure.caption))
        parts.append("\n".join(f"* {escape_markdown(n)}" for n in entry.picture.notes))
    if entry.table:
        parts.append((folder / "tables" / f"{entry.key}.md").read_text())
    if not parts:
        return ""
    claims = "\n".join(_claim(verdict) for verdict in entry.verdicts)
    return "\n\n".join([f"## {item.name}: {title}", claims, *parts])


def _claim(verdict: Verdict) -> str:
    reason = f" ({escape_markdown(verdict.reason)})" if verdict.reason else ""
    return f"* **{verdict.status}**: {escape_markdown(verdict.claim)}{reason}"


def gallery() -> list[str]:
    """The report's tables and figures, as Markdown."""
    entries: list[str] = json.loads((report() / "gallery.json").read_text())
    return entries


# Hides the rows of all tables that do not hold what is typed.
FILTER = """
<input id="filter" class="md-input" type="search" placeholder="Filter the keys">
<script>
document.getElementById("filter").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of document.querySelectorAll("tbody tr"))
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
</script>
"""


def configuration_keys() -> Iterator[str]:
    """A table of the keys of each section, as Markdown, and a field that filters them.

    Of a key of the network: which networks take it and what they have without it.
    """
    yield FILTER
    declared = all_keys()
    for name, rows in groupby(declared, lambda key: key.rpartition(".")[0]):
        field = Config.model_fields.get(name)
        about = field.annotation.__doc__ if field else "Of the whole run."
        yield f"## {name or 'At the top'}\n\n{about}"
        head = "| key | type | range | default | unit | explanation |"
        lines = [head, 6 * "|---" + "|"]
        lines += [_row(key, declared[key]) for key in rows]
        yield "\n".join(lines)


def _row(name: str, key: Key) -> str:
    kind = {"array": "integers", "string": "text"}.get(key.kind, key.kind)
    limits = {"≥": key.low, ">": key.above, "≤": key.high}
    numbers = [f"{sign} {v:.10g}" for sign, v in limits.items() if v is not None]
    choices = [f"`{choice}`" for choice in key.choices]
    default = "()" if key.default == [] else str(key.default)
    explanation = key.explanation
    section, _, field = name.rpartition(".")
    if section == "model" and key.is_optional:
        explanation += (
            f" For {', '.join(_with_its_own(n, field) for n in takers(field))}."
        )
    return (
        f"| `{name}` | {kind}{' or None' if key.is_optional else ''} "
        f"| {', '.join(choices or numbers)} | `{default}` | {key.unit} "
        f"| {explanation} |"
    )


def _with_its_own(model: str, field: str) -> str:
    own = getattr(MODELS[model], field)
    return f"`{model}`" if own is None else f"`{model}` ({own})"
