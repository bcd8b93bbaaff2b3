from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sind_hf import metrics
from sind_hf.metrics import ConstantInputWarning, FitWarning

MEASURES = [metrics.srcc, metrics.plcc, metrics.krcc, metrics.rmse]


@pytest.fixture(autouse=True)
def no_unexpected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_scores(seed: int, n: int = 200, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 100, n)
    prediction = 0.02 * target + rng.normal(0, 0.5, n)
    if decimals is not None:
        prediction, target = prediction.round(decimals), (target / 10).round()
    return prediction, target


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_correlations_agree_with_scipy_with_and_without_ties(seed, decimals):
    x, y = random_scores(seed, decimals=decimals)
    assert metrics.srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert metrics.plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics.krcc(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert metrics.rmse(x, y) == pytest.approx(np.linalg.norm(x - y) / np.sqrt(len(x)), abs=1e-12)


def test_krcc_is_tau_b():
    # Pairs: 4 concordant, 0 discordant, one tie in each input -> 4 / sqrt(5 * 5); tau-a would be 4/6.
    assert metrics.krcc([1, 1, 2, 3], [1, 2, 3, 3]) == pytest.approx(4 / 5)


def test_rmse_by_hand():
    assert metrics.rmse([1, 2, 3], [1, 4, 3]) == pytest.approx(np.sqrt(4 / 3))
    assert metrics.rmse([5, 5], [5, 5]) == 0.0


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_extreme_magnitudes(factor):
    x, y = random_scores(1)
    assert metrics.plcc(x * factor, y) == pytest.approx(metrics.plcc(x, y), abs=1e-12)


@pytest.mark.parametrize("measure", [metrics.srcc, metrics.plcc, metrics.krcc, metrics.plcc_logistic])
@pytest.mark.parametrize("constant", ["prediction", "target"])
def test_constant_input_is_nan_with_one_warning_that_names_it(measure, constant):
    inputs = {"prediction": [1.0, 2.0, 3.0, 4.0, 5.0], "target": [3.0, 1.0, 2.0, 5.0, 4.0]}
    inputs[constant] = [0.1] * 5
    with pytest.warns(ConstantInputWarning, match=f"{constant} constant") as caught:
        assert np.isnan(measure(**inputs))
    assert len(caught) == 1


@pytest.mark.parametrize("measure", [*MEASURES, metrics.fit_logistic, metrics.correlations, metrics.report])
def test_bad_input_is_refused_with_its_place(measure):
    with pytest.raises(ValueError, match="prediction has 3 entries and target has 2"):
        measure([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="1 entries; at least 2"):
        measure([1], [1])
    with pytest.raises(ValueError, match="target holds 2 values that are not finite, the first is inf at index 1"):
        measure([1, 2, 3], [1, np.inf, np.nan])
    with pytest.raises(ValueError, match=r"prediction has shape \(3, 1\)"):
        measure([[1], [2], [3]], [1, 2, 3])


def logistic4(x, b1, b2, b3, b4):
    return (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2


def logistic5(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


@pytest.mark.parametrize(
    "truth", [(95, 5, 0.3, 0.2), (4.8, 1.1, 40.0, 9.0), (5, 90, -0.2, 0.3), (1e-3, 0, 1e4, 30.0), (100, 0, 0.0, 0.02)]
)
def test_the_4_parameter_fit_recovers_its_parameters(truth):
    x = truth[2] + truth[3] * np.random.default_rng(0).uniform(-4, 5, 300)
    fit = metrics.fit_logistic(x, logistic4(x, *truth), 4)
    assert fit.converged
    np.testing.assert_allclose(fit.parameters, truth, rtol=1e-4, atol=1e-4 * abs(truth[0] - truth[1]))
    np.testing.assert_allclose(fit(x[:7].reshape(7, 1))[:, 0], logistic4(x[:7], *truth), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "truth", [(80, 6.0, 0.3, 4.0, 50.0), (4.0, 0.1, 40.0, 0.005, 2.0), (-60, 3.0, 0.0, -2.0, 50.0)]
)
def test_the_5_parameter_fit_recovers_its_parameters(truth):
    x = truth[2] + np.random.default_rng(0).uniform(-5, 6, 300) / truth[1]
    fit = metrics.fit_logistic(x, logistic5(x, *truth), 5)
    assert fit.converged
    np.testing.assert_allclose(fit.parameters, truth, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(fit(x), logistic5(x, *truth), rtol=1e-6)


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_never_clearly_worse_than_a_line(parameters, seed):
    x, y = random_scores(seed)
    residual = metrics.rmse(metrics.fit_logistic(x, y, parameters)(x), y)
    assert residual <= 1.002 * metrics.rmse(np.polyval(np.polyfit(x, y, 1), x), y)
    assert metrics.plcc_logistic(x, y, parameters) >= metrics.plcc(x, y) - 1e-3


def test_the_fit_finds_a_saturating_relation_that_a_line_misses():
    x = np.linspace(-6, 6, 200)
    y = 50 + 40 * np.tanh(3 * x)
    assert metrics.plcc(x, y) < 0.93
    assert metrics.plcc_logistic(x, y) == pytest.approx(1, abs=1e-6)
    assert metrics.plcc_logistic(x, y, 5) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("parameters", [4, 5])
def test_no_convergence_falls_back_to_the_least_squares_line(parameters):
    x, y = random_scores(3)
    with pytest.warns(FitWarning, match="straight line") as caught:
        fit = metrics.fit_logistic(x, y, parameters, max_evaluations=1)
    assert len(caught) == 1
    assert not fit.converged
    assert "no start converged" in fit.message
    np.testing.assert_allclose(fit.parameters, np.polyfit(x, y, 1), rtol=1e-9)
    np.testing.assert_allclose(fit(x), np.polyval(np.polyfit(x, y, 1), x))


def test_fewer_images_than_parameters_and_constant_input_fall_back_too():
    with pytest.warns(FitWarning, match="3 images are fewer than the 4 parameters"):
        fit = metrics.fit_logistic([1, 2, 3], [2, 4, 6])
    np.testing.assert_allclose(fit.parameters, (2, 0), atol=1e-12)
    with pytest.warns(FitWarning, match="constant"):
        fit = metrics.fit_logistic([1] * 6, [1, 2, 3, 4, 5, 6])
    assert fit.parameters == (0.0, 3.5)


def test_an_unknown_number_of_parameters_is_refused():
    with pytest.raises(ValueError, match="parameters is 3"):
        metrics.fit_logistic([1, 2, 3], [1, 2, 3], 3)


def slow_pair_accuracy(x, y, reference, limit=float("inf")):
    right = pairs = 0.0
    for i in range(len(x)):
        for j in range(i):
            if reference[i] is None or reference[i] != reference[j] or y[i] == y[j] or abs(y[i] - y[j]) > limit:
                continue
            pairs += 1
            right += 0.5 if x[i] == x[j] else float((x[i] > x[j]) == (y[i] > y[j]))
    return right / pairs if pairs else float("nan")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["a", "b", "c", None])),
        min_size=2,
        max_size=25,
    ),
    st.sampled_from([None, 0, 1, 2]),
)
def test_pair_accuracy_counts_like_two_loops(rows, limit):
    x, y, reference = zip(*rows, strict=True)
    expected = slow_pair_accuracy(x, y, reference, float("inf") if limit is None else limit)
    assert metrics.pair_accuracy(x, y, reference, limit) == pytest.approx(expected, nan_ok=True)


def test_pair_accuracy_of_large_groups_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, 300), rng.integers(0, 50, 300)
    reference = rng.integers(0, 2, 300)
    expected = slow_pair_accuracy(x, y, reference, 7)
    monkeypatch.setattr(metrics, "_PAIR_BLOCK", 1000)
    assert metrics.pair_accuracy(x, y, reference, 7) == pytest.approx(expected)
    assert 0.4 < expected < 0.6


