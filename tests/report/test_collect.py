"""Reading what sweeps leave behind: whole, broken off, damaged, mixed."""

import json
import math

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.errors import UserError
from fisher_jax.report.choose import one_version
from fisher_jax.report.collect import load_runs, run_status
from fisher_jax.run_files import find_runs, read_run

FP = {"penalty.coefficient": 0.1, "train.num_epochs": 4, "seed": 3}


@pytest.fixture
def run(tmp_path):
    return write_run(
        tmp_path / "sweep" / "run-1", experiment="table1", changes=CNN | FP, method="fp"
    )


def row_of(folder):
    table = load_runs([folder]).rows
    assert len(table) == 1
    return table.iloc[0]


def test_a_run_of_a_sweep_is_described_by_run_json_and_configuration(run):
    row = row_of(run.parents[1])
    assert (row["experiment"], row["method"], row["stage"]) == ("table1", "fp", "final")
    assert row["setting_label"] == "SimpleCNN / CIFAR-10"
    assert (row["coefficient"], row["seed"], row["num_epochs"]) == (0.1, 3, 4)
    assert (row["status"], row["last_epoch"]) == ("finished", 4)
    assert row["version_label"] == "12345678, jax 0.10.2"


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"penalty.name": "fisher"}, "fp"),
        ({"penalty.name": "fisher", "penalty.draw": "rademacher"}, "rfp"),
        ({"penalty.name": "fisher_single"}, "fp_single"),
        ({"penalty.name": "gradient"}, "gp"),
        ({"penalty.name": "random_label"}, "gp_r"),
        ({"penalty.name": "input_gradient"}, "gp_x"),
        ({"mixup.beta": 0.4}, "mixup"),
        ({"sam.radius": 0.05}, "sam"),
        ({}, "baseline"),
    ],
)
def test_without_run_json_the_method_follows_from_the_configuration(
    tmp_path, changes, method
):
    strength = {"penalty.coefficient": 0.1, "train.num_epochs": 2}
    write_run(
        tmp_path / "r", experiment="digits_fp", changes=strength | changes, place=False
    )
    row = row_of(tmp_path)
    assert (row["experiment"], row["method"]) == ("digits_fp", method)
    assert row["form"] == ""


def test_a_run_that_broke_off_is_incomplete(tmp_path):
    write_run(
        tmp_path / "r", experiment="fig02", changes=CNN | FP, until_epoch=2, method="fp"
    )
    row = row_of(tmp_path)
    assert (row["status"], row["last_epoch"]) == ("incomplete", 2)
    assert row["early_fisher_trace"] > 0
    assert row["test_accuracy"] is None


def test_unreadable_lines_and_files_are_counted_and_named(run):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n[1, 2]\n"text"\n{"step": 9}\n{"step": 500, "epo')
    (run / "result.json").write_text("{")
    runs = load_runs([run])
    assert runs.rows["unreadable_lines"].iloc[0] == 5
    assert runs.problems == (
        f"{run}: 5 unreadable lines of metrics.jsonl skipped",
        f"{run}: result.json is not readable",
    )
    # Its records reach the end, so it counts as finished all the same.
    assert runs.rows["status"].iloc[0] == "finished"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": 3}', "nonsense"])
def test_a_run_without_a_usable_configuration_does_not_stop_the_report(run, content):
    (run / "config.json").write_text(content)
    row = row_of(run)
    assert row["experiment"] == "table1"
    assert row["dataset"] == "?"


def test_text_and_nan_among_the_metrics_are_no_numbers(run):
    line = {"step": 500, "epoch": 5, "test/accuracy": "0.9", "trace/fisher": None}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.write('{"step": 600, "epoch": 6, "trace/fisher": NaN, "x": [1]}\n')
    frame = next(iter(load_runs([run]).metrics.values()))
    assert frame["test/accuracy"].iloc[-2:].isna().all()
    assert frame["trace/fisher"].iloc[-2:].isna().all()
    assert "x" not in frame


def test_a_repeated_step_counts_once_by_its_last_line(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    changed = json.dumps(json.loads(lines[1]) | {"test/accuracy": 0.125})
    (run / "metrics.jsonl").write_text("\n".join([*lines, changed]))
    frame = next(iter(load_runs([run]).metrics.values()))
    assert list(frame["step"]) == [0, 100, 200, 300, 400]
    assert frame["test/accuracy"].iloc[1] == 0.125


def test_the_same_run_twice_is_no_second_seed(run, tmp_path):
    write_run(
        tmp_path / "again",
        experiment="table1",
        changes=CNN | FP,
        method="fp",
        until_epoch=2,
    )
    runs = load_runs([tmp_path])
    assert list(runs.rows["last_epoch"]) == [4]
    assert runs.problems[-1].startswith("1 repeated runs")
    other_code = {"experiment": "table1", "method": "fp", "commit": "f" * 40}
    write_run(tmp_path / "new code", changes=CNN | FP, **other_code)
    assert len(load_runs([tmp_path]).rows) == 2


def test_commits_of_the_same_code_are_one_version(tmp_path):
    """A sweep that grew after a commit of documents is averaged, seed by seed."""
    codes = (("a" * 40, "1"), ("b" * 40, "1"), ("b" * 40 + "+changes", "2345678"))
    for seed, (commit, code) in enumerate(codes):
        path = write_run(
            tmp_path / str(seed),
            experiment="own",
            changes=CNN | {"seed": seed},
            commit=commit,
        )
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "code_hash": code}))
    rows = load_runs([tmp_path]).rows
    kept = one_version(rows)
    assert list(kept.rows["seed"]) == [0, 1]
    (note,) = kept.notes
    assert note.startswith("1 run by other code (bbbbbbbb+changes (2345), jax")


