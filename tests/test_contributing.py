"""CONTRIBUTING.md does what it says: its penalty, model and experiment work."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fisher_jax import models
from fisher_jax.penalties import add_penalty, scalars
from fisher_jax.train import gradients
from fisher_jax.train.config import ConfigError, check_config, load_config
from tests.train.sessions import go_on, make_plan, without_time

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# By the comment in the first line of each.
BLOCKS = dict(re.findall(r"```python\n# (.+?)\n(.*?)```", TEXT, re.DOTALL))


def test_every_example_is_run_here():
    assert set(BLOCKS) == {
        "penalty", "test of the penalty", "line of the penalty", "model", "experiment"
    }  # fmt: skip
    assert TEXT.count("```python") == len(BLOCKS)


def test_the_penalty_passes_its_test_and_trains():
    names = dict(vars(scalars))
    exec(BLOCKS["penalty"] + BLOCKS["test of the penalty"], names)
    with jax.enable_x64(True):
        names["test_gradient_of_the_logit_penalty"]()

    params, inputs = {"w": jnp.ones((4, 3))}, jnp.ones((2, 4))

    def penalty(params):
        return names["logit_penalty"](lambda p, x: x @ p["w"], params, inputs)

    optimizer = optax.chain(add_penalty(0.1), optax.sgd(1.0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(
        zeros, optimizer.init(params), params, penalty_fn=penalty
    )
    # ‖logits‖² = 3 · 4² = 48; its derivative in each weight is 2 · 4.
    np.testing.assert_allclose(penalty(params), 48)
    np.testing.assert_allclose(updates["w"], -0.1 * 8, rtol=1e-6)


@pytest.mark.parametrize("file", re.findall(r"`(fisher_jax/\S+\.py)`", TEXT))
def test_every_file_it_names_exists(file):
    assert (ROOT / file).exists()


def test_a_run_takes_the_penalty_by_its_line(tmp_path, monkeypatch):
    names = dict(vars(scalars))
    exec(BLOCKS["penalty"], names)
    line = eval("{" + BLOCKS["line of the penalty"] + "}", names)
    monkeypatch.setitem(gradients.PENALTIES, "logit", line["logit"])
    config = check_config(
        {
            "penalty.name": "logit",
            "penalty.coefficient": 0.1,
            "dataset.num_train": 64,
            "train.batch_size": 64,
            "train.num_epochs": 1,
            "measure.fisher_examples": 0,
        }
    )
    go_on(make_plan(config), tmp_path)
    assert without_time(tmp_path / "metrics.jsonl")[-1]["penalty/value"] > 0


def test_the_experiment_trains_the_model(tmp_path, monkeypatch):
    names: dict = {}
    exec(BLOCKS["model"], names)
    monkeypatch.setitem(models.MODELS, "linear", names["Linear"])
    file = tmp_path / "digits_linear.py"
    file.write_text(BLOCKS["experiment"])

    with pytest.raises(ConfigError, match="one of fp, baseline"):
        load_config(f"{file}:rfp", [])
    small = [("dataset.num_train", "64"), ("train.batch_size", "64")]
    config = load_config(str(file), [*small, ("measure.fisher_examples", "0")])
    assert config.penalty.coefficient == 0.01
    plan = make_plan(config)
    before = plan[1]().state.params
    assert sum(leaf.size for leaf in jax.tree.leaves(before)) == 650
    after = go_on(plan, tmp_path / "run").state
    assert int(after.step) == 1
    assert not np.allclose(
        after.params["Dense_0"]["kernel"], before["Dense_0"]["kernel"]
    )
