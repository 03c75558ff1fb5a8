"""Tables beyond the paper, against values worked out by hand."""

import json

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.beyond_tables import (
    build_beyond_tables,
    estimators_table,
    rfp_table,
)
from fisher_jax.report.collect import load_runs
from fisher_jax.report.render import (
    texts_as_csv,
    texts_as_latex,
    texts_as_markdown,
)


def add(folder, method, seed, accuracy, alpha=0.0, stage="final"):
    changes = CNN | {"seed": seed, "train.num_epochs": 2, "penalty.coefficient": alpha}
    path = write_run(
        folder / f"{method}-{seed}-{alpha}-{stage}",
        experiment="beyond_rfp",
        changes=changes,
        method=method,
        stage=stage,
    )
    result = {
        "status": "finished",
        "test_accuracy_at_best_validation": accuracy,
        "best_validation_accuracy": accuracy,
    }
    (path / "result.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path):
    for seed, (plain, fp, rfp) in enumerate(((0.7, 0.8, 0.83), (0.7, 0.82, 0.83))):
        add(tmp_path, "baseline", seed, plain)
        add(tmp_path, "fp", seed, fp, 0.1)
        add(tmp_path, "rfp", seed, rfp, 0.3)
    # The search: stronger ones fall off, FP earlier than RFP.
    add(tmp_path, "fp", 9, 0.66, 1.0, "search")
    add(tmp_path, "fp", 9, 0.2, 3.0, "search")
    add(tmp_path, "rfp", 9, 0.66, 3.0, "search")
    return load_runs([tmp_path])


def test_rfp_beside_fp_in_pairs(runs):
    table = rfp_table(runs)
    assert [row[1] for row in table.rows] == ["Baseline", "FP", "RFP (ours)"]
    baseline, fp, rfp = table.rows
    # 0.8 and 0.82: mean 81, deviation sqrt(2).
    assert fp[2:] == ("0.1", "81.00 ± 1.41", "2", "", "3")
    # Differences 3 and 1 points: mean 2, and no resample leaves [1, 3].
    assert rfp[2:] == ("0.3", "83.00 ± 0.00", "2", "+2.00 [+1.00, +3.00]", "nowhere")
    assert baseline[2:] == ("–", "70.00 ± 0.00", "2", "−11.00 [−12.00, −10.00]", "")


def test_errors_of_estimators(tmp_path):
    path = write_run(
        tmp_path / "r", experiment="beyond_estimators", changes={"train.num_epochs": 1}
    )
    rows = [
        {"step": s, "epoch": s, "estimator/exact": 7.0, "estimator/labels": error}
        for s, error in enumerate((0.1, 0.4, 0.2))
    ]
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = estimators_table(load_runs([tmp_path]))
    assert table.rows == (("SimpleCNN / digits, Baseline", "labels", "20", "40", "3"),)


def test_without_runs_the_reason_is_said(tmp_path):
    write_run(tmp_path / "r", experiment="other", changes={"train.num_epochs": 1})
    tables, missing = build_beyond_tables(load_runs([tmp_path]))
    assert tables == []
    assert missing == {
        "beyond_rfp_table": "no runs of beyond_rfp",
        "beyond_estimators_table": "no runs of beyond_estimators",
    }


def test_tables_of_texts_are_escaped():
    rows = [("a", "b"), ("<i>|", "=1_%")]
    assert "| &lt;i&gt;\\| | =1\\_% |" in texts_as_markdown(rows, "c", ["n"])
    assert texts_as_csv(rows) == "a,b\n<i>|,'=1_%\n"
    assert r"<i>| & =1\_\% \\" in texts_as_latex(rows, "c", ["n"])
