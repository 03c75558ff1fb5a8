import json
import os
import signal
import sys
import time

import pytest
from rich.console import Console

from fisher_jax.run_files import read_run
from launch import demo
from launch.processes import Job, StopRequested, main_command, run_side_by_side


def text_of(table):
    console = Console(width=120, file=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def job(tmp_path, name, code):
    return Job([sys.executable, "-c", code], tmp_path / f"{name}.log")


def test_jobs_run_side_by_side_and_report_how_they_ended(tmp_path):
    jobs = {
        "good": job(tmp_path, "good", "print('fine')"),
        "bad": job(tmp_path, "bad", "import sys; print('oh'); sys.exit(3)"),
        "late": job(tmp_path, "late", ""),
    }
    seen = []
    codes = run_side_by_side(jobs, [{}] * 2, lambda states: seen.append(dict(states)))
    assert codes == {"good": 0, "bad": 3, "late": 0}
    assert (tmp_path / "good.log").read_text() == "fine\n"
    assert seen[0]["late"] == "queued"
    assert seen[-1] == {"good": "done", "bad": "failed", "late": "done"}
    assert all(list(s.values()).count("running") <= 2 for s in seen)


def test_no_job_is_left_behind_by_an_error(tmp_path):
    """As a full disk, or a terminal that has gone."""
    jobs = {"long": job(tmp_path, "long", "import time; time.sleep(60)")}

    def fail(states):
        raise OSError("no space left")

    started = time.monotonic()
    with pytest.raises(OSError, match="no space"):
        run_side_by_side(jobs, [{}], fail)
    assert time.monotonic() - started < 30  # it has been asked to end, and has


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_jobs_first(tmp_path, number):
    jobs = {"long": job(tmp_path, "long", "import time; time.sleep(60)")}
    started = time.monotonic()
    with pytest.raises(StopRequested):
        run_side_by_side(jobs, [{}], lambda states: os.kill(os.getpid(), number))
    assert time.monotonic() - started < 30


def test_the_command_is_the_one_that_the_readme_shows(tmp_path):
    command = main_command("experiments/base.py", tmp_path, "--config.seed=1")
    assert command[1].endswith("/main.py")
    assert command[2].endswith("experiments/base.py")
    assert command[3:] == [f"--workdir={tmp_path}", "--config.seed=1"]


def test_the_tables_show_what_the_files_hold(tmp_path):
    directory = tmp_path / "fp"
    directory.mkdir()
    row = {"step": 7, "epoch": 1, "time": 12.4, "test/accuracy": 0.625,
           "train/noisy_accuracy": 0.125, "trace/fisher": 812.25}  # fmt: skip
    (directory / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    result = {"test_accuracy": 0.5, "final_train_clean_accuracy": 0.75,
              "final_train_noisy_accuracy": 0.25,
              "max_fisher_trace": 999.6}  # fmt: skip
    (directory / "result.json").write_text(json.dumps(result))
    shown = text_of(demo.progress_table(tmp_path, {"fp": "running", "rfp": "queued"}))
    for part in ("running", "62.5", "12.5", "812.2", "queued", "–"):
        assert part in shown, part
    shown = text_of(demo.result_table({"fp": read_run(directory)}))
    for part in ("50.0", "75.0", "25.0", "1000", "12"):
        assert part in shown, part