def test_pair_accuracy_includes_differences_of_exactly_the_limit():
    assert metrics.pair_accuracy([1, 2], [0.3, 0.4], ["r", "r"], max_difference=0.1) == 1.0  # 0.4 - 0.3 > 0.1
    assert np.isnan(metrics.pair_accuracy([1, 2], [0.3, 0.41], ["r", "r"], max_difference=0.1))


def test_pair_accuracy_compares_within_references_only():
    assert metrics.pair_accuracy([1, 2, 9, 8], [1, 2, 3, 4], ["a", "a", "b", "b"]) == 0.5
    assert np.isnan(metrics.pair_accuracy([1, 2], [1, 2], ["a", "b"]))


def test_pair_accuracy_refuses_bad_arguments():
    with pytest.raises(ValueError, match="reference has 1 entries and prediction has 2"):
        metrics.pair_accuracy([1, 2], [1, 2], ["a"])
    with pytest.raises(ValueError, match="max_difference is -1"):
        metrics.pair_accuracy([1, 2], [1, 2], ["a", "a"], -1)


def test_correlations_hold_every_measure():
    x, y = random_scores(0)
    values = metrics.correlations(x, y)
    assert list(values) == ["srcc", "plcc", "krcc", "rmse", "plcc_logistic4", "plcc_logistic5", "n"]
    assert values["plcc_logistic4"] == metrics.plcc_logistic(x, y, 4)
    assert values["plcc_logistic5"] == metrics.plcc_logistic(x, y, 5)
    assert values["krcc"] == metrics.krcc(x, y)
    assert values["n"] == 200


