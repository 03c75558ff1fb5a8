"""The whole report and its page, and the command line."""

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.__main__ import main
from fisher_jax.report.item import all_items
from fisher_jax.report.page import duration

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>../../$x_{"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep as it may stand: two methods, one run broken off, one hostile."""
    runs = tmp_path_factory.mktemp("runs")
    for method in ("fp", "baseline"):
        for seed in (0, 1):
            write_run(
                runs / f"{method}-{seed}",
                experiment="table1",
                changes=CNN
                | {"seed": seed, "train.num_epochs": 3, "penalty.coefficient": 0.1},
                method=method,
                until_epoch=1 if (method, seed) == ("fp", 1) else None,
            )
    hostile = CNN | {"dataset.name": HOSTILE, "train.num_epochs": 3}
    path = write_run(runs / "hostile", experiment="table1", changes=hostile)
    place = {"experiment": "table1", "method": HOSTILE, "setting": HOSTILE}
    (path / "run.json").write_text(json.dumps(place))
    with (path / "metrics.jsonl").open("a") as file:
        file.write("{half a li")
    return runs


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "report"
    assert main([str(folder), f"--out={out}"]) == 0
    return out


class Page(HTMLParser):
    """Collects tags, ids, links and images."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.images = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids.add(attributes.get("id"))
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)


def test_tables_and_figures_are_written_in_every_form(report):
    for key in ("table1", "table4", "table5", "table6"):
        for ending in ("md", "csv", "tex"):
            assert (report / "tables" / f"{key}.{ending}").stat().st_size > 200
    for ending, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        content = (report / "figures" / f"figure10.{ending}").read_bytes()
        assert content.startswith(magic)


def test_a_pdf_has_its_font_once_and_as_publishers_want_it(report):
    content = (report / "figures" / "figure10.pdf").read_bytes()
    assert content.count(b"/FontFile2 ") == 1
    assert b"/Type3" not in content


def test_the_page_needs_nothing_from_outside(report):
    text = (report / "index.html").read_text()
    page = Page(text)
    assert page.images
    for image in page.images:
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"]) > 60
    assert {link[1:] for link in page.links} <= page.ids
    assert not re.search(r"(src|href)=.?(http|//)", text)
    assert "@import" not in text
    assert "url(" not in text


def test_hostile_names_are_text_on_the_page(report):
    text = (report / "index.html").read_text()
    assert Page(text).tags.count("script") == 1
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not list(report.rglob("*alert*"))


def test_the_page_says_what_is_missing_damaged_and_unfinished(report):
    text = (report / "index.html").read_text()
    assert "5: 4 finished, 1 not ended" in text
    assert "1 of 2 runs not ended" in text
    assert "1 unreadable line of metrics.jsonl skipped" in text
    assert "Figure 2: no runs of fig02" in text
    assert "--config=experiments/table1.py --out=runs/table1" in text


def test_the_page_says_why_a_claim_is_undecided_and_that_none_was_tested(report):
    text = html.unescape((report / "index.html").read_text())
    # FP has one ended run of its two seeds.
    assert "too few seeds: 1 seed, at least 3 are needed" in text
    claims = [claim for item in all_items().values() for claim in item.claims]
    assert 'class="status undecided"' in text
    assert f"None of {len(claims)} claims could be tested on these runs." in text


def as_a_command(folder, out):
    """Without JAX, and hence with a process for each core."""
    command = [sys.executable, "-m", "fisher_jax.report", str(folder), f"--out={out}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_same_runs_give_the_same_report(folder, report, tmp_path):
    done = as_a_command(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    for path in report.rglob("*.*"):
        again = (tmp_path / path.relative_to(report)).read_bytes()
        if path.name == "index.html":
            again = again.replace(str(tmp_path).encode(), str(report).encode())
        assert path.read_bytes() == again, path.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out=out"], "'nowhere' does not exist"),
        (["compare", "nowhere"], "'nowhere' does not exist"),
        (["compare", ".", "--out=a.gif"], "--out must end in .png or .pdf"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_no_runs_and_no_place_to_write(folder, tmp_path, capsys):
    assert main([str(tmp_path), "--out=x"]) == 2
    assert "no runs in" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(folder), f"--out={tmp_path / 'file' / 'out'}"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figures").write_text("")
    done = as_a_command(folder, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write")
    assert done.stderr.count("\n") == 1


def test_help_as_a_command_and_without_jax():
    code = (
        "import sys; from fisher_jax.report.__main__ import main\n"
        "import fisher_jax.report.build, fisher_jax.report.compare\n"
        "assert not {'jax', 'flax', 'tensorboardX'} & set(sys.modules)\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RUNS_DIR" in done.stdout
    assert "compare" in done.stdout


def test_durations():
    assert duration(59.6) == "1 min"
    assert duration(3 * 86400 + 7200 + 5) == "3 d 2 h"
    assert duration(0) == "0 s"
