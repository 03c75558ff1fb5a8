"""Several steps in one call: the run of single steps, up to rounding."""

import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax.errors import UserError
from fisher_jax.train import assemble, loop
from fisher_jax.train import step as training_step
from fisher_jax.train.schedule import Schedule
from fisher_jax.train.surroundings import check_data
from tests.tiers import some
from tests.train import sessions
from tests.train.test_loop import small_config

TWO_EPOCHS_OF_SIX = {"dataset.num_train": 192, "measure.every_steps": 0}
METHODS = {
    "none": {"penalty.name": "none"},
    "FP": {"penalty.update_every": 4},
    "FP, each its own": {"penalty.update_every": 1},
    "mixup": {"penalty.name": "none", "mixup.beta": 0.8},
}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 100])
@pytest.mark.parametrize("every", [0, 5])
@pytest.mark.parametrize("first_step", [None, 0, 8])
def test_calls(size, every, first_step):
    """They are all steps in order, and nothing is due within one."""
    schedule = Schedule(
        num_epochs=3, steps_per_epoch=8, adds_penalty=first_step is not None,
        update_every=4, first_step=first_step or 0,
        measure_every_epochs=1, measure_every_steps=every, checkpoint_every_epochs=1,
        checkpoint_min_seconds=0.0, steps_per_call=size,
    )  # fmt: skip
    calls = list(schedule.calls(0))
    for call in calls:  # a continued run makes the same
        assert next(schedule.calls(call.start)) == call
    assert [step for call in calls for step in call] == list(range(24))
    for call in calls:
        assert len(call) in (1, size)
        for step in call[1:]:
            assert not schedule.is_penalty_update(step)
            assert not schedule.is_record(step)
            assert not schedule.is_save(step, 1.0)
    if size <= 4 or (size == 8 and not every and first_step is None):
        assert any(len(call) == size for call in calls)


@pytest.mark.parametrize("method", some(METHODS, ("FP",)))
def test_a_run_in_calls_is_the_run_of_single_steps(method, tmp_path):
    rows = {}
    for size in (1, 3):
        config = small_config(
            **TWO_EPOCHS_OF_SIX | METHODS[method], **{"train.steps_per_call": size}
        )
        directory = tmp_path / str(size)
        sessions.go_on(sessions.make_plan(config), directory)
        rows[size] = sessions.without_time(directory / "metrics.jsonl")
    assert len(rows[1]) == len(rows[3]) == 3
    for single, called in zip(rows[1], rows[3], strict=True):
        assert single.keys() == called.keys()
        for name, value in single.items():
            np.testing.assert_allclose(called[name], value, rtol=1e-4, err_msg=name)
    assert rows[1][0]["test/loss"] != rows[1][-1]["test/loss"]


@pytest.fixture(scope="module")
def plan():
    config = small_config(
        **TWO_EPOCHS_OF_SIX | METHODS["FP"], **{"train.steps_per_call": 3}
    )
    return sessions.make_plan(config)


def test_a_signal_within_a_call_ends_the_run_after_it(plan, tmp_path):
    """And it goes on to the same bits as undisturbed."""
    undisturbed = sessions.go_on(plan, tmp_path / "whole"), tmp_path / "whole"
    calls = [next(plan[0].schedule.calls(step)) for step in (0, 4)]
    assert calls == [range(3), range(4, 5)]
    with pytest.raises(loop.Stopped) as stopped:
        sessions.go_on(plan, tmp_path / "stopped", stop_after=3)
    assert stopped.value.step == 3
    continued = sessions.go_on(plan, tmp_path / "stopped")
    sessions.assert_same_end(continued, tmp_path / "stopped", undisturbed)


@pytest.mark.parametrize("bad_step", some((0, 1, 2), (1,)))
def test_the_first_bad_step_of_a_call_is_named(bad_step, tmp_path, monkeypatch):
    original = training_step.train_step

    def train_step(state, inputs, labels, **options):
        inputs = jnp.where(state.step == bad_step, jnp.nan, inputs)
        return original(state, inputs, labels, **options)

    monkeypatch.setattr(training_step, "train_step", train_step)
    config = small_config(
        **TWO_EPOCHS_OF_SIX | METHODS["none"], **{"train.steps_per_call": 3}
    )
    with pytest.raises(loop.Diverged) as diverged:
        sessions.go_on(sessions.make_plan(config), tmp_path)
    assert str(diverged.value) == f"not finite at step {bad_step}: the data"


def test_the_default_is_one_on_a_cpu(plan):
    assert assemble.steps_per_call(small_config(), plan[0].mesh, False) == 1


def test_photographs_are_refused():
    config = small_config(**{"train.steps_per_call": 2})
    with pytest.raises(UserError, match=r"train\.steps_per_call=2 is for sets that"):
        check_data(config, is_streamed=True)
    check_data(small_config(**{"train.steps_per_call": 1}), is_streamed=True)
