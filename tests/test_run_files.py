"""Reading a run's files, and its quantities against values worked out by hand."""

import json
import math

import pytest

from fisher_jax.run_files import numeric_records, quantities, read_run

EPOCHS = (0, 0.5, 1, 2, 3, 4)
COLUMNS = {
    "train/loss": (2.3, None, 1.5, 1.1, 0.9, 1.0),
    "train/accuracy": (0.1, None, 0.4, 0.7, 0.9, 0.8),
    "validation/accuracy": (0.1, None, 0.3, 0.6, 0.6, 0.5),
    "test/accuracy": (0.1, None, 0.4, 0.55, 0.65, 0.6),
    "train/noisy_accuracy": (0.1, None, 0.1, 0.2, 0.3, 0.4),
    "trace/fisher": (900.0, 700.0, 100.0, 300.0, 200.0, 250.0),
    "trace/hessian": (10.0, None, None, 20.0, None, 40.0),
    "time/steps_per_second": (None, None, 20.0, 10.0, 40.0, 25.0),
}
RECORDS = [
    {"epoch": epoch} | {name: values[i] for name, values in COLUMNS.items()}
    for i, epoch in enumerate(EPOCHS)
]


def of_run(records=RECORDS, early_loss=1.2, steps_per_epoch=90):
    return quantities(records, early_loss=early_loss, steps_per_epoch=steps_per_epoch)


def test_last_and_best():
    values = of_run()
    assert values["test_accuracy"] == 0.6
    assert values["best_test_accuracy"] == 0.65
    assert values["best_train_accuracy"] == 0.9
    assert values["final_train_noisy_accuracy"] == 0.4
    assert values["final_train_clean_accuracy"] is None


def test_test_accuracy_is_taken_at_the_first_best_validation_epoch():
    # Validation is best, 0.6, at epochs 2 and 3; the first counts.
    assert of_run()["test_accuracy_at_best_validation"] == 0.55


def test_the_best_epoch_for_tr_h_is_among_those_that_measured_it():
    # Test accuracy is best at epoch 3, where Tr(H) was not measured; then epoch 4.
    assert of_run()["hessian_trace_at_best_test"] == 40.0


@pytest.mark.parametrize(
    ("epsilon", "trace"),
    [(1.2, 300.0), (1.0, 200.0), (2.0, 100.0), (0.5, None), (None, None)],
)
def test_early_trace_is_at_the_first_epoch_below_epsilon(epsilon, trace):
    assert of_run(early_loss=epsilon)["early_fisher_trace"] == trace


def test_early_trace_needs_the_trace_at_that_epoch():
    records = [*RECORDS[:3], RECORDS[3] | {"trace/fisher": None}, *RECORDS[4:]]
    assert of_run(records)["early_fisher_trace"] is None


def test_the_peak_is_taken_from_the_end_of_epoch_1_on():
    # 900 and 700 come before; the peak after is 300.
    assert of_run()["max_fisher_trace"] == 300.0


def test_seconds_per_epoch_from_the_median_speed():
    # Speeds 10, 20, 25, 40: median 22.5; 90 steps take 4 s.
    assert of_run()["seconds_per_epoch"] == pytest.approx(4.0)
    assert of_run(steps_per_epoch=None)["seconds_per_epoch"] is None


def test_a_run_without_records_has_no_quantities():
    assert set(of_run([]).values()) == {None}


ROWS = [
    {"step": 0, "epoch": 0, "trace/fisher": 10.0, "test/accuracy": 0.1},
    {"step": 5, "epoch": 0.5, "trace/fisher": 20.0},
    {"step": 10, "epoch": 1, "trace/fisher": None, "test/accuracy": 0.6},
]


@pytest.fixture
def directory(tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 11, "ep']))
    (tmp_path / "config.json").write_text('{"config": {"seed": 3}}')
    return tmp_path


def test_a_broken_off_run_is_read_as_far_as_it_goes(directory):
    run = read_run(directory)
    assert run.records == ROWS
    assert run.unreadable_lines == 1
    assert run.config["config"]["seed"] == 3
    assert run.result == {}


def test_a_directory_without_files_is_an_empty_run(tmp_path):
    run = read_run(tmp_path / "nowhere")
    assert (run.records, run.config, run.result) == ([], {}, {})


def test_records_are_numbers_in_order_of_steps_and_the_last_of_a_step(directory):
    more = [{"step": 5, "epoch": 0.5, "trace/fisher": 30.0}]
    more += [{"step": 2, "epoch": 0.2, "x": math.inf, "y": "text", "z": True}]
    run = read_run(directory)._replace(records=ROWS + more)
    assert numeric_records(run) == [
        ROWS[0],
        {"step": 2, "epoch": 0.2},
        {"step": 5, "epoch": 0.5, "trace/fisher": 30.0},
        {"step": 10, "epoch": 1, "test/accuracy": 0.6},
    ]
