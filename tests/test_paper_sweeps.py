"""Every sweep in experiments/: complete, valid, named once, in the paper's numbers."""

import importlib
from collections import defaultdict
from pathlib import Path

import pytest

from fisher_jax.report.item import all_items
from fisher_jax.run_files import FORMS
from launch.definition import load_definition

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if "\nget_config, get_sweep = " in path.read_text()
)
CLAIMED = {
    name for one in all_items().values() if one.claims for name in one.experiments
}


def module_of(name):
    return importlib.import_module(f"experiments.{name}")


def has_form(name, form):
    try:
        module_of(name).get_config(form)
    except ValueError as error:
        # What digits decide, or what is about the estimators alone, has no middle form.
        if form == "small" or "unknown variant" not in str(error):
            raise
        return False
    return True


SMALLER = [(name, form) for name in FILES for form in FORMS if has_form(name, form)]


@pytest.mark.parametrize(("name", "arg"), [*((n, "") for n in FILES), *SMALLER])
def test_the_sweep_is_valid_and_its_override_dicts_are_its_runs(name, arg, monkeypatch):
    monkeypatch.chdir(ROOT)
    definition = load_definition(f"experiments/{name}.py" + (f":{arg}" if arg else ""))
    runs = definition.plan(None)
    module = module_of(name)
    assert module.get_sweep(arg) == [dict(run.overrides) for run in runs]
    config = module.get_config(arg)
    for changes in module.get_sweep(arg):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
    assert {run.labels["form"] for run in runs} == {arg}
    # Before anything is chosen only what needs no winner is there.
    first = {run.name for run in definition.plan({})}
    assert first
    assert first <= {run.name for run in runs}
    if arg:
        assert config.dataset.name == {"small": "digits", "medium": "cifar10"}[arg]


@pytest.mark.parametrize(("name", "arg"), [*((n, "") for n in FILES), *SMALLER])
def test_the_docstring_tells_command_and_time(name, arg):
    text = module_of(name).__doc__
    assert f"--config=experiments/{name}.py{':' + arg if arg else ' '}" in text
    assert "Expected time:" in text


@pytest.mark.parametrize(
    ("name", "form"), [case for case in SMALLER if case[0] in CLAIMED]
)
def test_a_smaller_form_has_the_seeds_that_decide_a_claim(name, form):
    seeds = defaultdict(set)
    for run in module_of(name).get_runs(form):
        if run.search is None:
            seeds[run.setting, run.method, *run.group.items()].add(run.config.seed)
    assert min(map(len, seeds.values())) >= 3


def test_table_2_searches_its_own_alpha_beside_table_1s_winners():
    table1 = {run.search.name for run in module_of("table1").get_runs() if run.search}
    winners = dict.fromkeys(table1, 0.05)
    runs = module_of("table2").get_runs("", winners)
    finals = [run for run in runs if run.search is None]
    # eta* is table 1's; alpha is still to be found, for which FP's final runs wait.
    assert {run.method for run in finals} == {"eta_star"}
    assert {run.config.optimizer.learning_rate for run in finals} == {0.05}
    searched = [r for r in runs if r.search and r.method == "fp"]
    assert len(searched) == 4 * 10 + 5
    assert not {run.search.name for run in searched} & table1


def test_a_continuation_starts_from_its_own_early_run():
    runs = load_definition(str(ROOT / "experiments/fig06.py")).plan(None)
    for run in runs:
        if run.waits_for:
            assert f"early_{run.labels['group']['early']}" in run.waits_for
            assert "phase_early" in run.waits_for