def test_constant_predictions_give_nan_and_one_warning():
    with pytest.warns(ConstantInputWarning, match="prediction constant") as caught:
        values = metrics.correlations([2.0] * 6, [1, 2, 3, 4, 5, 6])
    assert len(caught) == 1
    assert {name for name, value in values.items() if np.isnan(value)} == {
        "srcc",
        "plcc",
        "krcc",
        "plcc_logistic4",
        "plcc_logistic5",
    }
    assert values["rmse"] == pytest.approx(metrics.rmse([2] * 6, range(1, 7)))


def test_report_tells_within_scene_agreement_from_differences_between_scenes():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, (2, 40))
    prediction = base.ravel()
    target = np.concatenate([10 + 20 * base[0], 60 + 40 * base[1]])
    scene = ["night"] * 40 + ["animal"] * 40
    result = metrics.report(prediction, target, scene=scene, reference=scene)
    assert list(result["by_scene"]) == ["animal", "night"]
    assert result["by_scene"]["night"] == pytest.approx(
        {"srcc": 1, "plcc": 1, "krcc": 1, "rmse": metrics.rmse(prediction[:40], target[:40]), "n": 40}
    )
    assert result["within_scene"] == pytest.approx({"srcc": 1, "plcc": 1, "scenes": 2})
    assert result["pair_accuracy"] == 1.0
    assert result["srcc"] == metrics.srcc(prediction, target) < 0.8
    assert json.loads(json.dumps(result))["by_scene"]["animal"]["n"] == 40


def test_report_leaves_scenes_without_a_correlation_out_of_the_mean():
    prediction = [1, 2, 3, 4, 5, 6, 7]
    target = [1, 3, 2, 5, 5, 9, 4]
    scene = ["a", "a", "a", "flat", "flat", "single", None]
    with pytest.warns(ConstantInputWarning, match="within 2 of 3 scenes .*: flat, single") as caught:
        result = metrics.report(prediction, target, scene=scene)
    assert len(caught) == 1
    assert result["within_scene"] == pytest.approx({"srcc": 0.5, "plcc": 0.5, "scenes": 1})
    assert np.isnan(result["by_scene"]["flat"]["srcc"])
    assert result["by_scene"]["single"]["rmse"] == 3
    assert set(result["by_scene"]) == {"a", "flat", "single"}
    assert "pair_accuracy" not in result


def test_report_refuses_scenes_of_another_length():
    with pytest.raises(ValueError, match="scene has 2 entries and prediction has 3"):
        metrics.report([1, 2, 3], [1, 3, 2], scene=["a", "b"])


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("outlier", [300.0, 1e4])
def test_one_outlier_does_not_stop_the_fit_at_its_narrowest_sigmoid(parameters, outlier):
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(0, 1, 300), outlier)
    y = np.tanh(x) + rng.normal(0, 0.05, 301)
    assert metrics.plcc_logistic(x, y, parameters) > 0.997
