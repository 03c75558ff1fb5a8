"""Where a run's metrics go beside metrics.jsonl: TensorBoard, W&B or MLflow.

metrics.jsonl is the record; a tracker shows it. A continued run stays one run in each
tracker and no step appears twice, although the steps since the last checkpoint are
computed again. What is sent by the environment (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, ...) is left to the libraries.
"""

import importlib
import math
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from fisher_jax.errors import UserError, one_line
from fisher_jax.run_files import DIVERGED, FINISHED
from fisher_jax.train.records import require_json, write_json

PROJECT = "fisher_jax"


class Tracker(Protocol):
    """What the loop needs of a tracker."""

    last_step: int  # that it holds; earlier ones are not sent again

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values, finite numbers by metric name, of a step."""

    def end(self, status: str) -> None:
        """Says that the run is over, finished or diverged; else it will go on."""

    def close(self) -> None:
        """Writes or sends what is left and lets go."""


class TrackedRun(NamedTuple):
    """What a tracker is told of a run when it starts or continues.

    Attributes:
        directory: the run directory, which also holds the tracker's own files.
        config: flat, as JSON holds it.
        records: of earlier sessions, as far as they are kept; the steps after the
            last of them are computed now.
        first_step: the first step that is computed now.
    """

    directory: Path
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, float | int | None]]
    first_step: int

    @property
    def name(self) -> str:
        """The last two parts of the run's folder, which tell it in a sweep."""
        return "/".join(self.directory.absolute().parts[-2:])


def require_tracker(tracker: str) -> None:
    """Refuses a tracker whose package is missing, before anything is written.

    Raises:
        UserError: saying which extra brings it.
    """
    if tracker == "tensorboard":
        return  # tensorboardX is a part of the extra train
    try:
        importlib.import_module(tracker)
    except ImportError as error:
        raise UserError(
            f"tracker={tracker} needs a package that is not installed: "
            f"pip install -e '.[{tracker}]' in a clone"
        ) from error


