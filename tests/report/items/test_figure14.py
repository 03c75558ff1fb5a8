"""The three observations of figure 14, on tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisher_jax.report.choose import Setting
from fisher_jax.report.collect import Runs
from fisher_jax.report.items import figure14

RATES = (0.001, 0.0012, 0.02, 0.024)
EPOCHS = np.array([0.0, 5, 10, 20, 30])


def runs_of(traces, losses=(0.005,) * 4, seeds=4, accuracies=(0.8, 0.81, 0.9, 0.91)):
    """Runs whose Tr(H) is ``traces[rate, epoch]`` times a little noise of the seed."""
    random = np.random.default_rng(0)
    table, metrics = [], {}
    for seed in range(seeds):
        for place, rate in enumerate(RATES):
            noise = 1 + 0.1 * random.normal(size=len(EPOCHS))
            metrics[len(table)] = pd.DataFrame(
                {
                    "epoch": EPOCHS,
                    "trace/hessian": traces[place] * noise,
                    "train/loss": losses[place],
                }
            )
            table.append(
                {
                    "seed": float(seed),
                    "learning_rate": rate,
                    "batch_size": 100.0,
                    "stage": "final",
                    "best_test_accuracy": accuracies[place] + 0.001 * random.normal(),
                }
            )
    frame = pd.DataFrame(table)
    return Setting("s", frame, (), "", "d"), Runs(frame, metrics, ())


def statuses(setting, runs):
    return [claim.rule(setting, runs).status for claim in figure14.ITEM.claims]


# A above B from epoch 10 on, the order within each set another at every epoch.
AS_CLAIMED = np.array(
    [
        [30.0, 50, 900, 1100, 900],
        [30.0, 50, 1000, 1000, 1000],
        [30.0, 70, 9, 11, 9],
        [30.0, 70, 10, 10, 10],
    ]
)


def test_the_observations_hold_where_they_are_made():
    assert statuses(*runs_of(AS_CLAIMED)) == ["holds", "holds", "holds"]


def test_the_order_of_the_sets_may_change_before_epoch_10_only():
    crossing = AS_CLAIMED.copy()
    crossing[:, 4] = crossing[::-1, 4]
    assert statuses(*runs_of(crossing))[0] == "fails"


def test_noise_at_single_epochs_does_not_reverse_the_order():
    # A is 30% above B at every epoch; the smallest of 25 noisy ratios is often below.
    random = np.random.default_rng(1)
    rows = [
        {"seed": seed, "learning_rate": rate, "batch_size": 100.0, "stage": "final"}
        for seed in range(5)
        for rate in RATES
    ]
    epochs = np.arange(10.0, 35.0)
    metrics = {
        index: pd.DataFrame(
            {
                "epoch": epochs,
                "trace/hessian": (1.3 if row["learning_rate"] < 0.01 else 1.0)
                * np.exp(0.2 * random.normal(size=epochs.size)),
                "train/loss": 0.005,
            }
        )
        for index, row in enumerate(rows)
    }
    setting = Setting("s", pd.DataFrame(rows), (), "", "d")
    rule = figure14.ITEM.claims[0].rule
    assert rule(setting, Runs(setting.final, metrics, ())).status != "fails"


def test_a_trace_that_is_not_positive_decides_nothing():
    negative = AS_CLAIMED.copy()
    negative[2:, 3] = -1.0
    decision = figure14.ITEM.claims[0].rule(*runs_of(negative))
    assert decision.status == "undecided"
    assert "not positive" in decision.reason


def test_close_values_that_keep_their_order_agree_as_well():
    steady = np.array([1.0, 2.0, 4.0, 8.0])[:, None] * np.ones(len(EPOCHS))
    setting, runs = runs_of(steady)
    assert figure14.ITEM.claims[1].rule(setting, runs).status == "undecided"


def test_values_that_no_set_tells_apart_agree_alike():
    # Six noisy levels dealt to the sets: 300 tables, 4 standard errors. All six against
    # three would differ by 0.05.
    random = np.random.default_rng(0)
    sets = [[0, 1, 2], [3, 4, 5]]
    differences = []
    for _ in range(300):
        levels = random.normal(size=(6, 1)) + random.normal(size=(6, 6))
        across, within = figure14.agreements(pd.DataFrame(levels), sets)
        differences.append(across - within)
    sem = np.std(differences) / np.sqrt(len(differences))
    assert sem < 0.012
    assert abs(np.mean(differences)) < 4 * sem


def test_runs_that_have_not_converged_decide_nothing():
    setting, runs = runs_of(AS_CLAIMED, losses=(0.3, 0.005, 0.005, 0.005))
    for claim in figure14.ITEM.claims:
        decision = claim.rule(setting, runs)
        assert decision.status == "undecided"
        assert decision.reason == (
            "η 0.001: not converged: training loss 0.3 where at most 0.01 is claimed"
        )


def test_two_seeds_are_too_few():
    setting, runs = runs_of(AS_CLAIMED, seeds=2)
    for claim in figure14.ITEM.claims:
        assert "at least 3 are needed" in claim.rule(setting, runs).reason


@pytest.mark.parametrize(
    ("varied", "values", "a"),
    [
        (
            "learning_rate",
            (0.0008, 0.001, 0.0012, 0.008, 0.01),
            [0.0008, 0.001, 0.0012],
        ),
        ("batch_size", (480.0, 500.0, 520.0, 80.0, 100.0, 120.0), [480, 500, 520]),
    ],
)
def test_the_papers_sets(varied, values, a):
    assert figure14.sets_of(pd.DataFrame({varied: values}), varied)["A"] == a


def test_rank_agreement_is_the_mean_over_pairs_of_epochs():
    table = np.random.default_rng(0).normal(size=(6, 4))
    expected = np.mean(
        [
            stats.spearmanr(table[:, i], table[:, j]).statistic
            for i in range(4)
            for j in range(i)
        ]
    )
    assert figure14.rank_agreement(table) == pytest.approx(expected)
    assert np.isnan(figure14.rank_agreement(table[:1]))
    assert np.isnan(figure14.rank_agreement(table[:, :1]))
