"""A claim from run directories to its verdict."""

import json

import pytest

from benchmarks.synthetic_runs import CNN, write_run
from fisher_jax.report.claims import Claim, verdicts_on
from fisher_jax.report.collect import load_runs
from fisher_jax.report.decide import Decision
from fisher_jax.report.items import figure1, table1, table5, table9


def runs_of_table_1(folder, by_method, **others):
    """Runs whose results are given by method and seed, others the same for all."""
    for method, results in by_method.items():
        for seed, result in enumerate(results):
            path = write_run(
                folder / f"{method}{seed}",
                experiment="table1",
                changes=CNN | {"seed": seed, "train.num_epochs": 2},
                method=method,
            )
            result = {"status": "finished", **result, **others}
            (path / "result.json").write_text(json.dumps(result))
    return load_runs([folder])


def test_a_claim_from_run_directories(tmp_path):
    accuracies = {"fp": (0.78, 0.79, 0.8), "baseline": (0.7, 0.71, 0.69)}
    results = {
        method: [{"test_accuracy_at_best_validation": value} for value in values]
        for method, values in accuracies.items()
    }
    runs = runs_of_table_1(tmp_path, results, final_train_accuracy=1.0)
    better = next(verdicts_on([table1.ITEM.claims[0]], runs.rows, runs))
    assert (better.status, better.reason) == ("holds", "")
    (finding,) = better.findings
    assert finding.setting == "SimpleCNN / CIFAR-10"
    # Differences 8, 8 and 11: mean 9, standard error 1, t = 4.303 with two degrees.
    assert finding.decision.evidence == (
        "FP 79, Baseline 70: difference 9 [4.697, 13.3], paired, n = 3"
    )
    memorised = next(verdicts_on([table9.ITEM.claims[0]], runs.rows.iloc[:0], runs))
    assert (memorised.status, memorised.reason) == ("no runs", "")


@pytest.mark.parametrize(
    ("seconds", "status"), [(1.2, "holds"), (1.9, "fails"), (0.6, "undecided")]
)
def test_a_penalty_that_costs_less_than_nothing_decides_nothing(
    tmp_path, seconds, status
):
    results = {
        method: [{"seconds_per_epoch": first * (1 + spread * i)} for i in range(3)]
        for method, first, spread in (("fp", seconds, 0.01), ("baseline", 1.0, 0.03))
    }
    runs = runs_of_table_1(tmp_path, results)
    verdict = next(verdicts_on(table5.ITEM.claims, runs.rows, runs))
    assert verdict.status == status
    assert ("other work ran" in verdict.reason) == (status == "undecided")


def test_one_seed_decides_nothing_and_the_verdict_says_so(tmp_path):
    for rate in (0.03, 0.003):
        write_run(
            tmp_path / f"rate{rate}",
            experiment="fig01",
            changes=CNN | {"optimizer.learning_rate": rate, "train.num_epochs": 2},
        )
    runs = load_runs([tmp_path])
    for claim in figure1.ITEM.claims:
        verdict = next(verdicts_on([claim], runs.rows, runs))
        assert verdict.status == "undecided"
        assert verdict.reason == "too few seeds: 1 seed, at least 3 are needed"


def test_each_share_of_noise_is_a_setting_of_its_own(tmp_path):
    for noise in (0.0, 0.25):
        for seed in (0, 1):
            changes = CNN | {"dataset.label_noise": noise, "train.num_epochs": 1}
            changes |= {"seed": seed}
            write_run(tmp_path / f"{noise}{seed}", experiment="e", changes=changes)
    runs = load_runs([tmp_path])
    p_values = iter((0.001, 0.03))
    claim = Claim(
        "all", lambda setting, runs: Decision("holds", "", "", next(p_values))
    )
    verdict = next(verdicts_on([claim], runs.rows, runs))
    titles = [finding.setting for finding in verdict.findings]
    assert titles == ["SimpleCNN / CIFAR-10", "SimpleCNN / CIFAR-10, 25% noise"]
    assert verdict.status == "holds"
    assert verdict.decision.p == pytest.approx(0.002)


def test_one_seed_decides_nothing_however_many_runs_have_it(tmp_path):
    for size in (1, 2, 3, 4, 5, 6):
        changes = CNN | {"train.batch_size": size, "train.num_epochs": 1}
        write_run(tmp_path / f"{size}", experiment="fig07", changes=changes)
    runs = load_runs([tmp_path])
    claim = Claim("all", lambda setting, runs: Decision("holds", "", "", 0.001))
    verdict = next(verdicts_on([claim], runs.rows, runs))
    assert (verdict.status, verdict.reason) == ("undecided", "one seed")
    assert not verdict.decision.is_tested
