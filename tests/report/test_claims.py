"""Verdicts: the rules at their edges, and a claim end to end."""

import json
import math

import numpy as np
import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.claims import (
    Claim,
    Decision,
    has_sign,
    larger,
    together,
    verdict_on,
)
from fisher_jax.report.collect import load_runs
from fisher_jax.report.items import figure1, table1, table9
from fisher_jax.report.statistics import Summary


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
    ],
)
def test_two_means(a, b, status):
    decision = larger(a, b, "numbers")
    assert (decision.status, decision.evidence) == (status, "numbers")
    assert bool(decision.reason) == (status == "unclear")


def test_the_sign_of_a_correlation():
    rising = np.arange(20.0)
    random = np.random.default_rng(0).normal(size=20)
    assert has_sign(rising, rising**2, 1).status == "holds"
    assert has_sign(rising, rising**2, -1).status == "fails"
    assert has_sign(rising, random, -1).status == "unclear"
    assert has_sign(np.empty(0), np.empty(0), 1) is None


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
    runs = load_runs([tmp_path])
    better = verdict_on(table1.ITEM.claims[0], runs.table, runs)
    assert better.status == "holds"
    (finding,) = better.findings
    assert finding.setting == "SimpleCNN / CIFAR-10"
    assert finding.decision.evidence == (
        "FP 79 ± 1.41 (n = 2) against Baseline 70.5 ± 0.707 (n = 2)"
    )
    memorised = verdict_on(table9.ITEM.claims[0], runs.table.iloc[:0], runs)
    assert (memorised.status, memorised.findings) == ("no runs", ())


def test_too_few_points_for_a_correlation_are_unclear_and_not_missing(tmp_path):
    for rate in (0.03, 0.003):
        write_run(
            tmp_path / f"rate{rate}",
            experiment="fig01",
            changes=CNN | {"optimizer.learning_rate": rate, "train.num_epochs": 2},
        )
    runs = load_runs([tmp_path])
    verdict = verdict_on(figure1.ITEM.claims[0], runs.table, runs)
    assert verdict.status == "unclear"
    (finding,) = verdict.findings
    assert finding.decision.evidence == "no correlation of 2 points"
    assert finding.decision.reason


def test_each_share_of_noise_is_a_setting_of_its_own(tmp_path):
    for noise in (0.0, 0.25):
        changes = CNN | {"dataset.label_noise": noise, "train.num_epochs": 1}
        write_run(tmp_path / f"{noise}", experiment="e", changes=changes)
    runs = load_runs([tmp_path])
    claim = Claim("all", lambda setting, runs: Decision("holds", "seen"))
    titles = [f.setting for f in verdict_on(claim, runs.table, runs).findings]
    assert titles == ["SimpleCNN / CIFAR-10", "SimpleCNN / CIFAR-10, 25% noise"]
