"""Which runs follow which in experiments of two phases."""

import pandas as pd

from fisher_jax.report.phases import with_phases


def test_phases_follow_from_the_parent_without_run_json():
    first = {"init_from": "", "group": {}, "batch_size": 100.0}
    second = {"group": {}, "batch_size": 100.0, "learning_rate": 0.001}
    table = pd.DataFrame(
        [
            first | {"path": "a", "learning_rate": 0.01, "early_fisher_trace": 5.0},
            first | {"path": "b", "learning_rate": 0.001, "early_fisher_trace": 9.0},
            second | {"path": "c", "init_from": "a", "early_fisher_trace": None},
            second | {"path": "d", "init_from": "b", "early_fisher_trace": None},
        ]
    )
    rows = with_phases(table, table)
    assert list(rows["phase"]) == [1, 1, 2, 2]
    assert list(rows["start"]) == ["high", "low", "high", "low"]
    assert list(rows["first_early_fisher_trace"]) == [5.0, 9.0, 5.0, 9.0]


def test_phases_are_those_of_run_json_where_it_has_them():
    group = {"phase": "continued", "early": "low"}
    row = {"path": "c", "init_from": "gone", "group": group, "learning_rate": 0.1,
           "batch_size": 1.0, "early_fisher_trace": 1.0}  # fmt: skip
    rows = with_phases(pd.DataFrame([row]), pd.DataFrame([row]))
    assert (rows["phase"].iloc[0], rows["start"].iloc[0]) == (2, "low")
