"""Sweeps: what a file defines, what searches choose, how runs stand, real runs."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from experiments.sweeps import Search
from fisher_jax.errors import UserError
from launch import folder, local, winners
from launch.definition import (
    PlannedRun,
    fingerprint,
    first_difference,
    load_definition,
)
from launch.folder import RunState
from launch.local import environments
from launch.slurm import SlurmOptions, submit
from launch.sweep import main
from launch.table import running_line, runs_table
from launch.work import Work, command_of
from tests.command import ROOT, records
from tests.compilation import quickly

HEADER = """
from experiments import base
from experiments.sweeps import *

def get_config(arg=""):
    config = base.get_config()
    config.dataset.num_train = 64
    config.dataset.num_validation = 64
    config.train.num_epochs = 2
    config.train.batch_size = 32
    config.measure.fisher_examples = 32
    return config
"""
GRID = """
def get_sweep():
    rates = (0.01, 0.1)
    return [{"seed": s, "optimizer.learning_rate": r} for r in rates for s in (0, 1)]
"""
TUNED = """
RATE = Search("digits/eta_star", "optimizer.learning_rate")
setting = get_config
def get_runs(arg="", winners=None):
    run = SweepRun(setting(), "digits", "eta_star", {})
    runs = candidates(run, RATE, (0.01, 0.03, 0.1))
    best = winner(winners, RATE, 0.03)
    if best is None:
        return runs
    final = run._replace(config=changed(run.config, {RATE.key: best}))
    later = SweepRun(
        changed(final.config, {"train.init_from": "OUT/digits-eta_star-seed_1"}),
        "digits", "baseline", {"phase": "later"})
    return runs + over_seeds(final, seeds=(1, 2)) + [later]
