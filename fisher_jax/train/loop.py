"""The loop: steps, records, checkpoints, and an orderly end whatever happens.

When something is written never changes what is computed: batches, draws and updates
are functions of (configuration, step), so a continued run repeats the same bits.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding
from jaxtyping import Array, Key, PyTree

from fisher_jax import measure, parallel
from fisher_jax.data.device import TrainingBatch, examples_at
from fisher_jax.errors import DataError
from fisher_jax.estimator_errors import estimator_errors
from fisher_jax.models.batch_norm import reestimate_batch_stats
from fisher_jax.train import checkpoints
from fisher_jax.train.checkpoints import Best, PenaltySum, Snapshot
from fisher_jax.train.feed import Feed
from fisher_jax.train.progress import Display
from fisher_jax.train.records import Record, append_record, finite_or_none
from fisher_jax.train.schedule import Schedule
from fisher_jax.train.signals import StopNow, StopSignals
from fisher_jax.train.speed import StepTrace, StepWork, count_flops, on_cpu, peak_flops
from fisher_jax.train.step import (
    QUANTITIES,
    StepMetrics,
    TrainState,
    penalty_value,
)
from fisher_jax.train.trackers import Tracker, finite_values


class Plan(NamedTuple):
    """All that a run computes with; made in one place, ``assemble.py``."""

    schedule: Schedule
    penalised_examples: int | None  # B, if B times the penalty estimates Tr(F)
    mesh: Mesh
    batch_shape: tuple[int, int, int, int]  # of the global batch, [B, H, W, C]
    step: Callable[..., tuple[TrainState, StepMetrics]]  # from ``compile_step``
    step_on_one_device: Callable[..., tuple[TrainState, StepMetrics]]
    eval_apply: Callable[[PyTree, PyTree, Any], Array]
    reestimation_batches: int  # of batch norm's statistics before measuring; 0: none
    feed: Feed
    measure_settings: measure.MeasureSettings
    measure_key: Key[Array, ""]


class Session(NamedTuple):
    """What surrounds one process's part of a run: its files, its person, its end.

    Attributes:
        metrics_path, tracker: None where another process writes the records.
        records: those of earlier sessions, at least the last, extended as the run goes.
        trace: of the steps that are to be profiled, if any.
    """

    metrics_path: Path | None
    records: list[Record]
    manager: checkpoints.Manager
    tracker: Tracker | None
    display: Display
    stop: StopSignals
    trace: StepTrace | None = None


class Diverged(ArithmeticError):
    """Loss or parameters are not finite; the text says at which step."""


class Stopped(Exception):
    """A signal asked for an end and the state is saved; holds the step."""

    def __init__(self, step: int):
        """Keeps the number of steps that are done and saved."""
        super().__init__(f"stopped after step {step}")
        self.step = step


def train(plan: Plan, snapshot: Snapshot, session: Session) -> Snapshot:
    """Runs from the snapshot's step to the end.

    Raises:
        Diverged: the last good checkpoint stays.
        Stopped: a signal has arrived and a checkpoint is written.
        UserError: a file could not be written.
        DataError: a file of the data set is damaged; a checkpoint is written.
    """
    start, schedule = int(snapshot.state.step), plan.schedule
    clock = _Clock(session.records)
    snapshot = _record_if_due(plan, snapshot, start, session, clock)
    saved_at = time.monotonic()
    with plan.feed.open_batches(start, schedule.total_steps) as batch_of:
        for steps in schedule.calls(start):
            previous, step, done = snapshot.metrics, steps.start, steps.stop
            if session.trace is not None:
                session.trace.before(steps, snapshot.state)
            with _saving_if_data_is_damaged(session, snapshot, step):
                batch = batch_of(steps)
            renew = schedule.is_penalty_update(step)
            state, metrics = plan.step(snapshot.state, batch, renew=renew)
            penalties = snapshot.penalties
            if renew:
                penalties = _add(penalties, penalty_value(state))
            snapshot = Snapshot(state, metrics, penalties, snapshot.best)
            # This waits for the call before, while the new one is already under way.
            _check_finite(previous, step - 1)
            session.display.show_step(done)
            session.stop.ask_all()
            with _saving_if_data_is_damaged(session, snapshot, done):
                snapshot = _record_if_due(plan, snapshot, done, session, clock)
            is_wanted = done == schedule.total_steps or session.stop.is_due
            if is_wanted or schedule.is_save(done, time.monotonic() - saved_at):
                _check_finite(metrics, done - 1)
                checkpoints.save(session.manager, snapshot, done)
                saved_at = time.monotonic()
            if session.stop.is_due:
                checkpoints.finish(session.manager)
                raise Stopped(done)
    checkpoints.finish(session.manager)
    return snapshot


def work_of_a_step(plan: Plan, state: TrainState) -> StepWork:
    """What a step does on average, once the penalty is switched on; for the log."""
    rows = parallel.split_over_devices(plan.mesh)
    inputs = jax.ShapeDtypeStruct(plan.batch_shape, jnp.float32, sharding=rows)
    labels = jax.ShapeDtypeStruct(plan.batch_shape[:1], jnp.int32, sharding=rows)
    arguments = state, (inputs, labels)

    def flops(renew: bool) -> float | None:
        # On CPUs training's own program, which JAX then keeps; else the same step, for
        # the whole batch, as one CPU would compute it.
        counted = count_flops(plan.step, *arguments, renew=renew)
        if counted is not None:
            return counted
        try:
            return count_flops(plan.step_on_one_device, *on_cpu(arguments), renew=renew)
        except RuntimeError:
            return None

    total = flops(False)
    if total is not None and plan.schedule.adds_penalty:
        with_update = flops(True)
        assert with_update is not None
        total += (with_update - total) / plan.schedule.update_every
    return StepWork(plan.batch_shape[0], total, peak_flops())


def _check_finite(metrics: StepMetrics, last_step: int) -> None:
    """Raises Diverged if the metrics of a call, whose last step it is, say so."""
    parallel.wait_for_devices(metrics.first_bad)
    steps_since, quantity = divmod(int(metrics.first_bad), len(QUANTITIES))
    if quantity:
        step = last_step - steps_since
        raise Diverged(f"not finite at step {step}: {QUANTITIES[quantity]}")


@contextmanager
def _saving_if_data_is_damaged(
    session: Session, snapshot: Snapshot, step: int
) -> Iterator[None]:
    """Saves the state before a DataError ends the run, so that nothing is lost."""
    try:
        yield
    except DataError:
        is_saved = checkpoints.latest_step(session.manager) == step
        # One process alone cannot save, and the others do not know of its error.
        if step and not is_saved and jax.process_count() == 1:
            _check_finite(snapshot.metrics, step - 1)
            checkpoints.save(session.manager, snapshot, step)
        checkpoints.finish(session.manager)
        raise


class _Clock:
    """Seconds of the run, earlier sessions included, and of training alone."""

    def __init__(self, records: list[Record]):
        before = float(records[-1].get("time") or 0.0) if records else 0.0
        self._origin = time.monotonic() - before
        self.mark, self.marked_step = time.monotonic(), -1

    def seconds(self) -> float:
        return time.monotonic() - self._origin

    def steps_per_second(self, step: int) -> float | None:
        """Since the last mark; None where no mark was set in this session."""
        if not 0 <= self.marked_step < step:
            return None
        return (step - self.marked_step) / (time.monotonic() - self.mark)

    def set_mark(self, step: int) -> None:
        self.mark, self.marked_step = time.monotonic(), step


def _record_if_due(
    plan: Plan, snapshot: Snapshot, step: int, session: Session, clock: "_Clock"
) -> Snapshot:
    """Measures, writes and shows a record where one is due and not there yet.

    A signal breaks measuring off: the snapshot is returned as it came, is saved, and
    the continued run measures it.
    """
    is_there = bool(session.records) and session.records[-1]["step"] == step
    if is_there or session.stop.is_due or not plan.schedule.is_record(step):
        return snapshot
    _check_finite(snapshot.metrics, step - 1)
    speed = clock.steps_per_second(step)
    try:
        with session.stop.interruptible():
            values = measure_state(plan, snapshot)
    except StopNow:
        return snapshot
    epoch = step / plan.schedule.steps_per_epoch
    record: Record = {
        "step": step,
        "epoch": int(epoch) if epoch.is_integer() else round(epoch, 6),
        "time": clock.seconds(),
        "time/steps_per_second": speed,
    }
    if step:
        record["minibatch/loss"] = float(snapshot.metrics.loss)
        record["minibatch/accuracy"] = float(snapshot.metrics.accuracy)
    record.update(values)
    record = finite_or_none(record)
    _write_record(record, session)
    session.records.append(record)
    session.display.show_record(record)
    clock.set_mark(step)
    return snapshot._replace(
        penalties=no_penalties(snapshot.penalties.total.sharding),
        best=_better(snapshot.best, snapshot.state, record),
    )


def _write_record(record: Record, session: Session) -> None:
    if session.metrics_path is None or session.tracker is None:
        return
    append_record(session.metrics_path, record)
    session.tracker.log(int(record["step"] or 0), finite_values(record))


def measure_state(plan: Plan, snapshot: Snapshot) -> dict[str, float]:
    """Returns what is measured at this snapshot's step, by metric name."""
    state, penalties = snapshot.state, snapshot.penalties
    step = int(state.step)
    logits_fn = jax.tree_util.Partial(plan.eval_apply, _batch_stats(plan, state, step))
    settings, probe = plan.measure_settings, plan.feed.probe
    examples = plan.feed.probe_examples
    fisher_key, hessian_key = jax.random.split(
        jax.random.fold_in(plan.measure_key, step)
    )
    values: dict[str, float] = {}
    is_epoch = plan.schedule.is_epoch_record(step)
    if is_epoch:
        values |= measure.measure_scores(logits_fn, state.params, plan.feed.splits)
    if probe.fisher_ids.size:
        fisher = examples, probe.fisher_ids
        if plan.schedule.is_step_record(step):
            fisher = plan.feed.fresh_examples(step)
        values |= measure.measure_fisher(
            logits_fn, state.params, *fisher, fisher_key, settings
        )
    if settings.hessian_probes and plan.schedule.has_hessian(step):
        values |= measure.measure_hessian(
            logits_fn, state.params, examples, probe.hessian_ids, hessian_key, settings
        )
    if is_epoch and settings.estimator_repeats and probe.fisher_ids.size:
        inputs, labels = examples_at(examples, jnp.asarray(probe.fisher_ids))
        repeats = settings.estimator_repeats
        values |= estimator_errors(
            logits_fn, state.params, inputs, labels, fisher_key, repeats
        )
    if is_epoch and probe.noisy_ids.size:
        values |= measure.measure_gradients(
            logits_fn,
            state.params,
            examples,
            probe.clean_ids,
            probe.noisy_ids,
            settings.mesh,
        )
    if plan.schedule.adds_penalty and step:
        values["penalty/value"] = float(penalty_value(state))
    if plan.penalised_examples is not None:
        total, squares, updates = map(float, penalties)
        values |= measure.online_fisher(
            total, squares, updates, plan.penalised_examples
        )
    return values


