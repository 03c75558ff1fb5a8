"""Every sweep in experiments/: complete, valid, named once, in the paper's numbers."""

import importlib
from collections import Counter
from pathlib import Path

import pytest

from fisher_jax.train.config import flat_config
from launch.definition import load_definition

ROOT = Path(__file__).parents[1]
# Each row of section 4 of the paper's experiments, and the file that runs it.
ROWS = {
    "fig01": 1, "fig02": (2, 8), "fig07": (7, 9), "fig03": 3, "table1": (4, 10),
    "table3": (5, 11, 12), "fig06": (6, 13), "fig14": 14, "fig15": 15, "fig16": 16,
    "fig17": 17, "fig18": 18, "fig19": 19, "fig20": 20, "fig21": 21,
}  # fmt: skip
FILES = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if "def get_sweep(" in path.read_text() and path.stem != "sweeps"
)


def module_of(name):
    return importlib.import_module(f"experiments.{name}")


def test_every_figure_and_table_has_a_file():
    assert set(ROWS) | {"table1", "table2", "table3"} <= set(FILES)


@pytest.mark.parametrize("arg", ["", "small"])
@pytest.mark.parametrize("name", FILES)
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
    assert {run.labels["small"] for run in runs} == {arg == "small"}
    # Before anything is chosen only what needs no winner is there.
    first = {run.name for run in definition.plan({})}
    assert first
    assert first <= {run.name for run in runs}
    if arg == "small":
        names = {flat_config(config)["dataset.name"]}
        assert names <= {"digits", "cifar10"}


@pytest.mark.parametrize("name", FILES)
def test_the_docstring_tells_command_and_time(name):
    text = module_of(name).__doc__
    assert f"--config=experiments/{name}.py " in text
    assert f"--config=experiments/{name}.py:small" in text
    assert "Expected time:" in text


def count(name, key):
    return Counter(changes.get(key) for changes in module_of(name).get_sweep())


def test_the_papers_numbers_of_runs_and_seeds():
    fig02 = module_of("fig02").get_runs()
    seeds = Counter(run.setting for run in fig02)
    assert seeds == {"cifar10_resnet26": 96, "cifar100_resnet26": 96,
                     "imagenet_resnet18": 6}  # fmt: skip
    rates = {r.config.optimizer.learning_rate for r in fig02 if "10_" in r.setting}
    assert rates == {0.007, 0.01, 0.05}
    assert len(module_of("fig14").get_runs()) == 12 * 32
    onsets = {r.group.get("start_epoch") for r in module_of("fig03").get_runs()}
    assert onsets == {None, 1, 2, 4, 8, 16, 32, 64, 128}
    fig06 = Counter(
        (r.setting, r.group["early"], r.group["phase"])
        for r in module_of("fig06").get_runs()
    )
    assert set(fig06.values()) == {1, 8}


def test_the_papers_grids():
    table1 = module_of("table1").get_runs()
    searched = Counter((r.setting, r.method) for r in table1 if r.search)
    assert searched["cifar100_vgg11", "eta_star"] == 5
    assert searched["cifar100_vgg11", "fp"] == 10
    assert searched["tinyimagenet_wresnet", "fp"] == 5
    vgg11_fp = [r for r in table1 if (r.setting, r.method) == ("cifar100_vgg11", "fp")]
    alphas = [r.config.penalty.coefficient for r in vgg11_fp if r.search]
    assert (min(alphas), max(alphas)) == (1e-3, 1e-1)
    table3 = [r for r in module_of("table3").get_runs() if r.search]
    gp_x = {r.config.penalty.coefficient for r in table3 if r.method == "gp_x"}
    assert gp_x == {10, 30, 100, 300, 1000}
    mixup = {r.config.mixup.beta for r in table3 if r.method == "mixup"}
    assert mixup == {0.2, 0.4, 0.8, 1.6, 3.2, 6.4}
    assert all(r.config.optimizer.weight_decay == 0 for r in table3)
    fig17 = module_of("fig17").get_runs()
    alphas = sorted(r.config.penalty.coefficient for r in fig17)
    assert (len(alphas), alphas[0], alphas[-1]) == (10, 1e-4, 1e-2)


def test_a_continuation_starts_from_its_own_early_run():
    runs = load_definition(str(ROOT / "experiments/fig06.py")).plan(None)
    for run in runs:
        if run.waits_for:
            assert f"early_{run.labels['group']['early']}" in run.waits_for
            assert "phase_early" in run.waits_for
