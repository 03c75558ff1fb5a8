"""The rules of decision: how often they err where there is nothing, and their edges.

A null simulation has 600 to 2000 repetitions: a rule that errs in 5% of cases is seen
to err in 5% ± 0.9% to ± 0.5%.
"""

import math

import numpy as np
import pytest
from scipy import stats

from fisher_jax.report.decide import (
    FAILS,
    HOLDS,
    MIN_RUNS,
    UNDECIDED,
    Decision,
    above,
    alike,
    along_training,
    below,
    by_chance,
    holm,
    larger,
    mostly,
    ratio_below,
    throughout,
    together,
    undecided,
)
from fisher_jax.report.permutation import across_values

COUNTS = (3, 4, 5, 10)
BOUND = 0.06


def _coarse(random, shape):
    """Accuracies in % on 400 images, of runs that hardly differ: many ties."""
    return np.round(400 * (0.9 + 0.002 * random.normal(size=shape))) / 4


def _near_perfect(random, shape):
    """Accuracies in % on 400 images with two wrong on average: skewed and discrete."""
    return random.binomial(400, 0.995, size=shape) / 4


LAWS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "skewed": lambda random, shape: random.lognormal(size=shape),
    "coarse": _coarse,
    "near perfect": _near_perfect,
    "two modes": lambda random, shape: (
        random.choice((-1.0, 1.0), size=shape) + 0.1 * random.normal(size=shape)
    ),
}


def _error(decisions):
    return np.mean([decision.status != UNDECIDED for decision in decisions])


def _by_seed(values, first=0):
    return dict(enumerate(values.tolist(), first))


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("law", LAWS)
def test_two_equal_means_are_told_apart_in_at_most_5_percent(law, n):
    random = np.random.default_rng(n)
    samples = LAWS[law](random, (2000, 2, n))
    for shift in (0, 100):  # the same seeds: paired; others: Welch
        decisions = [larger(_by_seed(a), _by_seed(b, shift)) for a, b in samples]
        assert _error(decisions) <= BOUND


@pytest.mark.parametrize("counts", [(3, 4), (3, 10), (10, 5)])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_unequal_counts_and_spreads_err_no_more(counts, scale):
    random = np.random.default_rng(0)
    a = scale * random.normal(size=(2000, counts[0]))
    b = random.normal(size=(2000, counts[1]))
    pairs = zip(a, b, strict=True)
    assert _error([larger(_by_seed(x), _by_seed(y, 100)) for x, y in pairs]) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
def test_at_the_margin_neither_likeness_nor_difference_is_found(n):
    random = np.random.default_rng(n)
    samples = 0.1 * random.normal(size=(2000, 2, n))
    decisions = [alike(_by_seed(a + 1), _by_seed(b), within=1) for a, b in samples]
    assert _error(decisions) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
def test_a_mean_and_a_ratio_at_their_bound_are_left_undecided(n):
    random = np.random.default_rng(n)
    samples = random.normal(size=(2000, 2, n))
    means = [above(_by_seed(2 + a), 2) for a, _ in samples]
    ratios = [
        ratio_below(_by_seed(1.5 * np.exp(0.1 * a)), _by_seed(np.exp(0.1 * b)), 1.5)
        for a, b in samples
    ]
    assert _error(means) <= BOUND
    assert _error(ratios) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_a_mean_at_its_bound_in_all_of_ten_places_is_left_undecided(n, shared):
    random = np.random.default_rng(n)
    common = shared * random.normal(size=(1000, 1, n))
    samples = common + random.normal(size=(1000, 10, n))
    decisions = [
        throughout(above(_by_seed(place), 0) for place in places) for places in samples
    ]
    assert _error(decisions) <= BOUND


def test_what_holds_at_every_place_holds_and_one_clear_reversal_fails():
    random = np.random.default_rng(0)
    places = 1 + 0.2 * random.normal(size=(10, 5))
    decisions = [above(_by_seed(place), 0) for place in places]
    held = throughout(decisions)
    assert (held.status, held.p) == (HOLDS, max(d.p for d in decisions))
    noise = above(_by_seed(random.normal(size=5)), 0)
    assert noise.status == UNDECIDED
    assert throughout([*decisions, noise]) == noise
    reversed_ = above(_by_seed(-places[0]), 0)
    assert throughout([*decisions, noise, reversed_]).status == FAILS
    slightly = reversed_._replace(p=0.04)
    assert throughout([*decisions, noise, slightly]).status == UNDECIDED
    assert throughout([]).status == UNDECIDED


