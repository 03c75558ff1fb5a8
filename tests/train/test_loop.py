"""Resume, proved: from every step, a continued run equals an undisturbed one."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from fisher_jax.train import loop
from fisher_jax.train import step as training_step
from fisher_jax.train.config import check_config
from fisher_jax.train.schedule import Schedule
from tests.tiers import some
from tests.train.sessions import assert_same_end, go_on, make_plan, without_time


def small_config(**overrides):
    config = {
        "dataset.num_train": 96,
        "dataset.num_validation": 50,
        "dataset.label_noise": 0.25,
        "dataset.augment": "standard",
        "train.batch_size": 32,
        "train.num_epochs": 2,
        "optimizer.decay_epochs": (1,),
        "penalty.name": "fisher",
        "penalty.coefficient": 0.05,
        "penalty.update_every": 2,
        "penalty.num_examples": 8,
        "measure.every_steps": 2,
        "measure.fisher_examples": 16,
        "measure.gradient_examples": 8,
        "measure.train_examples": 40,
        "checkpoint.min_seconds": 0.0,
    }
    return check_config(config | overrides)


@pytest.fixture(scope="module")
def plan():
    """The run's functions, built once: compiled steps are shared by all cases."""
    return make_plan(small_config())


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    return go_on(plan, directory), directory


def test_a_run_repeats_itself(plan, undisturbed, tmp_path):
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


@pytest.mark.parametrize("step", some(range(1, 7), (1, 3, 6)))
def test_stopped_after_any_step(plan, undisturbed, tmp_path, step):
    with pytest.raises(loop.Stopped) as stopped:
        go_on(plan, tmp_path, stop_after=step)
    assert stopped.value.step == step
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


def test_stopped_at_every_step_in_turn(plan, undisturbed, tmp_path):
    for step in range(1, 7):
        with pytest.raises(loop.Stopped):
            go_on(plan, tmp_path, stop_after=step)
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


def test_killed_between_record_and_checkpoint(plan, undisturbed, tmp_path):
    """The record of a step is on disk, its checkpoint is not: the line comes anew."""
    go_on(plan, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


def test_killed_before_the_first_checkpoint(plan, undisturbed, tmp_path):
    go_on(plan, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


def test_what_is_recorded_when(undisturbed):
    rows = without_time(undisturbed[1] / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 3, 4, 6]
    assert [row["epoch"] for row in rows] == [0, 0.666667, 1, 1.333333, 2]
    for row in rows:
        at_epoch = row["step"] in (0, 3, 6)
        assert ("test/accuracy" in row) == at_epoch
        assert ("gradient/cosine" in row) == at_epoch
        assert row["trace/fisher"] > 0
        assert row["trace/fisher_sem"] > 0
        assert (
            ("minibatch/loss" in row) == ("penalty/value" in row) == (row["step"] > 0)
        )
    # Updates at steps 0, 2 and 4 fall into the records of steps 2, 3 and 6.
    assert [row["step"] for row in rows if "trace/fisher_online" in row] == [2, 3, 6]
    assert not any("trace/fisher_online_sem" in row for row in rows)  # one update each


@pytest.mark.parametrize(("mode", "number"), [("train", None), ("eval", 8)])
def test_a_penalty_of_a_batchs_own_statistics_is_no_estimate(mode, number):
    network = {"model.name": "densenet", "model.depth": 10, "model.growth_rate": 2}
    config = small_config(**network, **{"penalty.batch_norm": mode})
    functions, _ = make_plan(config)
    assert functions.penalised_examples == number


def test_every_step_has_its_own_examples_and_every_epoch_the_same(tmp_path):
    """Of a network that stands still, so that nothing else changes Tr(F)."""
    still = {
        "optimizer.learning_rate": 1e-12,
        "train.num_epochs": 3,
        "measure.fisher_estimator": "exact",
    }
    go_on(make_plan(small_config(**still)), tmp_path)
    rows = without_time(tmp_path / "metrics.jsonl")
    traces = {row["step"]: row["trace/fisher"] for row in rows}
    np.testing.assert_allclose(traces[3], traces[9], rtol=1e-5)
    drawn = [traces[step] for step in (0, 2, 4, 6, 8)]
    differences = np.abs(np.subtract.outer([*drawn, traces[3]], [*drawn, traces[3]]))
    assert np.min(differences + np.eye(6)) > 1e-3 * traces[3]


def test_best_parameters_are_those_of_the_best_validation(plan, undisturbed):
    snapshot, directory = undisturbed
    rows = [r for r in without_time(directory / "metrics.jsonl")
            if "validation/accuracy" in r]  # fmt: skip
    best = max(rows, key=lambda row: row["validation/accuracy"])
    assert int(snapshot.best.step) == best["step"]
    np.testing.assert_allclose(
        float(snapshot.best.accuracy), best["validation/accuracy"], rtol=1e-6
    )


def test_schedule_of_records():
    schedule = Schedule(
        num_epochs=5, steps_per_epoch=4,
        adds_penalty=False, update_every=1, first_step=0,
        measure_every_epochs=2, measure_every_steps=0, checkpoint_every_epochs=1,
        checkpoint_min_seconds=0.0,
    )  # fmt: skip
    due = [step for step in range(21) if schedule.is_record(step)]
    assert due == [0, 8, 16, 20]
    every_three = schedule._replace(measure_every_steps=3)
    due = [step for step in range(21) if every_three.is_record(step)]
    assert due == [0, 3, 6, 8, 9, 12, 15, 16, 18, 20]
    sparse = schedule._replace(hessian_every_epochs=4)
    due = [step for step in range(21) if sparse.has_hessian(step)]
    assert due == [0, 16, 20]


def test_counting_a_steps_work_does_not_trace_it_twice(monkeypatch):
    traced = []
    original = training_step.train_step

    def train_step(*args, renew, **options):
        traced.append(renew)
        return original(*args, renew=renew, **options)

    monkeypatch.setattr(training_step, "train_step", train_step)
    run, fresh = make_plan(small_config())
    state = fresh().state
    work = loop.work_of_a_step(run, state)
    assert work.flops > 0
    with run.feed.open_batches(0, 2) as batch_of:
        for steps in (range(1), range(1, 2)):
            renew = run.schedule.is_penalty_update(steps.start)
            state, _ = run.step(state, batch_of(steps), renew=renew)
    assert sorted(traced) == [False, True]


def test_a_device_that_does_not_count_has_the_cpus_count():
    run, fresh = make_plan(small_config())
    state = fresh().state
    counted = loop.work_of_a_step(run, state)
    # As the programs of GPUs and TPUs are.
    lowered = SimpleNamespace(cost_analysis=lambda: None)
    uncounted = SimpleNamespace(lower=lambda *_, **__: lowered)
    work = loop.work_of_a_step(run._replace(step=uncounted), state)
    assert work == counted
