import json

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.collect import load_runs
from fisher_jax.report.items import tuned

SELECTION = {
    "cifar10_simplecnn/eta_star": {
        "key": "optimizer.learning_rate",
        "value": 0.1,
        "run": "b",
        "by": "best_validation_accuracy",
        "at_edge": True,
        "candidates": [
            {"run": "a", "value": 0.01, "score": 0.7, "status": "finished"},
            {"run": "b", "value": 0.1, "score": 0.8125, "status": "finished"},
            {"run": "c", "value": 0.03, "score": None, "status": "diverged"},
        ],
    }
}


def fill(folder):
    runs = load_runs([folder])
    return tuned.ITEM.table.fill(runs.rows, runs)


@pytest.fixture
def sweep(tmp_path):
    changes = CNN | {"train.num_epochs": 1}
    write_run(tmp_path / "a", experiment="table1", changes=changes, stage="search")
    return tmp_path


def test_a_search_with_its_grid_and_its_winner_at_the_edge(sweep):
    (sweep / "selection.json").write_text(json.dumps(SELECTION))
    table = fill(sweep)
    assert table.rows == (
        (
            "table1",
            (
                "cifar10_simplecnn/eta_star",
                "optimizer.learning_rate",
                "0.1",
                "0.01 to 0.1 (3)",
                "best validation accuracy",
                "81.25%",
                "at the edge",
            ),
        ),
    )
    assert table.run_count == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1, "b": {"candidates": 2}}'])
def test_without_a_usable_selection_there_is_no_table(sweep, content):
    assert fill(sweep) == "no sweep with a search"
    (sweep / "selection.json").write_text(content)
    assert fill(sweep) == "no sweep with a search"
