"""Verdicts: the rule at its edges, and a claim end to end."""

import json
import math

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.claims import has_sign, larger, together, verdicts
from fisher_jax.report.collect import load_runs
from fisher_jax.report.statistics import Correlation, Summary


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([], "no runs"),
        (["holds", "holds"], "holds"),
        (["holds", "unclear"], "mixed"),
        (["holds", "fails"], "mixed"),
        (["fails", "unclear"], "fails"),
        (["unclear"], "unclear"),
    ],
)
def test_settings_together(statuses, status):
    assert together(statuses) == status


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        # Standard error of the difference: hypot(1/2, 1/2) = 0.707; twice: 1.414.
        (Summary(11.5, 1, 4), Summary(10, 1, 4), "holds"),
        (Summary(11.4, 1, 4), Summary(10, 1, 4), "unclear"),
        (Summary(10, 1, 4), Summary(11.5, 1, 4), "fails"),
        (Summary(99, math.nan, 1), Summary(1, 0.1, 4), "unclear"),
        (None, Summary(1, 0.1, 4), "unclear"),
    ],
)
def test_two_means(a, b, status):
    assert larger(a, b) == status


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [(-0.9, -0.2, "holds"), (-0.9, 0.1, "unclear"), (0.2, 0.9, "fails")],
)
def test_the_sign_of_a_correlation(low, high, status):
    middle = (low + high) / 2
    assert has_sign(Correlation(middle, middle, low, high, 9), -1) == status
    assert has_sign(None, -1) == "unclear"


def test_a_claim_from_run_directories(tmp_path):
    for method, accuracies in (("fp", (0.78, 0.8)), ("baseline", (0.7, 0.71))):
        for seed, accuracy in enumerate(accuracies):
            path = write_run(
                tmp_path / f"{method}{seed}",
                experiment="table1",
                changes=CNN | {"seed": seed, "train.num_epochs": 2},
                method=method,
            )
            result = {
                "status": "finished",
                "test_accuracy_at_best_validation": accuracy,
            }
            (path / "result.json").write_text(json.dumps(result))
    found = {verdict.claim: verdict for verdict in verdicts(load_runs([tmp_path]))}
    better = found["FP makes up for a small learning rate: better than the baseline."]
    assert better.status == "holds"
    (evidence,) = better.findings
    assert "FP 79 ± 1.41 (n = 2) against Baseline 70.5 ± 0.707 (n = 2)" in evidence
    memorised = found["FP memorises fewer wrong labels than the baseline."]
    assert (memorised.status, memorised.findings) == ("no runs", ())


def test_too_few_points_for_a_correlation_are_unclear_and_not_missing(tmp_path):
    for rate in (0.03, 0.003):
        write_run(
            tmp_path / f"rate{rate}",
            experiment="fig01",
            changes=CNN | {"optimizer.learning_rate": rate, "train.num_epochs": 2},
        )
    found = {verdict.claim: verdict for verdict in verdicts(load_runs([tmp_path]))}
    verdict = found["The smaller learning rate lets Tr(F) rise higher."]
    assert verdict.status == "unclear"
    (evidence,) = verdict.findings
    assert evidence.endswith("no correlation of 2 points: unclear")
