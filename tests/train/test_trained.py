"""What a run has trained, loaded by those who look at it afterwards."""

import re
import shutil

import jax
import numpy as np
import pytest

from fisher_jax import measure, parallel
from fisher_jax.curvature import fisher_trace
from fisher_jax.errors import UserError
from fisher_jax.train import assemble, load_run
from fisher_jax.train.step import make_eval_apply
from tests import command
from tests.compilation import quickly

ARGUMENTS = (
    *command.SMALL,
    "--config.train.num_epochs=4",
    # So fast that the last epoch is not the best.
    "--config.optimizer.learning_rate=0.2",
    "--config.optimizer.decay_epochs=()",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, trained on two devices; this process has one."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    two = quickly("--xla_force_host_platform_device_count=2")
    code, output = command.run(
        *ARGUMENTS, f"--workdir={workdir}", environment=two, timeout=300
    )
    assert code == 0, output
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize("which", ["final", "best"])
def test_they_score_what_the_run_recorded(run, which):
    model, variables, config = load_run(run, which)
    mesh = parallel.make_mesh()
    plan, _ = assemble.build(config, assemble.load_data(config), mesh)
    logits_fn = jax.tree_util.Partial(make_eval_apply(model), {})
    scores = measure.measure_scores(logits_fn, variables["params"], plan.feed.splits)
    records = [r for r in command.records(run) if "validation/accuracy" in r]
    chosen = records[-1]
    if which == "best":
        chosen = max(records, key=lambda r: r["validation/accuracy"])
        assert chosen is not records[-1]
    for name, value in scores.items():
        np.testing.assert_allclose(value, chosen[name], rtol=1e-5, err_msg=name)


def test_the_guides_example_runs(run, request):
    guide = (request.config.rootpath / "docs" / "guide.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert '"runs/digits_fp"' in code
    names = {}
    exec(code.replace('"runs/digits_fp"', repr(str(run))), names)
    model, variables, config = load_run(str(run))
    assert config.penalty.name == "fisher"
    expected = fisher_trace(
        lambda p, x: model.apply({"params": p}, x),
        variables["params"],
        names["inputs"],
        estimator="exact",
    )
    assert names["trace"].mean == expected.mean > 0


PROBLEMS = {
    "no folder": (lambda copy: shutil.rmtree(copy), "has no config.json"),
    "no checkpoints": (
        lambda copy: shutil.rmtree(copy / "checkpoints"),
        "has no checkpoints folder",
    ),
    "none saved": (
        lambda copy: [shutil.rmtree(p) for p in (copy / "checkpoints").iterdir()],
        "has not saved one yet",
    ),
    "damaged": (
        lambda copy: [
            p.write_bytes(b"") for p in (copy / "checkpoints").rglob("*") if p.is_file()
        ],
        "no intact checkpoint",
    ),
    "another network": (
        lambda copy: (copy / "config.json").write_text(
            (copy / "config.json").read_text().replace("8x8x1, 10", "8x8x1, 11")
        ),
        "do not fit the network in its config.json",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_cannot_be_loaded_is_told_in_one_line(copy, problem):
    spoil, said = PROBLEMS[problem]
    spoil(copy)
    with pytest.raises(UserError, match=said) as caught:
        load_run(copy)
    assert "\n" not in str(caught.value)


def test_without_validation_there_is_no_best(tmp_path):
    """And batch norm's running statistics come with the final ones."""
    code, output = command.run(
        "--config=experiments/base.py",
        f"--workdir={tmp_path}",
        "--config.model.name=resnet",
        "--config.model.depth=8",
        "--config.model.normalisation=batch_norm",
        "--config.dataset.num_train=64",
        "--config.train.batch_size=32",
        "--config.train.num_epochs=1",
        "--config.measure.fisher_examples=0",
        "--config.measure.train_examples=32",
        environment=quickly(),
        timeout=300,
    )
    assert code == 0, output
    with pytest.raises(UserError, match=r"no best parameters, .*num_validation=0"):
        load_run(tmp_path, "best")
    with pytest.raises(ValueError, match="'final' or 'best'"):
        load_run(tmp_path, "last")
    model, variables, _ = load_run(tmp_path)
    assert variables.keys() == {"params", "batch_stats"}
    inputs = np.ones((2, 8, 8, 1), np.float32)
    assert model.apply(variables, inputs, train=False).shape == (2, 10)
    moved = [float(abs(m).max()) for m in jax.tree.leaves(variables["batch_stats"])]
    assert max(moved) > 0