def test_a_ratio_of_what_is_not_positive_is_left_undecided():
    values = _by_seed(np.array([10.0, 11.0, 12.0, -5.0, 0.0]))
    decision = ratio_below(values, _by_seed(np.full(5, 20.0)), 1)
    assert decision.status == UNDECIDED
    assert decision.reason == "2 of 10 values are not positive"


@pytest.mark.parametrize("n", COUNTS)
def test_half_of_all_runs_are_not_most_of_them(n):
    flags = np.random.default_rng(n).random((2000, n)) < 0.5
    assert _error([mostly(dict(enumerate(row.tolist()))) for row in flags]) <= BOUND


# How the setting acts on x and on y, how x and y of one run go together, and how much
# the seed does on both.
NOTHING_ACROSS = {
    "no effect at all": (0.0, 0.0, 0.0, 0.0),
    "on x alone": (3.0, 0.0, 0.0, 0.0),
    "on y alone": (0.0, 3.0, 0.0, 2.0),
    "none, but both within a run": (0.0, 0.0, 0.9, 0.0),
    "on x alone, and both within a run": (1.0, 0.0, 0.9, 0.0),
    "on y alone, and both within a run": (0.0, 1.0, -0.9, 2.0),
}


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("effects", NOTHING_ACROSS)
def test_settings_without_a_common_effect_correlate_in_at_most_5_percent(effects, n):
    on_x, on_y, within, of_seeds = NOTHING_ACROSS[effects]
    random = np.random.default_rng(n)
    settings, seeds = np.repeat(np.arange(3), n), np.tile(np.arange(n), 3)
    noise = random.normal(size=(600, 2, 3 * n))
    x = noise[:, 0] + on_x * settings
    y = within * noise[:, 0] + math.sqrt(1 - within**2) * noise[:, 1] + on_y * settings
    x += of_seeds * random.normal(size=(600, n))[:, seeds]
    y += of_seeds * random.normal(size=(600, n))[:, seeds]
    rows = zip(x, y, strict=True)
    labels = settings.tolist(), seeds.tolist()
    assert _error([across_values(a, b, *labels, 1) for a, b in rows]) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("law", ["normal", "coarse"])
def test_a_set_quantity_and_an_unrelated_one_correlate_in_at_most_5_percent(law, n):
    random = np.random.default_rng(n)
    settings = np.repeat((0.001, 0.01, 0.1), n)
    samples = LAWS[law](random, (600, 3 * n))
    labels = settings.tolist()
    seeds = list(range(n)) * 3 if law == "normal" else list(range(3 * n))
    decisions = [across_values(labels, y, labels, seeds, -1) for y in samples]
    assert _error(decisions) <= BOUND


@pytest.mark.parametrize("of_seeds", [0.0, 2.0, 5.0])
def test_the_chance_of_a_seed_is_no_effect_of_the_settings_that_it_alone_has(of_seeds):
    """As a search's one seed at many strengths, beside others at the best of them."""
    settings, seeds = [0, 0, 0, 1, 1, 1, 1, 2, 3], [1, 2, 3, 1, 2, 3, 0, 0, 0]
    random = np.random.default_rng(0)
    samples = random.normal(size=(1000, 9))
    samples += of_seeds * random.normal(size=(1000, 4))[:, seeds]
    decisions = [across_values(settings, y, settings, seeds, 1) for y in samples]
    assert _error(decisions) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("memory", [0.0, 0.9, 1.0])
def test_unrelated_series_correlate_in_at_most_5_percent(memory, n):
    """Independent values, slowly changing ones, and random walks, of 10 records."""
    random = np.random.default_rng(n)
    series = random.normal(size=(2, 2000, n, 10))
    for record in range(1, 10):
        series[..., record] += memory * series[..., record - 1]
    ranks = stats.rankdata(series, axis=-1) - 5.5
    coefficients = (ranks[0] * ranks[1]).sum(axis=-1) / (ranks[0] ** 2).sum(axis=-1)
    decisions = [along_training(_by_seed(row)) for row in coefficients]
    assert _error(decisions) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
