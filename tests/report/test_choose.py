import math

import pandas as pd
import pytest

from fisher_jax.report.choose import (
    average,
    best_candidate,
    best_runs,
    drawable,
    one_version,
    pairs,
    settings_of,
    unfinished_note,
)

COLUMNS = {
    "path": "run",
    "stage": "final",
    "version": "a",
    "version_label": "aaaa",
    "candidate": "x",
    "status": "finished",
    "last_epoch": 10.0,
    "best_validation_accuracy": math.nan,
    "best_test_accuracy": math.nan,
    "test_accuracy": math.nan,
}


def runs(*rows):
    return pd.DataFrame([COLUMNS | row for row in rows])


def test_two_versions_are_never_averaged_and_it_is_said():
    table = runs(
        {"version": "a", "test_accuracy": 0.1},
        {"version": "b", "version_label": "bbbb", "test_accuracy": 0.8},
        {"version": "b", "version_label": "bbbb", "test_accuracy": 0.6},
    )
    chosen = one_version(table)
    assert list(chosen.rows["test_accuracy"]) == [0.8, 0.6]
    assert chosen.notes == (
        "1 run by other code (aaaa) not averaged with 2 runs by bbbb",
    )


def test_of_equally_many_the_version_that_got_further_is_taken():
    table = runs({"version": "a", "last_epoch": 3}, {"version": "b", "last_epoch": 10})
    assert list(one_version(table).rows["version"]) == ["b"]


def test_the_candidate_with_the_best_mean_validation_accuracy_is_taken():
    table = runs(
        {"candidate": "x", "best_validation_accuracy": 0.9},
        {"candidate": "x", "best_validation_accuracy": 0.5},
        {"candidate": "y", "best_validation_accuracy": 0.8},
        {"candidate": "y", "best_validation_accuracy": 0.8},
    )
    chosen = best_candidate(table)
    assert set(chosen.rows["candidate"]) == {"y"}
    assert chosen.notes == ("best of 2 candidates by validation accuracy",)


def test_without_validation_the_note_says_that_test_accuracy_chose():
    table = runs(
        {"candidate": "x", "best_test_accuracy": 0.9},
        {"candidate": "y", "best_test_accuracy": 0.5},
    )
    chosen = best_candidate(table)
    assert set(chosen.rows["candidate"]) == {"x"}
    assert "test (no validation)" in chosen.notes[0]


def test_final_runs_are_taken_before_those_of_the_search():
    table = runs(
        {"stage": "search", "test_accuracy": 0.9},
        {"stage": "final", "test_accuracy": 0.7},
    )
    assert list(best_runs(table).rows["test_accuracy"]) == [0.7]
    only_search = best_runs(table[table["stage"] == "search"])
    assert only_search.notes == ("from the search stage, as there are no final runs",)


def test_the_average_and_why_there_is_none():
    table = runs({"test_accuracy": 0.5}, {"test_accuracy": 0.7})
    summary, reason = average(table, ["test_accuracy"], 100)
    assert summary.mean == pytest.approx(60.0)
    assert summary.std == pytest.approx(math.sqrt(200))
    assert reason == ""
    assert average(table.iloc[:0], ["test_accuracy"]) == (None, "no runs")
    unfinished = runs({"status": "incomplete"}, {"status": "diverged"})
    assert average(unfinished, ["test_accuracy"]) == (
        None,
        "1 of 2 runs diverged; 1 of 2 runs not ended",
    )
    missing = average(runs({}), ["test_accuracy"])
    assert missing == (None, "test accuracy was not recorded")


def test_unfinished_runs_are_counted_and_drawn_only_in_need():
    table = runs({"status": "incomplete"}, {})
    assert unfinished_note(table) == ("1 of 2 runs not ended",)
    assert list(drawable(table).index) == [1]
    assert len(drawable(table.iloc[:1])) == 1


def test_pairs_leave_out_runs_without_both():
    table = pd.DataFrame({"x": [100.0, None, 300.0], "y": [0.5, 0.6, None]})
    x, y = pairs(table, "x", "y")
    assert (list(x), list(y)) == ([100.0], [0.5])


def test_settings_of_one_network_are_told_apart_by_what_their_names_do_not_share():
    place = {"setting_label": "ResNet-8 / digits", "dataset": "digits", "model": "r"}
    digits = [
        place | {"form": "small", "sweep_setting": name}
        for name in ("digits_resnet8", "digits_resnet8_large_batches")
    ]
    alone = place | {"form": "", "sweep_setting": "digits_resnet8_batches"}
    titles = [setting.title for setting in settings_of(runs(*digits, alone))]
    assert titles == [
        "ResNet-8 / digits",
        "ResNet-8 / digits (small)",
        "ResNet-8 / digits (small), large batches",
    ]