get_config, get_sweep = entry_points(get_runs)
"""


def experiment(tmp_path, text, name="tiny"):
    file = tmp_path / f"{name}.py"
    file.write_text(HEADER + text)
    return str(file)


def sweep(*arguments, timeout=180):
    done = subprocess.run(
        [sys.executable, "-m", "launch.sweep", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
        env=quickly(),
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def finish(out, name, status="finished", **values):
    (out / name).mkdir(parents=True, exist_ok=True)
    (out / name / "result.json").write_text(json.dumps({"status": status, **values}))


def test_override_dicts_become_named_runs_with_labels(tmp_path):
    definition = load_definition(experiment(tmp_path, GRID))
    runs = definition.plan(None)
    assert [run.name for run in runs] == [
        "learning_rate_0.01-seed_0", "learning_rate_0.01-seed_1",
        "learning_rate_0.1-seed_0", "learning_rate_0.1-seed_1",
    ]  # fmt: skip
    assert runs[2].labels == {
        "experiment": "tiny", "form": "", "setting": "digits_simple_cnn",
        "method": "baseline", "stage": "final", "seed": 0,
        "group": {"optimizer.learning_rate": 0.1},
    }  # fmt: skip


def test_what_the_caller_sets_wins_over_the_sweep(tmp_path):
    definition = load_definition(
        experiment(tmp_path, GRID), [("optimizer.learning_rate", "0.5")]
    )
    command = command_of(definition, definition.plan(None)[0], tmp_path / "out")
    assert "--config.optimizer.learning_rate=0.5" in command
    assert "--config.optimizer.learning_rate=0.01" not in command
    assert f"--workdir={tmp_path}/out/learning_rate_0.01-seed_0" in command


def test_mistakes_in_a_file_are_named(tmp_path):
    def message(text):
        with pytest.raises(UserError) as error:
            load_definition(experiment(tmp_path, text))
        return str(error.value)

    assert "no function get_sweep" in message("")
    assert "is empty" in message("def get_sweep(): return []")
    assert "did you mean 'train.num_epochs'" in message(
        "def get_sweep(): return [{'train.num_epoch': 3}]"
    )
    assert "two runs" in message("def get_sweep(): return [{}, {}]")
    assert "ZeroDivisionError" in message("def get_sweep(): return 1 / 0")
    assert "starts from 'nobody', which is not" in message(
        "def get_sweep(): return [{'train.init_from': 'OUT/nobody'}]"
    )


def test_a_changed_definition_is_told_by_its_first_difference(tmp_path):
    before = fingerprint(load_definition(experiment(tmp_path, GRID)))
    assert first_difference(before, before) is None
    longer = GRID.replace("(0, 1)", "(0, 1, 2)")
    after = fingerprint(load_definition(experiment(tmp_path, longer)))
    assert first_difference(after, before) is None
    assert first_difference(before, after) is None
    renamed = {**before, "runs": {"x": {}}}
    assert first_difference(renamed, before) == "the two have no run in common"
    runs = {name: dict(run) for name, run in before["runs"].items()}
    runs["learning_rate_0.1-seed_1"]["optimizer.momentum"] = 0.5
    changed = first_difference({**before, "runs": runs}, before)
    assert changed == (
        "learning_rate_0.1-seed_1: optimizer.momentum 0.9 there, 0.5 here"
    )
    longer = fingerprint(
        load_definition(experiment(tmp_path, GRID), [("train.num_epochs", "9")])
    )
    difference = first_difference(longer, before)
    assert difference == "every run: train.num_epochs 2 there, 9 here"


def candidates_of(*values):
    search = Search("s", "penalty.coefficient")
    return [PlannedRun(f"run_{v}", {}, {}, search, v) for v in values]


def results_of(*scores, by="best_validation_accuracy"):
    return [
        {"status": "diverged"} if s is None else {"status": "finished", by: s}
        for s in scores
    ]


@pytest.mark.parametrize(
    ("scores", "value", "at_edge"),
    [
        ((0.1, 0.3, 0.2), 2.0, False),
        ((0.3, 0.2, 0.3), 1.0, True),  # equal: the first
        ((0.1, 0.2, None), 2.0, False),  # diverged: no score
        ((0.1, 0.2, 0.3), 3.0, True),
    ],
)
def test_the_highest_validation_accuracy_wins(scores, value, at_edge):
    runs = candidates_of(1.0, 2.0, 3.0)
    results = dict(zip((r.name for r in runs), results_of(*scores), strict=True))
    entry = winners.choose(runs, results)
    assert (entry["value"], entry["at_edge"]) == (value, at_edge)
    assert [c["score"] for c in entry["candidates"]] == list(scores)
    assert bool(winners.edge_warnings({"s": entry})) is at_edge


def test_without_a_validation_split_test_accuracy_decides_and_says_so():
    runs = candidates_of(1.0, 2.0)
    scores = results_of(0.5, 0.4, by="best_test_accuracy")
    entry = winners.choose(runs, dict(zip(("run_1.0", "run_2.0"), scores)))  # noqa: B905
    assert (entry["by"], entry["value"]) == ("best_test_accuracy", 1.0)


def test_nothing_is_chosen_among_diverged_runs():
    runs = candidates_of(1.0, 2.0)
    with pytest.raises(UserError, match="all 2 runs diverged"):
        winners.choose(runs, {run.name: {"status": "diverged"} for run in runs})


def test_final_runs_appear_with_the_winner_and_wait_for_their_start(tmp_path):
    definition = load_definition(experiment(tmp_path, TUNED))
    out = tmp_path / "out"
    folder.open_folder(out, fingerprint(definition))
    work = Work(definition, out)
    searched = [f"search-digits-eta_star-learning_rate_{v}-seed_0"
                for v in ("0.01", "0.03", "0.1")]  # fmt: skip
    finals = [f"digits-eta_star-seed_{seed}" for seed in (1, 2)]
    later = "digits-baseline-phase_later-seed_0"
    assert work.names == [*searched, *finals, later]
    assert [run.name for run in work.ready()] == searched
    assert work.states[finals[0]].state == folder.WAITING
    for name, accuracy in zip(searched, (0.2, 0.3, 0.7), strict=True):
        finish(out, name, best_validation_accuracy=accuracy)
    work.refresh()
    assert [run.name for run in work.ready()] == finals
    assert work.runs[finals[0]].overrides["optimizer.learning_rate"] == 0.1
    chosen = json.loads((out / "selection.json").read_text())["digits/eta_star"]
    assert (chosen["value"], chosen["at_edge"]) == (0.1, True)
    finish(out, finals[0])
    work.refresh()
    assert [run.name for run in work.ready()] == [finals[1], later]
    command = work.prepare(work.runs[later])
    assert f"--config.train.init_from={out}/{finals[0]}" in command
    labels = json.loads((out / later / "run.json").read_text())
    assert (labels["stage"], labels["group"]) == ("final", {"phase": "later"})


def test_a_search_whose_grid_grew_is_decided_anew_and_its_runs_made_again(tmp_path):
    out = tmp_path / "out"
    definition = load_definition(experiment(tmp_path, TUNED))
    folder.open_folder(out, fingerprint(definition))
    work = Work(definition, out)
    for run, accuracy in zip(work.ready(), (0.2, 0.7, 0.3), strict=True):
        finish(out, run.name, best_validation_accuracy=accuracy)
    work.refresh()
    finals = [run.name for run in work.ready()]
    for name in finals:
        finish(out, name)
        nested = {"config": {"optimizer": {"learning_rate": 0.03}}}
        (out / name / "config.json").write_text(json.dumps(nested))
    wider = TUNED.replace("(0.01, 0.03, 0.1)", "(0.01, 0.03, 0.1, 0.3)")
    grown = load_definition(experiment(tmp_path, wider))
    assert first_difference(fingerprint(grown), fingerprint(definition)) is None
    work = Work(grown, out)
    (added,) = (run.name for run in work.ready() if run.search)
    assert "0.3" in added
    finish(out, added, best_validation_accuracy=0.9)
    work.refresh()
    assert [run.name for run in work.ready()] == finals
    assert work.runs[finals[0]].overrides["optimizer.learning_rate"] == 0.3
    (line,) = work.changes
    assert "optimizer.learning_rate is 0.3, no longer 0.03" in line
    assert all(name in line for name in finals)
    assert {path.name for path in (out / "superseded").iterdir()} == set(finals)


def test_another_sweeps_choices_can_be_taken(tmp_path):
    definition = load_definition(experiment(tmp_path, TUNED))
    out = tmp_path / "out"
    folder.open_folder(out, fingerprint(definition))
    given = {"digits/eta_star": {"value": 0.25}}
    work = Work(definition, out, given=given, only=["digits-*"])
    assert [run.name for run in work.ready()] == [
        "digits-eta_star-seed_1", "digits-eta_star-seed_2",
    ]  # fmt: skip
    assert work.ready()[0].overrides["optimizer.learning_rate"] == 0.25


def state_of(directory):
    return folder.read_state(directory, folder.locked_files())


def test_a_runs_state_is_read_from_its_files(tmp_path):
    run = tmp_path / "run"
    assert state_of(run).state == folder.QUEUED
    run.mkdir()
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (run / "metrics.jsonl").write_text(
            '{"epoch": 1, "trace/fisher": 8.5}\n{"epoch": 2, "trace/fi'
        )
        running = state_of(run)
        assert running[:3] == (folder.RUNNING, 1, 8.5)
    assert state_of(run).state == folder.INTERRUPTED
    folder.log_path(run).write_text("starting\nerror: no data\nbye\n")
    folder.note_end(run, 2)
    failed = state_of(run)
    assert failed[0] == folder.FAILED
    assert (failed.failures, failed.reason) == (1, "no data")
    folder.note_end(run, -9)
    assert state_of(run).reason == "killed by signal 9"
    assert state_of(run).failures == 2
    folder.note_end(run, -signal.SIGTERM)
    assert state_of(run).failures == 2
    folder.note_end(run, 75)
    assert state_of(run).state == folder.INTERRUPTED
    finish(tmp_path, "run", "diverged")
    assert state_of(run).state == "diverged"
    finish(tmp_path, "run")
    assert state_of(run).state == folder.DONE


def test_a_run_that_failed_too_often_is_left(tmp_path):
    definition = load_definition(experiment(tmp_path, GRID))
    out = tmp_path / "out"
    folder.open_folder(out, fingerprint(definition))
    name = "learning_rate_0.1-seed_0"
    for _ in range(3):
        folder.note_end(out / name, -9)
    assert name not in [run.name for run in Work(definition, out).ready()]
    again = Work(definition, out, max_failures=4)
    assert name in [run.name for run in again.ready()]
    # The same bad input would fail in the same way.
    again.note_end("learning_rate_0.1-seed_1", 2)
    assert "learning_rate_0.1-seed_1" not in [run.name for run in again.ready()]


def test_the_status_of_two_hundred_runs(tmp_path):
    text = GRID.replace("(0, 1)", "range(100)")
    definition = load_definition(experiment(tmp_path, text))
    out = tmp_path / "out"
    folder.open_folder(out, fingerprint(definition))
    for index, run in enumerate(definition.plan(None)):
        (out / run.name).mkdir()
        lines = [{"step": e, "epoch": e, "trace/fisher": index} for e in range(300)]
        text = "\n".join(map(json.dumps, lines)) + "\n"
        (out / run.name / "metrics.jsonl").write_text(text)
    code, output = sweep("--status", f"--out={out}")
    assert code == 0
    assert "200 runs: 200 interrupted" in output
    assert "learning_rate_0.1-seed_99" in output


def test_mistakes_on_the_command_line_get_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "")
    file = experiment(tmp_path, GRID)
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    for arguments, expected in (
        ((f"--out={tmp_path}/o",), "--config is missing"),
        ((f"--config={file}x",), "no configuration file"),
        (("--config=experiments/base.py", f"--out={tmp_path}/o"), "defines no sweep"),
        ((f"--config={file}",), "--out is missing"),
        ((f"--config={file}", f"--out={tmp_path}/file"), "cannot use the folder"),
        ((f"--config={file}", f"--out={tmp_path}/run"), "is a single run's folder"),
        ((f"--config={file}", f"--out={tmp_path}/o", "--only=x*"), "no run matches"),
        ((f"--config={file}", f"--out={tmp_path}/[x]"), "[ ] in its name"),
        ((f"--config={file}", "--out=s3://b/x"), "is a remote address"),
        ((f"--config={file}", f"--winners={file}", "--dry_run"), "selection.json"),
        (("--status", f"--out={tmp_path}/nowhere"), "no such folder"),
        ((f"--config={file}", "--excutor=slurm"), "unexpected argument"),
        ((f"--config={file}", "--executor=slrum"), "choose from"),
        ((f"--config={file}", "--at_a_time=0"), "above 0, got '0'"),
        (
            (f"--config={file}", f"--out={tmp_path}/s", "--executor=slurm"),
            "Slurm is not available here",
        ),
    ):
        assert main(list(arguments)) == 2
        output = capsys.readouterr().err
        assert output.startswith("error: "), output
        assert output.count("\n") == 1, output
        assert expected in output
    assert not (tmp_path / "s").exists()


def test_a_dry_run_prints_the_commands_of_the_runs_that_only_names(tmp_path):
    file = experiment(tmp_path, GRID)
    arguments = (f"--config={file}", f"--out={tmp_path}/o", "--dry_run")
    code, output = sweep(*arguments, "--only=*-seed_1")
    assert code == 0, output
    commands = output.splitlines()
    assert len(commands) == 2
    assert all("main.py" in line and "-seed_1 " in f"{line} " for line in commands)
    code, output = sweep(*arguments, "--only=search-*")
    assert code == 2
    assert "no run matches 'search-*'" in output


def test_a_dry_run_on_slurm_prints_the_submission(tmp_path):
    pytest.importorskip("submitit")
    file = experiment(tmp_path, GRID)
    arguments = [f"--config={file}", f"--out={tmp_path}/o", "--executor=slurm"]
    arguments += ["--account=lab", "--qos=long", "--mem=32G", "--constraint=a100"]
    arguments += ["--time=30", "--setup=module load cuda", "--setup=export A=1"]
    # In a process of its own, as submitit sets up logging when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "launch.sweep", *arguments, "--dry_run"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert {
        "#SBATCH --account=lab",
        "#SBATCH --qos=long",
        "#SBATCH --mem=32G",
        "#SBATCH --constraint=a100",
        "#SBATCH --time=30",
        "#SBATCH --array=0-3%4",
        "#SBATCH --signal=USR1@90",  # what main.py takes for "save and end"
    } <= set(lines)
    setup = lines.index("module load cuda")
    assert lines[setup + 1] == "export A=1"
    assert sum("main.py" in line for line in lines) == 4
    assert not (tmp_path / "o").exists()


def test_a_sweep_runs_is_shown_and_is_not_run_twice(tmp_path):
    # One run of the four cannot work: its learning rate makes it diverge.
    text = GRID.replace("0.1)", "1e6)").replace("(0, 1)", "(0,)")
    arguments = (f"--config={experiment(tmp_path, text)}", f"--out={tmp_path}/out")
    code, output = sweep(*arguments, "--at_a_time=2")
    assert code == 0, output
    assert "All 2 runs have ended" in output
    good = tmp_path / "out" / "learning_rate_0.01-seed_0"
    assert len(records(good)) == 3
    assert json.loads((good / "run.json").read_text())["experiment"] == "tiny"
    written = (good / "metrics.jsonl").stat().st_mtime_ns
    code, output = sweep(*arguments)
    assert code == 0, output
    assert "started" not in output
    assert (good / "metrics.jsonl").stat().st_mtime_ns == written
    _, shown = sweep("--status", f"--out={tmp_path}/out")
    assert "1 diverged, 1 done" in shown
    _, shown = sweep("--status", f"--out={tmp_path}/out", "--only=*_0.01-*")
    assert "1 done" in shown
    assert "diverged" not in shown
    code, output = sweep("--status", f"--out={tmp_path}/out", "--only=fp*")
    assert code == 2
    assert "no run matches 'fp*'" in output
    code, output = sweep(*arguments, "--config.train.num_epochs=9")
    assert code == 2
    assert "train.num_epochs 2 there, 9 here" in output


@pytest.mark.slow
def test_after_ctrl_c_the_sweep_goes_on_to_the_same_bits(tmp_path):
    text = GRID.replace("(0, 1)", "(0,)")
    long = "--config.train.num_epochs=400"
    file = f"--config={experiment(tmp_path, text)}"
    code, output = sweep(file, f"--out={tmp_path}/whole", long)
    assert code == 0, output
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.sweep", file, f"--out={tmp_path}/out", long],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    first = tmp_path / "out" / "learning_rate_0.01-seed_0"
    deadline = time.monotonic() + 120
    while len(records(first)) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command continues" in output
    assert not (first / "result.json").exists()
    _, shown = sweep("--status", f"--out={tmp_path}/out")
    assert "1 interrupted, 1 queued" in shown
    code, output = sweep(file, f"--out={tmp_path}/out", long)
    assert code == 0, output
    for name in ("learning_rate_0.01-seed_0", "learning_rate_0.1-seed_0"):
        assert records(tmp_path / "out" / name) == records(tmp_path / "whole" / name)


def test_runs_side_by_side_have_accelerators_of_their_own(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    names = [e["CUDA_VISIBLE_DEVICES"] for e in environments(None)]
    assert names == ["2", "5"]
    shared = environments(4)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in shared] == ["2", "5", "2", "5"]
    assert {e["XLA_PYTHON_CLIENT_MEM_FRACTION"] for e in shared} == {"0.450"}
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert environments(3) == [{"SLURM_NTASKS": "1"}] * 3


def test_a_step_on_slurm_gets_the_cores_of_its_job(tmp_path, monkeypatch):
    """What sbatch is given; Slurm itself: test_slurm.py."""
    for name in ("sbatch", "srun"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\necho Submitted batch job 7\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    definition = load_definition(experiment(tmp_path, GRID))
    out = tmp_path / "out"
    folder.open_folder(out, fingerprint(definition))
    work = Work(definition, out)
    jobs = submit(work, work.ready(), SlurmOptions(cpus_per_task=3))
    assert jobs == [f"7_{index}" for index in range(4)]
    script = min((out / "slurm").glob("*submission*.sh"))
    lines = script.read_text().splitlines()
    assert "#SBATCH --cpus-per-task=3" in lines
    (step,) = [line for line in lines if line.startswith("srun ")]
    assert "--cpus-per-task=3" in step.split()


def test_a_running_run_says_its_epoch_and_the_time_left(tmp_path):
    run = tmp_path / "a"
    run.mkdir()
    config = {"config": {"train": {"num_epochs": 60}}}
    (run / "config.json").write_text(json.dumps(config))
    rows = [{"step": e, "epoch": e, "time": 30 + 5.0 * e} for e in (0, 6, 12)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    state = folder.read_state(run, frozenset())
    assert (state.num_epochs, state.seconds_left) == (60, 48 * 5.0)
    states = {"a": state._replace(state=folder.RUNNING)}
    states |= {f"b{i}": RunState(folder.RUNNING) for i in range(4)}
    line = running_line(states | {"c": RunState(folder.DONE, 60)})
    assert line == (
        "a: epoch 12/60, 4:00 left; b0: starting; b1: starting; b2: starting; "
        "and 1 more"
    )
    console = Console(width=120)
    with console.capture() as capture:
        console.print(runs_table(["a"], states))
    assert "12/60" in capture.get()
    assert "4:00" in capture.get()


def test_a_redirected_sweep_says_how_its_runs_get_on(tmp_path, monkeypatch):
    definition = load_definition(experiment(tmp_path, GRID))
    out = tmp_path / "out"
    folder.open_folder(out, fingerprint(definition))
    work = Work(definition, out, only=["*0.1-seed_1"])
    # A run that takes a second: its records are there from its start.
    script = "import json, sys, time; print(json.dumps({})); time.sleep(1)"
    monkeypatch.setattr(work, "prepare", lambda run: [sys.executable, "-c", script])
    monkeypatch.setattr(local, "LINE_SECONDS", 0.3)
    monkeypatch.setattr(work, "note_end", lambda name, code: work.states.update(
        {name: RunState(folder.DONE)}
    ))  # fmt: skip
    console = Console(file=io.StringIO(), width=100)
    local.run_locally(work, local.Pool([{}]), console)
    lines = console.file.getvalue().splitlines()
    assert "learning_rate_0.1-seed_1: starting" in lines


def test_where_the_screen_is_small_what_needs_attention_is_shown():
    states = {f"run_{i}": RunState(folder.DONE, 9, 1234.5) for i in range(20)}
    states["run_3"] = RunState(folder.FAILED, failures=2, reason="no data")
    states["run_7"] = RunState(folder.RUNNING, 4, 56.78)
    states["run_11"] = RunState(folder.QUEUED)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(runs_table(list(states), states, rows=5))
    shown = capture.get()
    for part in ("run_3", "no data (2 times)", "run_7", "56.78", "run_11", "1234"):
        assert part in shown, part
    assert shown.count("│ run_") == 5
    assert "20 runs: 17 done, 1 failed, 1 queued, 1 running" in shown


@pytest.mark.slow
def test_two_at_a_time_on_two_cores_take_little_more_than_half_the_time(tmp_path):
    if len(os.sched_getaffinity(0)) < 2 or os.getloadavg()[0] > 0.7:
        pytest.skip("MACHINE BUSY or of one core: times would say nothing")
    text = GRID.replace("(0, 1)", "range(12)")
    file = f"--config={experiment(tmp_path, text)}"
    seconds = {}
    # The first fills the compilation cache for the other two.
    for out, at_a_time in (("first", 2), ("one", 1), ("two", 2)):
        started = time.monotonic()
        code, output = sweep(
            file, f"--out={tmp_path}/{out}", f"--at_a_time={at_a_time}",
            "--config.train.num_epochs=100", timeout=1800,
        )  # fmt: skip
        assert code == 0, output
        seconds[out] = time.monotonic() - started
    assert seconds["two"] <= 0.6 * seconds["one"], seconds
    runs = sorted((tmp_path / "one").glob("*/metrics.jsonl"))
    assert len(runs) == 24
    for path in runs:
        other = tmp_path / "two" / path.parent.name
        assert records(path.parent) == records(other)
