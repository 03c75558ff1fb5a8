"""The cosine of clean and noisy gradients: the early phase, and its claims."""

import numpy as np
import pandas as pd
import pytest

from fisher_jax.report.choose import Setting
from fisher_jax.report.claims import decide_claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.items import figure12

ALPHAS = (0.0, 0.01, 0.1, 1.0)


def runs_of(cosines):
    """Three seeds of each α; the mean early cosine is that of ``cosines``."""
    random = np.random.default_rng(0)
    table, metrics = [], {}
    for alpha, cosine in zip(ALPHAS, cosines, strict=True):
        for seed in range(3):
            early = cosine + 0.01 * random.normal(size=2)
            values = [0.9, *early, 0.9, 0.9]
            metrics[len(table)] = pd.DataFrame(
                {"epoch": [0.0, 2, 10, 11, 100], "gradient/cosine": values}
            )
            table.append(
                {
                    "method": "fp" if alpha else "baseline",
                    "seed": float(seed),
                    "coefficient": alpha,
                    "noise": 0.25,
                    "num_epochs": 100.0,
                    "stage": "final",
                    "candidate": f"{alpha}",
                    "version": "",
                    "path": "",
                    "last_epoch": 100.0,
                    "best_validation_accuracy": 1 - alpha,
                }
            )
    frame = pd.DataFrame(table)
    return Setting("s", frame, (), "", "d"), Runs(frame, metrics, ())


def test_the_early_phase_is_the_first_tenth_without_initialisation():
    setting, runs = runs_of((-0.1, -0.2, -0.3, -0.4))
    means = figure12.early_cosine(setting.rows, runs)
    frame = runs.metrics[0]["gradient/cosine"]
    assert means[0] == pytest.approx((frame[1] + frame[2]) / 2)


@pytest.mark.parametrize(
    ("cosines", "negative", "falls"),
    [
        ((-0.1, -0.2, -0.3, -0.4), "holds", "holds"),
        ((-0.4, -0.3, -0.2, -0.1), "holds", "fails"),
        ((0.1, 0.2, 0.3, 0.4), "fails", "fails"),
        ((-0.2, -0.2, -0.2, -0.2), "holds", "undecided"),
    ],
)
def test_the_claims(cosines, negative, falls):
    setting, runs = runs_of(cosines)
    first, second = figure12.ITEM.claims[:2]
    assert first.rule(setting, runs).status == negative
    assert second.rule(setting, runs).status == falls


def test_other_shares_of_noise_and_other_methods_are_not_the_papers():
    setting, runs = runs_of((-0.1, -0.2, -0.3, -0.4))
    of_gp_r = figure12.ITEM.claims[2:]
    assert all(claim.rule(setting, runs) is None for claim in of_gp_r[:1])
    half = setting._replace(rows=setting.rows.assign(noise=0.5))
    assert all(decide_claim(one, half, runs) is None for one in figure12.ITEM.claims)


def test_searches_of_one_seed_decide_nothing():
    setting, runs = runs_of((-0.1, -0.2, -0.3, -0.4))
    is_one = (setting.rows["method"] == "baseline") | (setting.rows["seed"] == 0)
    rows = pd.concat([setting.rows[is_one]] * 3, ignore_index=True)
    metrics = dict(enumerate([runs.metrics[i] for i in setting.rows.index[is_one]] * 3))
    decision = figure12.ITEM.claims[1].rule(
        setting._replace(rows=rows), Runs(rows, metrics, ())
    )
    assert decision.status == "undecided"
    assert decision.reason == "one seed"