def test_a_claim_over_four_settings_errs_in_at_most_5_percent(n):
    random = np.random.default_rng(n)
    samples = random.normal(size=(1000, 4, 2, n))
    claims = [
        together([larger(_by_seed(a), _by_seed(b)) for a, b in settings])
        for settings in samples
    ]
    assert _error(claims) <= BOUND


@pytest.mark.parametrize("n", COUNTS)
def test_large_effects_are_found(n):
    random = np.random.default_rng(n)
    noise = 0.1 * random.normal(size=(4, n))
    a, b = _by_seed(2 + noise[0]), _by_seed(noise[1])
    assert larger(a, b).status == HOLDS
    assert larger(b, a).status == FAILS
    assert larger(a, _by_seed(noise[1], 100)).status == HOLDS
    assert larger(a, b, by=5).status == FAILS
    assert alike(b, _by_seed(noise[2]), within=1).status == HOLDS
    assert alike(a, b, within=1).status == FAILS
    assert above(a, 1).status == HOLDS
    assert below(a, 1).status == FAILS
    slow, fast = _by_seed(2 + noise[0]), _by_seed(1 + 0.1 * noise[1])
    assert ratio_below(slow, fast, 3).status == HOLDS
    assert ratio_below(slow, fast, 1.2).status == FAILS
    assert along_training(_by_seed(0.8 + noise[2])).status == HOLDS
    assert along_training(_by_seed(-0.8 - noise[2])).status == FAILS
    assert mostly(dict.fromkeys(range(2 * n), True)).status == HOLDS
    assert mostly(dict.fromkeys(range(2 * n), False)).status == FAILS
    settings = np.repeat(np.arange(3), n)
    x = settings + 0.1 * random.normal(size=3 * n)
    y = -settings + 0.1 * random.normal(size=3 * n)
    labels = settings.tolist(), list(range(n)) * 3
    assert across_values(x, y, *labels, -1).status == HOLDS
    assert across_values(x, y, *labels, 1).status == FAILS
    assert across_values(labels[0], y, *labels, -1).status == HOLDS


def test_intervals_are_students_and_welchs():
    a, b = np.array([79.1, 80.4, 78.8, 81.0]), np.array([77.9, 79.9, 78.5, 79.2])
    paired = larger(_by_seed(a), _by_seed(b), names=("FP", "baseline"))
    oracle = stats.ttest_rel(a, b)
    assert paired.p == pytest.approx(oracle.pvalue)
    assert oracle.confidence_interval() == pytest.approx((-0.1409, 2.0409), abs=1e-4)
    assert paired.evidence == (
        "FP 79.83, baseline 78.88: difference 0.95 [−0.1409, 2.041], paired, n = 4"
    )
    assert paired.status == UNDECIDED
    assert paired.reason == "the interval holds 0: too small an effect for 4 runs"
    welch = larger(_by_seed(a), _by_seed(b, 100))
    assert welch.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    one = above(_by_seed(a), 78)
    assert one.p == pytest.approx(stats.ttest_1samp(a, 78).pvalue)


def test_the_seeds_alone_say_whether_runs_are_paired():
    a, b = {1: 1.0, 2: 2.0, 3: 3.0, 4: 9.0}, {1: 0.5, 2: 1.4, 3: 2.6, 5: 7.0}
    assert larger(a, b).evidence.endswith("paired, n = 3")
    del b[3]
    b[6] = 3.0
    assert larger(a, b).evidence.endswith("Welch, n = 4 and 4")


def test_dealing_anew_is_a_permutation_test():
    random = np.random.default_rng(0)
    settings = np.repeat((1.0, 2.0, 3.0), 2)
    y = settings + random.normal(size=6)
    exact = stats.permutation_test(
        (settings,),
        lambda x, axis=-1: (x * stats.rankdata(y)).sum(axis=axis),
        permutation_type="pairings",
        n_resamples=math.inf,
        vectorized=True,
    )
    labels = settings.tolist()
    found = across_values(labels, y, labels, list(range(6)), 1)
    assert found.p == pytest.approx(exact.pvalue, abs=0.02)


