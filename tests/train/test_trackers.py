"""Trackers for real: W&B offline and MLflow's local store, continued runs included."""

import importlib.util
import json
import math
import signal
import struct
import subprocess
import sys

import pytest

from fisher_jax.errors import UserError
from fisher_jax.train.trackers import (
    TrackedRun,
    finite_values,
    open_tracker,
    require_tracker,
)
from tests.command import SMALL, run, signal_when, start

CONFIG = {"seed": 3, "penalty.name": "fisher", "train.init_from": None}


def needs(package):
    """Skips, loudly, where a tracker's package is not installed."""
    missing = importlib.util.find_spec(package) is None
    reason = f"TRACKER TEST SKIPPED: {package} is not installed"
    return pytest.mark.skipif(missing, reason=reason)


def tracked(directory, kept_steps=(), first_step=0):
    records = [{"step": s, "epoch": s / 10, **values_of(s)} for s in kept_steps]
    return TrackedRun(directory, CONFIG, records, first_step)


def values_of(step):
    return {"trace/fisher": 1.5 * step, "test/accuracy": 0.5}


def log_steps(tracker, steps):
    for step in steps:
        tracker.log(step, values_of(step))


def session(directory, kind, kept_steps, first_step, steps, status):
    """One session of a run in a process of its own; no status: it is killed."""
    code = (
        "import os, pathlib, signal, sys, time\n"
        "from fisher_jax.train.trackers import open_tracker\n"
        "from tests.train.test_trackers import log_steps, tracked\n"
        f"run = tracked(pathlib.Path(sys.argv[1]), {kept_steps}, {first_step})\n"
        f"tracker = open_tracker({kind!r}, run)\n"
        f"log_steps(tracker, {steps})\n"
        f"if {status!r}: tracker.end({status!r}); tracker.close()\n"
        # Event files are named by the second: the next session starts in another.
        "else: time.sleep(1.1); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (0 if status else -9), done.stderr


def killed_and_continued(directory, kind):
    """Steps 0 to 20, a kill, then from a checkpoint of step 10 on to the end at 40."""
    session(directory, kind, (), 0, (0, 10, 20), None)
    session(directory, kind, (0, 10), 11, (20, 30, 40), "finished")


def test_records_become_finite_metrics():
    record = {"step": 1, "epoch": 0.5, "time": 3.0, "train/loss": 2, "a/b": None}
    record |= {"test/loss": math.inf}
    assert finite_values(record) == {"train/loss": 2.0}


def test_a_missing_package_is_one_line_that_says_how_to_get_it(tmp_path, monkeypatch):
    for package in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
        hint = rf"pip install -e '\.\[{package}\]' in a clone"
        with pytest.raises(UserError, match=hint) as caught:
            open_tracker(package, tracked(tmp_path))
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=hint):
            require_tracker(package)
    require_tracker("tensorboard")


def test_a_run_is_named_by_the_last_two_parts_of_its_folder(tmp_path):
    assert tracked(tmp_path / "table1" / "seed_3").name == "table1/seed_3"


def steps_in(folder):
    """Steps that TensorBoard shows, and from which steps on they were purged."""
    from tensorboardX.proto.event_pb2 import Event

    found, purged_from = [], []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == 1:  # START: later steps before do not count
                purged_from.append(event.step)
                found = [step for step in found if step < event.step]
            found += [
                event.step for v in event.summary.value if v.tag == "trace/fisher"
            ]
    return found, purged_from


def test_tensorboard_purges_the_steps_that_are_computed_again(tmp_path):
    killed_and_continued(tmp_path, "tensorboard")
    found, purged_from = steps_in(tmp_path / "tensorboard")
    assert found == [0, 10, 20, 30, 40]
    assert purged_from == [0, 10]  # the last kept record is written again


def test_a_killed_session_has_lost_no_record_of_tensorboard(tmp_path):
    session(tmp_path, "tensorboard", (), 0, (0, 10, 20), None)
    assert steps_in(tmp_path / "tensorboard")[0] == [0, 10, 20]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write to .*tensorboard"):
        open_tracker("tensorboard", tracked(tmp_path))


