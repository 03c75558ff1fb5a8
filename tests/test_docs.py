"""The documentation leads to places that exist, and its commands to what they name."""

import configparser
import re
import shlex
import unicodedata
from pathlib import Path

import pytest
import yaml

import fisher_jax.curvature
import fisher_jax.penalties
from fisher_jax.train.config import load_config, split_overrides

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# Pages that docs/made_pages.py takes from elsewhere.
COPIED = dict(
    re.findall(
        r'^    "(\w+\.md)": "([\w/.]+)",$',
        (DOCS / "made_pages.py").read_text(),
        re.MULTILINE,
    )
)
page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def source_of(path):
    """The file that a page of the site is made from; None where there is none."""
    inside = path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else ""
    script = path.with_suffix(".py")
    choices = [path, ROOT / COPIED[inside]] if inside in COPIED else [path]
    if path.parent == DOCS / "tutorials":
        choices.append(script)
    return next((choice for choice in choices if choice.is_file()), None)


def slug(heading):
    """The anchor that Markdown's table of contents gives a heading."""
    text = unicodedata.normalize("NFKD", heading.replace("`", ""))
    text = re.sub(r"[^\w\s-]", "", text.encode("ascii", "ignore").decode())
    return re.sub(r"[-\s]+", "-", text.strip().lower())


def anchors(path):
    return {slug(h) for h in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)}


@page
def test_links_and_anchors_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if path == DOCS / "gallery" / "page.html":  # made of results/
            continue
        if page.parent == ROOT and path.is_dir():  # no page of the site
            continue
        source = source_of(path)
        assert source is not None, f"{target} does not exist"
        assert not anchor or anchor in anchors(source), f"no heading for {target}"


def commands(text):
    """Shell commands in blocks and in the running text, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += [
        " ".join(found.split())
        for found in re.findall(r"`((?:python|pip|make) [^`]*)`", text)
    ]
    lines = [part for line in lines for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@page
def test_modules_configurations_targets_and_extras_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    setup = configparser.ConfigParser(comment_prefixes="#")
    setup.read(ROOT / "setup.cfg")
    for command in commands(page.read_text()):
        if "-m" in command and command[0].startswith("python"):
            check_module(command[command.index("-m") + 1])
        if command[0] == "make":
            assert {word for word in command[1:] if "=" not in word} <= targets
        if "pip" in command:
            for extra in re.findall(r"\.\[([\w,]+)\]", " ".join(command)):
                assert set(extra.split(",")) <= set(setup["options.extras_require"])
        for word in command:
            if word.startswith("constraints/"):
                assert (ROOT / word).exists()


def check_module(name):
    if name.split(".")[0] not in ("fisher_jax", "launch", "benchmarks", "docs", "main"):
        assert name in ("venv", "pytest", "http.server", "mkdocs", "jupytext"), name
        return
    path = ROOT.joinpath(*name.split("."))
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@page
def test_configurations_are_valid(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in commands(page.read_text()):
        rest, overrides = split_overrides(command)
        for word in rest:
            if word.startswith("--config=experiments/") and "main.py" in command:
                load_config(word.removeprefix("--config="), overrides)
    for name in re.findall(r"experiments/\w+\.py", page.read_text()):
        # CONTRIBUTING shows how this one is written.
        assert (ROOT / name).exists() or name == "experiments/digits_linear.py", name
    for name, variant in re.findall(r"(experiments/\w+\.py):(\w+)", page.read_text()):
        load_config(f"{name}:{variant}", [])


def nav_entries(node):
    if isinstance(node, str):
        yield node
        return
    for child in node.values() if isinstance(node, dict) else node:
        yield from nav_entries(child)


def test_the_navigation_names_every_page_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    entries = list(nav_entries(config["nav"]))
    assert len(entries) == len(set(entries))
    for entry in entries:
        assert source_of(DOCS / entry) is not None, entry
    written = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    scripts = {f"tutorials/{p.stem}.md" for p in (DOCS / "tutorials").glob("*.py")}
    assert set(entries) == written | scripts | set(COPIED)
    assert all((ROOT / hook).exists() for hook in config["hooks"])


@pytest.mark.parametrize("module", [fisher_jax.curvature, fisher_jax.penalties])
def test_the_reference_has_every_public_function(module):
    name = module.__name__
    text = (DOCS / "api" / f"{name.split('.')[1]}.md").read_text()
    shown = set(re.findall(rf"^::: {re.escape(name)}\.(\w+)$", text, re.MULTILINE))
    assert shown <= set(module.__all__)
    assert {n for n in module.__all__ if callable(getattr(module, n))} - shown <= {
        "Draw",
        "Method",
    }


@pytest.mark.parametrize("path", sorted((DOCS / "api").glob("*.md")))
def test_the_reference_names_what_exists(path):
    for name in re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        imported = __import__(module, fromlist=[attribute])
        assert getattr(imported, attribute).__doc__, name


def test_a_broken_link_would_be_seen(tmp_path):
    assert source_of(DOCS / "no_such_page.md") is None
    assert "which-estimator-when" in anchors(DOCS / "theory.md")
    assert "no-such-heading" not in anchors(DOCS / "theory.md")
    with pytest.raises(AssertionError, match=r"launch\.no_such_module"):
        check_module("launch.no_such_module")