def _batch_stats(plan: Plan, state: TrainState, step: int) -> PyTree:
    """Batch norm's statistics to measure with: the running ones, or estimated anew."""
    if not (state.batch_stats and plan.reestimation_batches):
        return state.batch_stats
    # On the batches of the coming steps: random, and the same after a resume.
    ahead = range(step, step + plan.reestimation_batches)
    with plan.feed.open_batches(ahead.start, ahead.stop) as batch_of:
        batches = (batch_of(range(one, one + 1)) for one in ahead)
        inputs = (cast(TrainingBatch, batch)[0] for batch in batches)
        return reestimate_batch_stats(
            state.apply_fn, state.params, state.batch_stats, inputs
        )


def no_penalties(sharding: Sharding) -> PenaltySum:
    """Where the sum of the penalty's values starts, and starts anew at a record."""
    zero = np.zeros((), np.float32)
    return PenaltySum(*parallel.place((zero, zero, np.int32(0)), sharding))


@jax.jit
def _add(penalties: PenaltySum, value: Array) -> PenaltySum:
    total, squares, updates = penalties
    return PenaltySum(total + value, squares + value**2, updates + 1)


def _better(best: Best | None, state: TrainState, record: Record) -> Best | None:
    """The state's parameters if their validation accuracy is a new best."""
    accuracy = record.get("validation/accuracy")
    if best is None or accuracy is None:
        return best
    if np.float32(accuracy) <= np.float32(best.accuracy):
        return best
    # A copy, because the next step reuses the state's memory.
    copied = jax.tree.map(jnp.copy, (state.step, state.params, state.batch_stats))
    accuracy = parallel.place(np.float32(accuracy), best.accuracy.sharding)
    return Best(accuracy, *copied)
