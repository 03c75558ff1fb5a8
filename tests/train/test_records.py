import errno
import fcntl
import json
import math
import os
import subprocess
import sys

import pytest

from fisher_jax.errors import UserError
from fisher_jax.train import records


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


ROWS = [
    {"step": 0, "epoch": 0, "train/loss": 2.3, "test/accuracy": 0.1,
     "validation/accuracy": 0.1, "trace/fisher": 900.0, "trace/hessian": 1.0},
    {"step": 10, "epoch": 1, "train/loss": 1.3, "test/accuracy": 0.5,
     "validation/accuracy": 0.6, "trace/fisher": 300.0, "trace/hessian": 2.0,
     "time/steps_per_second": 10.0},
    {"step": 15, "epoch": 1.5, "trace/fisher": 350.0},
    {"step": 20, "epoch": 2, "train/loss": 1.1, "test/accuracy": 0.7,
     "validation/accuracy": 0.6, "trace/fisher": 200.0,
     "time/steps_per_second": 20.0},
    {"step": 30, "epoch": 3, "train/loss": 0.9, "test/accuracy": 0.6,
     "validation/accuracy": 0.5, "trace/fisher": 100.0, "trace/hessian": 4.0,
     "train/accuracy": 0.8, "train/clean_accuracy": 0.9, "train/noisy_accuracy": 0.3,
     "time/steps_per_second": 50.0},
]  # fmt: skip


def test_records_after_the_checkpoint_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, ROWS)
    kept = records.keep_records(path, last_step=15)
    assert [row["step"] for row in kept] == [0, 10, 15]
    assert path.read_text().count("\n") == 3
    assert records.keep_records(path, last_step=15) == kept


def test_without_a_checkpoint_all_records_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, ROWS)
    assert records.keep_records(path, last_step=-1) == []
    assert path.read_text() == ""


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_half_written_last_line_is_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, ROWS[:2])
    path.write_bytes(path.read_bytes()[:-cut])
    kept = records.keep_records(path, last_step=100)
    # A line that lacks only its line break is whole.
    assert [row["step"] for row in kept] == ([0, 10] if cut == 1 else [0])
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("line", ["not json", '{"step": null}', "[]", "{}"])
def test_a_broken_line_in_the_middle_is_not_passed_over(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match="line 2"):
        records.keep_records(path, last_step=100)


def test_non_finite_numbers_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = {"step": 1, "a": math.nan, "b": math.inf, "c": 1.5, "d": None}
    records.append_record(path, records.finite_or_none(row))
    expected = {"step": 1, "a": None, "b": None, "c": 1.5, "d": None}
    assert json.loads(path.read_text()) == expected


# The kernel's own limit on a file's size stops a write part of the way, as a full disk
# does; in a process of its own, because the limit is on every file, pytest's log too.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from fisher_jax.errors import UserError
from fisher_jax.train import records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
try:
    {call}
except UserError as error:
    raise SystemExit(str(error))
"""


def fail_for_lack_of_space(path, call):
    """Runs the call under the limit and returns what it told the user."""
    code = LIMITED.format(call=call)
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True
    )
    assert process.returncode == 1, process.stderr
    return process.stderr


def test_a_record_that_cannot_be_written_leaves_no_part(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records.append_record(path, {"step": 1, "a": 1.0})
    before = path.read_bytes()
    call = "records.append_record(path, {'step': 2, 'a': 0.123456789})"
    assert "free some space" in fail_for_lack_of_space(path, call)
    assert path.read_bytes() == before


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    records.write_json(path, {"a": 1})
    call = "records.write_json(path, {'a': 'x' * 100})"
    assert "cannot write" in fail_for_lack_of_space(path, call)
    assert records.require_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_numbers_survive_to_the_last_bit(tmp_path):
    path = tmp_path / "metrics.jsonl"
    value = 0.1 + 0.2
    records.append_record(path, {"step": 1, "x": value})
    assert json.loads(path.read_text())["x"] == value


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    records.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        records.write_json(path, {(1, 2): 3})
    assert records.require_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def opened(directory, warn=pytest.fail):
    with records.open_workdir(directory, warn):
        assert directory.is_dir()


def test_the_second_process_in_a_workdir_is_refused(tmp_path):
    directory = tmp_path / "run"
    with (
        records.open_workdir(directory, pytest.fail),
        pytest.raises(UserError, match="another process"),
    ):
        opened(directory)
    opened(directory)


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with (
        pytest.raises(UserError, match="no data"),
        records.open_workdir(tmp_path / "runs" / "one", pytest.fail),
    ):
        raise UserError("no data")
    assert not list(tmp_path.iterdir())
    (tmp_path / "own").mkdir()
    opened(tmp_path / "own")
    assert not list((tmp_path / "own").iterdir())
    with records.open_workdir(tmp_path / "runs" / "two", pytest.fail):
        records.write_json(tmp_path / "runs" / "two" / "config.json", {})
    assert (tmp_path / "runs" / "two" / ".lock").exists()


def test_the_folder_of_a_sweep_is_refused(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match="a sweep's folder; choose another --workdir"):
        opened(tmp_path)


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to workdir"):
        opened(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*", "what?", "a\\b", "\udcff"])
def test_names_that_break_checkpoints_are_refused(tmp_path, name):
    """Orbax or TensorStore would write a checkpoint that it cannot read back."""
    with pytest.raises(UserError, match="in its name, and checkpoints cannot"):
        opened(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    warnings = []
    opened(tmp_path / "run", warnings.append)
    assert len(warnings) == 1
    assert "has no locks" in warnings[0]


def test_a_lock_that_fails_otherwise_is_no_other_process(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(UserError, match=r"cannot write to workdir .*Input/output"):
        opened(tmp_path / "run")


def failing(number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    return flock


def test_another_configuration_is_refused_with_its_keys(tmp_path):
    assert not records.check_same_config(tmp_path, {"a.b": 1}, {})
    records.write_json(tmp_path / "config.json", {"config": {"a": {"b": 1, "c": 2}}})
    assert records.check_same_config(tmp_path, {"a.b": 1, "a.c": 2}, {})
    with pytest.raises(UserError, match=r"a\.b 1 there, 5 here; a\.c 2 there, absent"):
        records.check_same_config(tmp_path, {"a.b": 5}, {})


def test_a_damaged_configuration_is_told(tmp_path):
    records.write_json(tmp_path / "config.json", {"config": None})
    with pytest.raises(UserError, match="damaged: its config is no object"):
        records.check_same_config(tmp_path, {}, {})


def test_a_run_is_known_by_the_defaults_of_keys_that_it_is_older_than(tmp_path):
    records.write_json(tmp_path / "config.json", {"config": {"a": {"b": 1}}})
    younger = {"a.b": 1, "a.new": None}
    assert records.check_same_config(tmp_path, younger, {"a.b": 0, "a.new": None})
    with pytest.raises(UserError, match=r"a\.new 3 there, null here"):
        records.check_same_config(tmp_path, younger, {"a.new": 3})


def test_files_of_a_run_without_config_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no config\.json"):
        records.check_same_config(tmp_path, {}, {})
