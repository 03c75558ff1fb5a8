"""NaN and infinity where they can arise, and a clock that jumps, in a real loop."""

import itertools
import math
import time
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import optax
import pytest

from fisher_jax.train import loop
from tests.tiers import some
from tests.train import sessions
from tests.train.test_loop import small_config

STEP = 4  # of six; a checkpoint of step 3 is there by then


@pytest.fixture(scope="module")
def plan():
    return sessions.make_plan(small_config())


def poison_first(tree, value):
    """The first number of the first array replaced."""
    leaves, structure = jax.tree.flatten(tree)
    leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].set(value)
    return jax.tree.unflatten(structure, leaves)


def with_bad_data(run, value):
    @contextmanager
    def open_batches(start, stop):
        with run.feed.open_batches(start, stop) as batch_of:

            def bad_batch_of(steps):
                inputs, labels = batch_of(steps)
                is_bad = steps.start == STEP
                return (poison_first(inputs, value) if is_bad else inputs), labels

            yield bad_batch_of

    return run._replace(feed=run.feed._replace(open_batches=open_batches))


def with_bad_state(run, poison):
    def step(state, *arguments, **options):
        state = poison(state) if int(state.step) == STEP else state
        return run.step(state, *arguments, **options)

    return run._replace(step=step)


def with_bad_parameters(run, value):
    return with_bad_state(
        run, lambda state: state.replace(params=poison_first(state.params, value))
    )


def with_bad_gradient(run, value):
    """What is kept of the penalty's enters the gradient of a step between updates."""

    def poison(state):
        kept = optax.tree_utils.tree_get(state.opt_state, "penalty_gradient")
        bad = {"penalty_gradient": poison_first(kept, value)}
        return state.replace(
            opt_state=optax.tree_utils.tree_set(state.opt_state, **bad)
        )

    return with_bad_state(run, poison)


PLACES = {
    "the data": with_bad_data,
    "the parameters before the step": with_bad_parameters,
    "the gradient": with_bad_gradient,
}


CASES = [(place, value) for place in PLACES for value in (math.nan, math.inf)]


@pytest.mark.parametrize(
    ("place", "value"),
    some(CASES, [("the data", math.nan), ("the gradient", math.inf)]),
)
def test_the_first_bad_quantity_is_named(plan, tmp_path, fault, place, value):
    tally = fault(f"{value} in {place}")
    run, fresh = plan
    run = PLACES[place](run, value)
    if place == "the gradient":
        # Between two updates, so that the poisoned one is used.
        schedule = run.schedule._replace(update_every=3)
        run = run._replace(schedule=schedule)
    tally.tried()
    with pytest.raises(loop.Diverged) as diverged:
        sessions.go_on((run, fresh), tmp_path)
    assert str(diverged.value) == f"not finite at step {STEP}: {place}"
    kept = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert max(kept) == 3  # of the last epoch's end, before the fault
    # The last good checkpoint is one: training goes on from it.
    end = sessions.go_on(plan, tmp_path)
    assert int(end.state.step) == 6
    assert bool(jnp.all(jnp.isfinite(jax.tree.leaves(end.state.params)[0])))
    tally.survived()


def test_a_clock_that_jumps_back(plan, tmp_path, fault, monkeypatch):
    tally = fault("clock jumps back")
    reference = sessions.go_on(plan, tmp_path / "reference"), tmp_path / "reference"
    real, calls = time.time, itertools.count()
    # An hour back, again and again.
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * (next(calls) // 3))
    tally.tried()
    end = sessions.go_on(plan, tmp_path / "run")
    sessions.assert_same_end(end, tmp_path / "run", reference)
    tally.survived()
