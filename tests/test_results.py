"""What docs/results.md says of the runs is what the archive supports."""

import re
from pathlib import Path

from docs.results import ARCHIVE, PAGE, with_parts
from fisher_jax.report.collect import load_runs

TEXT = PAGE.read_text()


def test_the_tables_are_those_of_the_archive():
    assert with_parts(TEXT, load_runs([ARCHIVE])) == TEXT, "run python -m docs.results"


def test_runs_that_are_named_are_there():
    named = re.findall(r"`?(results/[\w./-]+)", TEXT)
    assert len(named) >= 2
    for name in named:
        assert (Path(ARCHIVE).parent / name).exists(), name


def test_the_readme_says_the_same():
    counts = re.search(
        r"Of the paper's (\d+) claims \d+ have runs: (\d+) hold, (\d+) fail, (\d+) ",
        TEXT,
    )
    readme = " ".join((ARCHIVE.parent / "README.md").read_text().split())
    told = "Of the paper's {} claims {} hold in our runs, {} fail and {} are undecided"
    assert counts
    assert told.format(*counts.groups()) in readme
    interval = re.search(r"by (\S+) points (\S+, \S+) \(five seeds\)", readme)
    assert interval
    assert f"by {interval[1]} points {interval[2]}" in " ".join(TEXT.split())