def wandb_messages(path):
    """The records of an offline file: LevelDB's log after a header of 7 bytes."""
    data, position, parts, header = path.read_bytes(), 7, b"", struct.Struct("<IHB")
    while position + header.size <= len(data):
        left = 32768 - position % 32768
        if left < header.size:
            position += left
            continue
        _, length, kind = header.unpack_from(data, position)
        position += header.size
        parts += data[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@needs("wandb")
@pytest.mark.slow
def test_wandb_offline_stays_one_run_without_duplicates(tmp_path, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    killed_and_continued(tmp_path, "wandb")
    logs = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(logs) == 2
    ids, steps, values, config = set(), [], [], {}
    for log in logs:
        for message in wandb_messages(log):
            record = Record.FromString(message)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                for update in record.run.config.update:
                    config[update.key] = json.loads(update.value_json)
            if record.HasField("history"):
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                steps.append(record.history.step.num)
                values.append(items["trace/fisher"])
    assert len(ids) == 1
    assert steps == [0, 10, 20, 30, 40]
    assert values == [0, 15, 30, 45, 60]
    assert config["penalty.name"] == "fisher"


@needs("wandb")
@pytest.mark.slow
def test_wandb_without_a_login_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    code = (
        "import pathlib, sys\n"
        "from fisher_jax.errors import UserError\n"
        "from fisher_jax.train.trackers import open_tracker\n"
        "from tests.train.test_trackers import tracked\n"
        "try: open_tracker('wandb', tracked(pathlib.Path(sys.argv[1])))\n"
        "except UserError as error: print('one line:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    line = done.stdout.strip().splitlines()[-1]
    assert line.startswith("one line: cannot start tracker=wandb"), done.stderr
    assert line.endswith("or set WANDB_MODE=offline")


@pytest.fixture
def local_store(tmp_path, monkeypatch):
    """MLflow as a user without any setting has it."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(None)
    yield f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(None)


def mlflow_history(uri, name="trace/fisher"):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fisher_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(run.info.run_id, name)
    return run, sorted((point.step, point.value) for point in points)


@needs("mlflow")
@pytest.mark.slow
def test_mlflow_stays_one_run_without_duplicates(tmp_path, local_store):
    killed_and_continued(tmp_path, "mlflow")
    run, points = mlflow_history(local_store)
    assert points == [(0, 0.0), (10, 15.0), (20, 30.0), (30, 45.0), (40, 60.0)]
    assert run.info.status == "FINISHED"
    assert run.data.params["penalty.name"] == "fisher"
    assert run.info.run_name == "/".join(tmp_path.parts[-2:])


@needs("mlflow")
@pytest.mark.slow
def test_mlflow_that_fails_for_a_while_loses_nothing(tmp_path, local_store):
    from mlflow.exceptions import MlflowException

    tracker = open_tracker("mlflow", tracked(tmp_path))
    send = tracker._client.log_batch

    def fail(*args, **kwargs):
        raise MlflowException("the server is away")

    tracker._client.log_batch = fail
    with pytest.warns(UserWarning, match="values wait: the server is away"):
        log_steps(tracker, (0, 10))
    tracker._client.log_batch = send
    log_steps(tracker, (20,))
    tracker.end("diverged")
    tracker.close()
    run, points = mlflow_history(local_store)
    assert [step for step, _ in points] == [0, 10, 20]
    assert run.info.status == "FAILED"


@needs("mlflow")
@pytest.mark.slow
def test_a_damaged_id_is_one_line(tmp_path, local_store):
    (tmp_path / "mlflow_run.json").write_text("{")
    with pytest.raises(UserError, match=r"mlflow_run\.json"):
        open_tracker("mlflow", tracked(tmp_path))


@needs("mlflow")
@pytest.mark.slow
def test_a_real_run_killed_and_continued_is_one_mlflow_run(tmp_path, local_store):
    arguments = (*SMALL, f"--workdir={tmp_path}", "--config.tracker=mlflow")
    arguments += ("--config.train.num_epochs=3", "--config.checkpoint.min_seconds=0")
    process = start(*arguments)
    metrics = tmp_path / "metrics.jsonl"

    def has_two_records():
        return metrics.exists() and metrics.read_bytes().count(b"\n") >= 2

    signal_when(process, signal.SIGKILL, has_two_records)
    code, output = run(*arguments)
    assert code == 0, output
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    tracked_run, points = mlflow_history(local_store)
    assert points == [(row["step"], row["trace/fisher"]) for row in rows]
    assert tracked_run.info.status == "FINISHED"