def test_folders_may_overlap_and_runs_are_not_looked_for_inside_runs(run):
    (run / "checkpoints" / "7").mkdir(parents=True)
    (run / "checkpoints" / "config.json").write_text("{}")
    sweep = run.parent
    assert find_runs([sweep, run, sweep.parent]) == [run]


def test_links_are_followed_but_not_in_circles(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sweep").symlink_to(run.parent)
    (run.parent / "up").symlink_to(tmp_path)
    assert [path.resolve() for path in find_runs([elsewhere])] == [run.resolve()]


def test_an_empty_run_directory_is_read_as_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    runs = load_runs([tmp_path])
    assert runs.rows["status"].iloc[0] == "incomplete"
    assert runs.problems == (f"{tmp_path}: no records",)


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_nothing_to_read_is_one_clear_line(tmp_path, kind):
    place = tmp_path / kind
    if kind == "file":
        place.write_text("")
    if kind == "empty":
        place.mkdir()
    words = {"missing": "does not exist", "file": "is not a folder", "empty": "no runs"}
    with pytest.raises(UserError, match=words[kind]) as caught:
        load_runs([place])
    assert "\n" not in str(caught.value)


def test_a_line_separator_inside_a_text_does_not_break_a_line(run):
    line = '{"step": 500, "epoch": 5, "note": "a\u2028b"}\n'
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line)
    assert read_run(run).unreadable_lines == 0


@pytest.mark.parametrize(
    ("result", "last", "epochs", "status"),
    [
        ({"status": "finished"}, 4, 4, "finished"),
        ({"status": "diverged"}, 2, 4, "diverged"),
        ({}, 4, 4, "finished"),
        ({}, 3, 4, "incomplete"),
        ({"status": 7}, 0, 0, "incomplete"),
    ],
)
def test_how_a_run_stands(result, last, epochs, status):
    assert run_status(result, last, epochs) == status


def test_an_unfinished_run_has_only_what_cannot_change_any_more(tmp_path):
    write_run(tmp_path / "r", experiment="e", changes=CNN | FP, until_epoch=3)
    row = row_of(tmp_path)
    assert row["early_fisher_trace"] > 0
    assert row["seconds_per_epoch"] > 0
    assert row["test_accuracy"] is None
    assert row["max_fisher_trace"] is None


def test_result_json_wins_where_it_has_a_value(run):
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    result = {"status": "finished", "max_fisher_trace": 333.0, "test_accuracy": None}
    (run / "result.json").write_text(json.dumps(result))
    row = row_of(run)
    assert row["max_fisher_trace"] == 333.0
    assert row["test_accuracy"] == last["test/accuracy"]


@pytest.mark.parametrize("nonsense", ["0.9", True, math.inf, [1]])
def test_nonsense_in_result_json_is_not_taken(run, nonsense):
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    result = {"status": "finished", "test_accuracy": nonsense}
    (run / "result.json").write_text(json.dumps(result))
    assert row_of(run)["test_accuracy"] == last["test/accuracy"]
