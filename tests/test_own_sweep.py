"""The pages with sweeps of one's own: their files are sweeps, and grow as told."""

import re
from pathlib import Path

import pytest

from fisher_jax.errors import UserError
from launch.definition import fingerprint, first_difference, load_definition

PAGE = Path(__file__).parents[1] / "docs" / "own_sweep.md"


@pytest.fixture
def page():
    return PAGE.read_text()


@pytest.fixture
def defined(page, tmp_path):
    def define(*changes):
        (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "rates.py"
        file.write_text(text)
        return load_definition(str(file))

    return define


def test_the_file_of_the_page_is_the_sweep_that_it_says(page, defined):
    runs = defined().plan(None)
    assert len(runs) == 6
    assert f"`{runs[0].name}`" in page
    assert {run.overrides["optimizer.learning_rate"] for run in runs} == {
        0.01, 0.03, 0.1,
    }  # fmt: skip


def test_it_grows_and_refuses_a_changed_run(defined):
    before = fingerprint(defined())
    grown = fingerprint(defined(("(1, 2)", "(1, 2, 3)"), ("0.1)", "0.1, 0.3)")))
    assert len(grown["runs"]) == 12
    assert first_difference(grown, before) is None
    changed = fingerprint(defined(("num_epochs = 20", "num_epochs = 30")))
    assert "train.num_epochs 20 there, 30 here" in first_difference(changed, before)


def test_a_sweep_of_before_a_key_goes_on(defined):
    definition = defined()
    before = fingerprint(definition)
    younger = "measure.precision"
    older = {
        **before,
        "base": {k: v for k, v in before["base"].items() if k != younger},
    }
    assert first_difference(before, older) is None
    other = {**before, "base": {**before["base"], younger: "default"}}
    assert "measure.precision" in first_difference(before, other)


def test_a_mistyped_key_is_refused(defined):
    with pytest.raises(UserError, match="learning_rat"):
        defined(("optimizer.learning_rate", "optimizer.learning_rat"))


def test_the_three_strengths_of_the_page_on_penalties(tmp_path):
    text = (PAGE.parent / "choosing.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "strengths.py"
    file.write_text(code)
    definition = load_definition(str(file))
    runs = definition.plan(None)
    strengths = [run.overrides["penalty.coefficient"] for run in runs]
    assert strengths == [0.03, 0.1, 0.3]
    assert {run.labels["method"] for run in runs} == {"rfp_groups"}
    assert definition.base["penalty.num_groups"] == 8