def open_tracker(tracker: str, run: TrackedRun) -> Tracker:
    """Starts or continues the run in a tracker.

    Kept records that it lost when an earlier session was killed are sent once more.

    Args:
        tracker: a choice of the key ``tracker``.

    Raises:
        UserError: its package is missing or it cannot be reached.
    """
    opened: Mapping[str, Callable[[TrackedRun], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
        "mlflow": MLflow,
    }
    require_tracker(tracker)
    started = opened[tracker](run)
    for record in run.records:
        step = int(record["step"] or 0)
        if step > started.last_step:
            started.log(step, finite_values(record))
    return started


class TensorBoard:
    """Event files in the run's ``tensorboard/``; recomputed steps replace theirs.

    Each record is on its way to the disk before the next step, so that a killed session
    has lost the last one at most: the last kept one is written again.
    """

    def __init__(self, run: TrackedRun):
        """Opens an event file that purges the steps that are written again.

        Raises:
            UserError: it cannot be written.
        """
        kept = run.records[-1:]
        first = int(kept[0]["step"] or 0) if kept else run.first_step
        self.last_step = first - 1
        self._folder = run.directory / "tensorboard"
        self._has_failed = False
        with self._telling():
            self._folder.mkdir(parents=True, exist_ok=True)
            # By the process, too: TensorBoard's own names differ by seconds only.
            suffix = f".{os.getpid()}"
            self._file = EventsWriter(str(self._folder / "events"), suffix)
            start = SessionLog(status=SessionLog.START)
            self._write(Event(session_log=start, step=first, wall_time=time.time()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values.

        Raises:
            UserError: they cannot be written, for instance to a full disk.
        """
        with self._telling():
            for name, value in values.items():
                summary = scalar(name, value)
                self._file.write_event(
                    Event(summary=summary, step=step, wall_time=time.time())
                )
            self._file.flush()
        self.last_step = step

    def end(self, status: str) -> None:
        """Nothing: event files do not hold how a run ended."""

    def close(self) -> None:
        """Closes the file.

        Raises:
            UserError: what is left cannot be written, and it was not told before.
        """
        if self._has_failed:
            with suppress(OSError):
                self._file.close()
            return
        with self._telling():
            self._file.close()

    def _write(self, event: Event) -> None:
        self._file.write_event(event)
        self._file.flush()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns a failed write into one line that says what to do."""
        try:
            yield
        except OSError as error:
            self._has_failed = True
            raise UserError(
                f"cannot write to {self._folder}: {one_line(error)}; free some space "
                "and run the same command again"
            ) from error


class WeightsAndBiases:
    """A run of W&B, online or (``WANDB_MODE=offline``) in the run's ``wandb/``.

    Online the server knows which steps it has. Offline nobody does after a kill, as W&B
    writes with a delay: values are handed over when a session ends, and what has
    arrived is noted in ``wandb_run.json``. Those of a killed session are handed over at
    the end of the next. Each offline session is a folder of its own with the same run
    id; ``wandb sync`` makes one run of them.
    """

    def __init__(self, run: TrackedRun):
        """Starts or resumes the W&B run whose id the run directory keeps."""
        import wandb

        self._path = run.directory / "wandb_run.json"
        identifier = _kept_id(self._path, lambda: uuid.uuid4().hex[:12])
        try:
            self._run = wandb.init(
                project=PROJECT,
                name=run.name,
                id=identifier,
                resume="allow",
                dir=str(run.directory),
                config=dict(run.config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, OSError) as error:
            raise UserError(
                f"cannot start tracker=wandb: {one_line(error)}; log in with 'wandb "
                "login', or set WANDB_MODE=offline"
            ) from error
        self._is_offline = bool(self._run.offline)
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self.last_step = int(require_json(self._path).get("last_step", -1))
        if not self._is_offline:
            self.last_step = self._run.starting_step - 1
        self._exit_code = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands the values to W&B's own process; offline, keeps them until the end.

        Steps that it holds are not sent again: what is recomputed is the same bit for
        bit.
        """
        if step <= self.last_step:
            return
        self.last_step = step
        if self._is_offline:
            self._waiting.append((step, dict(values)))
        else:
            self._run.log(dict(values), step=step)

    def end(self, status: str) -> None:
        """Keeps whether the run failed, which W&B is told at its close."""
        self._exit_code = int(status == "diverged")

    def close(self) -> None:
        """Waits until everything is written or sent."""
        for step, values in self._waiting:
            self._run.log(dict(values), step=step)
        self._run.finish(exit_code=self._exit_code)
        if self._is_offline:
            noted = require_json(self._path) | {"last_step": self.last_step}
            write_json(self._path, noted)


class MLflow:
    """A run of MLflow: at MLFLOW_TRACKING_URI, else in the run's ``mlflow.db``.

    The store is asked which step it has last. If it fails for a while the values are
    kept and sent with the next ones, and training goes on.
    """

    def __init__(self, run: TrackedRun):
        """Starts or resumes the MLflow run whose id the run directory keeps."""
        import mlflow
        from mlflow.entities import Metric, Param

        self._error, self._metric = mlflow.exceptions.MlflowException, Metric
        self._unsent: list[Any] = []
        try:
            if not mlflow.is_tracking_uri_set():
                path = (run.directory / "mlflow.db").absolute()
                mlflow.set_tracking_uri(f"sqlite:///{path}")
            self._client = mlflow.tracking.MlflowClient()
            self._id = _kept_id(
                run.directory / "mlflow_run.json", lambda: self._create(run)
            )
            self._client.update_run(self._id, "RUNNING")
            if not self._client.get_run(self._id).data.params:
                parameters = [Param(k, str(v)) for k, v in run.config.items()]
                self._client.log_batch(self._id, params=parameters)
            self.last_step = self._held_step()
        except (self._error, ImportError, OSError) as error:
            raise UserError(
                f"cannot start tracker=mlflow at {mlflow.get_tracking_uri()}: "
                f"{one_line(error)}"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values, after those that could not be sent before."""
        if step <= self.last_step:
            return
        now = int(1000 * time.time())
        self._unsent += [self._metric(n, v, now, step) for n, v in values.items()]
        self.last_step = step
        self._send()

    def end(self, status: str) -> None:
        """Tells the store how the run ended; one that goes on stays RUNNING."""
        self._send()
        states = {FINISHED: "FINISHED", DIVERGED: "FAILED"}
        try:
            self._client.set_terminated(self._id, states[status])
        except self._error as error:
            _warn(f"MLflow does not know that the run has ended: {one_line(error)}")

    def close(self) -> None:
        """Sends what is left."""
        self._send()

    def _send(self) -> None:
        # 1000 is the most that a store takes at once.
        while self._unsent:
            batch = self._unsent[:1000]
            try:
                self._client.log_batch(self._id, metrics=batch)
            except self._error as error:
                _warn(f"MLflow: {len(self._unsent)} values wait: {one_line(error)}")
                return
            del self._unsent[: len(batch)]

    def _create(self, run: TrackedRun) -> str:
        experiment = self._client.get_experiment_by_name(PROJECT)
        identifier = (
            self._client.create_experiment(PROJECT)
            if experiment is None
            else experiment.experiment_id
        )
        return self._client.create_run(identifier, run_name=run.name).info.run_id

    def _held_step(self) -> int:
        names = self._client.get_run(self._id).data.metrics
        steps = [
            point.step
            for name in names
            for point in self._client.get_metric_history(self._id, name)
        ]
        return max(steps, default=-1)


def finite_values(record: Mapping[str, float | int | None]) -> dict[str, float]:
    """Returns a record's metrics: what has a slash in its name and a finite value."""
    return {
        name: float(value)
        for name, value in record.items()
        if "/" in name and value is not None and math.isfinite(value)
    }


def _kept_id(path: Path, create: Callable[[], str]) -> str:
    """The run's id in the tracker, made once and kept in the run directory."""
    if path.exists():
        try:
            return str(require_json(path)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"cannot read {path}; remove it to start tracking afresh"
            ) from error
    identifier = create()
    write_json(path, {"id": identifier})
    return identifier


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
