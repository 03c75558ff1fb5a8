"""The pages of the site that are made, not written. mkdocs calls the ``on_`` functions.

Tutorials are executed and become pages with their plots, the report of results/ becomes
the gallery, formulas become MathML. What was executed is kept in build/docs.
"""

import hashlib
import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbclient
import nbconvert
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fisher_jax.report.build import build_report

ROOT = Path(__file__).parents[1]
MADE = ROOT / "build" / "docs"
TUTORIALS = ROOT / "docs" / "tutorials"
# Pages of the site whose text lies elsewhere in the repository.
COPIED = {
    "speed.md": "benchmarks/results.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
REPORT_COMMAND = "python -m fisher_jax.report results --out=report"
SECONDS_FOR_A_CELL = 600


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made and what they show."""
    for name, source in COPIED.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for script in sorted(TUTORIALS.glob("*.py")):
        folder = executed(script)
        for path in sorted(folder.iterdir()):
            name = f"tutorials/{path.name}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in sorted(report().glob("figures/*.png")):
        name = f"gallery/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    page = str(report() / "index.html")
    files.append(File.generated(config, "gallery/page.html", abs_src_path=page))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:  # type: ignore[no-untyped-def]
    """Appends the report's figures and tables to the gallery."""
    if page.file.src_uri != "gallery.md":
        return markdown
    return "\n\n".join([markdown, *gallery()])


def on_page_content(content: str, page, config, files) -> str:  # type: ignore[no-untyped-def]
    """Turns formulas, as arithmatex marks them, into MathML."""
    return re.sub(
        r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>',
        lambda found: convert(
            html.unescape(found[2]), display="inline" if found[1] == "span" else "block"
        ),
        content,
        flags=re.DOTALL,
    )


def executed(script: Path) -> Path:
    """A folder with a tutorial as Markdown and its plots; executed where it is new."""
    sources = [script, *sorted((ROOT / "fisher_jax").rglob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    folder = MADE / "tutorials" / f"{script.stem}-{digest.hexdigest()[:12]}"
    if folder.exists():
        return folder
    print(f"Executing {script.name} (up to a minute)", flush=True)
    notebook = jupytext.read(script)
    os.environ["PYTHONPATH"] = str(ROOT)
    MADE.mkdir(parents=True, exist_ok=True)
    nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_FOR_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(MADE)}},
    ).execute()
    text, resources = nbconvert.MarkdownExporter().from_notebook_node(notebook)
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    for name, content in resources["outputs"].items():
        (partial / f"{script.stem}_{name}").write_bytes(content)
        text = text.replace(f"]({name})", f"]({script.stem}_{name})")
    where = f"*Made by executing `docs/tutorials/{script.name}`, also a notebook.*"
    title, _, rest = text.lstrip().partition("\n")
    (partial / f"{script.stem}.md").write_text(f"{title}\n\n{where}\n{rest}")
    partial.rename(folder)
    return folder


def report() -> Path:
    """The folder of the report of results/, made where it is not there yet."""
    paths = sorted(path for path in (ROOT / "results").rglob("*") if path.is_file())
    paths += sorted((ROOT / "fisher_jax" / "report").rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    folder = MADE / f"report-{digest.hexdigest()[:12]}"
    if not (folder / "index.html").exists():
        build_report([ROOT / "results"], folder, REPORT_COMMAND)
    return folder


def gallery() -> Iterator[str]:
    """Headings, figures and tables of the report, as Markdown."""
    for path in sorted(report().glob("figures/*.png"), key=_in_order):
        title = _title(path.stem)
        yield f"## {title}\n\n![{title}](gallery/{path.name})"
    for path in sorted(report().glob("tables/*.md"), key=_in_order):
        yield f"## {_title(path.stem)}\n\n{path.read_text()}"


def _in_order(path: Path) -> tuple[str, int]:
    name, number = re.fullmatch(r"(.*?)(\d*)", path.stem).groups()  # type: ignore[union-attr]
    return name, int(number or 0)


def _title(stem: str) -> str:
    name, number = re.fullmatch(r"(.*?)(\d*)", stem).groups()  # type: ignore[union-attr]
    return f"{name.replace('_', ' ').strip().capitalize()} {number}".strip()