@pytest.mark.parametrize("n", range(MIN_RUNS))
def test_few_seeds_decide_nothing_however_far_apart(n):
    few, many = _by_seed(100 + np.arange(n)), _by_seed(np.arange(9.0))
    for decision in (
        larger(few, many),
        larger(many, few),
        alike(few, many, within=1),
        above(few, 0),
        ratio_below(few, _by_seed(np.arange(1.0, 9.0)), 1),
        along_training(few),
    ):
        assert decision.status == UNDECIDED
        assert "at least 3 are needed" in decision.reason
        assert not decision.is_tested


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([1, 1, 1, 1, 2, 2, 2, 2], "too few runs: 8 over 2 values"),
        ([1, 1, 2, 2, 3], "too few runs: 5 over 3 values"),
    ],
)
def test_few_runs_or_settings_decide_no_correlation(settings, reason):
    decision = across_values(settings, settings, settings, settings, 1)
    assert decision.status == UNDECIDED
    assert decision.reason.startswith(reason)


def test_values_that_all_tie_take_six_runs():
    """Coarse accuracies can be equal in all runs; that is no infinite certainty."""
    for n, status in ((3, UNDECIDED), (5, UNDECIDED), (6, HOLDS)):
        ones, zeros = dict.fromkeys(range(n), 1.0), dict.fromkeys(range(n), 0.0)
        assert larger(ones, zeros).status == status
        assert larger(ones, ones, by=-0.5).status == status
        assert larger(ones, ones).status == UNDECIDED
    assert (
        "without a spread 6 are needed"
        in larger({1: 1, 2: 1, 3: 1}, {4: 0, 5: 0, 6: 0}).reason
    )


def test_what_is_not_finite_does_not_count():
    a = {1: 1.0, 2: math.nan, 3: 2.0, 4: None}
    assert "2 seeds" in larger(a, {1: 0.0, 2: 0.0, 3: 0.0}).reason
    settings, x = [1, 1, 2, 2, 3, 3], [1, 2, 3, 4, 5, math.nan]
    assert "5 over 3" in across_values(x, settings, settings, settings, 1).reason


def test_coefficients_of_one_are_no_infinite_evidence():
    assert along_training({1: 1.0, 2: 0.99, 3: 0.98}).status == HOLDS
    assert along_training({1: 1.0, 2: -1.0, 3: 1.0}).status == UNDECIDED


def _decision(status, p):
    return Decision(status, "too small" if status == UNDECIDED else "", "", p)


@pytest.mark.parametrize(
    ("decisions", "status", "reason"),
    [
        ([], UNDECIDED, "no runs"),
        ([_decision(HOLDS, 0.04)], HOLDS, ""),
        ([_decision(FAILS, 0.01), _decision(UNDECIDED, 0.3)], FAILS, ""),
        ([_decision(HOLDS, 0.01), undecided("too short a run")], HOLDS, ""),
        # Twice 0.03 is more than 0.05.
        (
            [_decision(HOLDS, 0.03), _decision(UNDECIDED, 0.9)],
            UNDECIDED,
            "nothing survives Holm's correction over 2 settings",
        ),
        (
            [_decision(HOLDS, 0.001), _decision(FAILS, 0.001)],
            UNDECIDED,
            "settings disagree: holds in 1, fails in 1",
        ),
        ([undecided("too short a run")], UNDECIDED, "too short a run"),
        ([_decision(UNDECIDED, 0.3)] * 2, UNDECIDED, "too small"),
    ],
)
def test_settings_together(decisions, status, reason):
    found = together(decisions)
    assert (found.status, found.reason) == (status, reason)


def test_holms_correction_by_hand():
    # 3 × 0.01; 2 × 0.02 = 0.04; 0.03 may not fall below the one before it.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_only_what_was_tested_may_pass_by_chance():
    claims = [_decision(HOLDS, 0.01), _decision(UNDECIDED, 0.2), undecided("no runs")]
    assert by_chance(claims) == (2, pytest.approx(0.1))
