from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sind_hf.experiments.bootstrap import (
    bootstrap_intervals,
    bootstrap_mean,
    paired_bootstrap,
    steiger_test,
    steiger_z,
)


def scores(count=200, noise=(0.5, 1.0), seed=0, decimals=1):
    """Opinion scores with ties, and two models of them, the first better."""
    rng = np.random.default_rng(seed)
    truth = np.round(rng.normal(size=count), decimals)
    return [truth + level * rng.normal(size=count) for level in noise], truth


def test_interval_is_that_of_correlations_computed_one_resample_at_a_time():
    (model, _), truth = scores()
    model = np.round(model, 1)  # ties on both sides
    found = bootstrap_intervals(model, truth, resamples=300, seed=3)
    draws = np.random.default_rng(3).integers(truth.size, size=(300, truth.size))
    slow = {
        "srcc": [stats.spearmanr(model[draw], truth[draw]).statistic for draw in draws],
        "plcc": [stats.pearsonr(model[draw], truth[draw]).statistic for draw in draws],
    }
    slow["srcc_plcc"] = np.mean([slow["srcc"], slow["plcc"]], axis=0)
    for name, values in slow.items():
        np.testing.assert_allclose(found[name], np.quantile(values, [0.025, 0.975]), rtol=1e-12)


def test_interval_agrees_with_scipy():
    (model, _), truth = scores(100)
    found = bootstrap_intervals(model, truth, resamples=4000)["plcc"]
    scipy = stats.bootstrap(
        (model, truth),
        lambda x, y: stats.pearsonr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=4000,
        method="percentile",
        rng=1,
    ).confidence_interval
    np.testing.assert_allclose(found, [scipy.low, scipy.high], atol=0.01)


def test_blocks_of_resamples_are_joined():
    (model, _), truth = scores(3000)
    found = bootstrap_intervals(model, truth, resamples=700)["srcc"]  # two blocks
    assert found[0] < stats.spearmanr(model, truth).statistic < found[1]
    assert found[1] - found[0] < 0.03


def test_constant_scores_have_no_interval():
    assert all(math.isnan(end) for ends in bootstrap_intervals([1.0, 1.0, 1.0], [1, 2, 3]).values() for end in ends)


def test_mean_of_folds():
    values = [0.8, 0.9, 0.7, 0.85]
    low, high = bootstrap_mean(values)
    scipy = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=0).confidence_interval
    np.testing.assert_allclose([low, high], [scipy.low, scipy.high], atol=0.005)
    assert bootstrap_mean([0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([])


@pytest.mark.parametrize("correlation", ["srcc", "plcc", "srcc_plcc"])
def test_paired_difference(correlation):
    (better, worse), truth = scores()
    found = paired_bootstrap(better, worse, truth, correlation)
    swapped = paired_bootstrap(worse, better, truth, correlation)
    assert found.low < found.difference < found.high
    assert found.low > 0 and found.p_value < 0.01
    assert swapped.difference == pytest.approx(-found.difference)
    assert swapped.p_value == pytest.approx(found.p_value)
    value = {"srcc": stats.spearmanr, "plcc": stats.pearsonr}.get(correlation)
    if value is not None:
        assert found.difference == pytest.approx(value(better, truth).statistic - value(worse, truth).statistic)


def test_pairing_makes_the_interval_narrower():
    (model, _), truth = scores()
    almost = model + 0.01 * np.random.default_rng(1).normal(size=truth.size)
    paired = paired_bootstrap(model, almost, truth)
    single = bootstrap_intervals(model, truth)["srcc"]
    assert paired.high - paired.low < 0.1 * (single[1] - single[0])


def test_equal_models_do_not_differ():
    (model, _), truth = scores()
    found = paired_bootstrap(model, model, truth)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert steiger_test(model, model, truth).p_value == 1


@pytest.mark.parametrize(
    ("first", "second", "between", "count", "z", "p_value"),
    [  # results of the R package cocor, test "steiger1980", on correlations rounded to four digits
        (0.0228, 0.3522, 0.3718, 553, -7.1345, 0.0000),
        (0.2493, 0.3395, 0.4082, 553, -2.0660, 0.0388),
    ],
)
def test_steiger_agrees_with_cocor(first, second, between, count, z, p_value):
    found = steiger_z(first, second, between, count)
    assert found.z == pytest.approx(z, abs=3e-4)
    assert found.p_value == pytest.approx(p_value, abs=1e-4)
    assert steiger_z(second, first, between, count).z == pytest.approx(-found.z)


def test_steiger_on_scores_is_steiger_on_spearman_correlations():
    (better, worse), truth = scores()
    pairs = [(better, truth), (worse, truth), (better, worse)]
    expected = steiger_z(*(float(stats.spearmanr(*pair).statistic) for pair in pairs), truth.size)
    assert steiger_test(better, worse, truth).z == pytest.approx(expected.z)
    assert expected.p_value < 0.01


def test_steiger_holds_its_level():
    """Models that are equally good differ "significantly" in about five of a hundred studies."""
    hits = 0
    for seed in range(400):
        (one, other), truth = scores(80, noise=(0.8, 0.8), seed=seed, decimals=6)
        hits += steiger_test(one, other, truth).p_value < 0.05
    assert 8 <= hits <= 34  # 400 draws of probability 0.05: mean 20, deviation 4.4


def test_steiger_at_the_ends():
    assert steiger_z(1.0, 0.5, 0.5, 20).p_value == 0
    assert steiger_z(0.5, 1.0, 0.5, 20).z == -math.inf
    assert math.isnan(steiger_z(float("nan"), 0.5, 0.5, 20).z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap([1, 2], [1, 2], [1, 2], "krcc"), "correlation is 'krcc'; choose one of srcc, plcc"),
        (lambda: paired_bootstrap([1, 2], [1, 2, 3], [1, 2]), "3 entries and target has 2"),
        (lambda: bootstrap_intervals([1, 2], [1, 2], confidence=1.0), "share in"),
        (lambda: bootstrap_intervals([1, 2], [1, 2], resamples=0), "1 or more"),
        (lambda: steiger_test([1, 2, 3], [1, 2, 3], [1, 2, 3]), "at least 4"),
        (lambda: steiger_z(0.5, 0.5, 0.5, 3), "at least 4 images"),
        (lambda: steiger_z(1.5, 0.5, 0.5, 9), r"in \[-1, 1\]"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
