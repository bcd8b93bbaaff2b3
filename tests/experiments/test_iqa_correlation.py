from __future__ import annotations

import math
from importlib.resources import files

import numpy as np
import pytest
from scipy import stats

evaluate = pytest.importorskip("evaluate", reason='needs evaluate: pip install "sind-hf[eval]"')


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    """As a user loads it, from the installed package and without a network (tests/conftest.py sets HF_HUB_OFFLINE)."""
    folder = files("sind_hf") / "evaluate_modules" / "iqa_correlation"
    return evaluate.load(str(folder), cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_values_are_scipys(metric):
    rng = np.random.default_rng(0)
    truth = np.round(rng.uniform(0, 100, 80))
    scores = truth + rng.normal(0, 15, 80)
    found = metric.compute(predictions=scores.tolist(), references=truth.tolist())
    assert found["srcc"] == pytest.approx(stats.spearmanr(scores, truth).statistic)
    assert found["plcc"] == pytest.approx(stats.pearsonr(scores, truth).statistic)
    assert found["krcc"] == pytest.approx(stats.kendalltau(scores, truth).statistic)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((scores - truth) ** 2)))
    assert found["plcc_logistic4"] >= found["plcc"] - 0.01 and found["n"] == 80
    assert "by_scene" not in found


def test_scores_stay_apart_that_float32_makes_equal(metric):
    base = 52.0
    scores = [base + 1e-7 * step for step in range(5)]
    assert len(set(np.float32(scores))) == 1
    assert metric.compute(predictions=scores, references=[1.0, 2.0, 3.0, 4.0, 5.0])["srcc"] == 1


def test_scenes(metric):
    found = metric.compute(
        predictions=[1.0, 2.0, 3.0, 30.0, 20.0, 10.0],
        references=[1.0, 2.0, 3.0, 1.0, 2.0, 3.0],
        scenes=["a", "a", "a", "b", "b", "b"],
    )
    assert found["by_scene"]["a"]["srcc"] == 1 and found["by_scene"]["b"]["srcc"] == -1
    assert found["within_scene"] == {"srcc": 0.0, "plcc": 0.0, "scenes": 2}


def test_added_in_batches(metric):
    metric.add_batch(predictions=[1.0, 2.0], references=[3.0, 1.0])
    metric.add_batch(predictions=[3.0], references=[9.0])
    assert metric.compute()["srcc"] == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore::sind_hf.metrics.ConstantInputWarning")
def test_constant_predictions_are_not_a_number(metric):
    assert math.isnan(metric.compute(predictions=[1.0, 1.0, 1.0], references=[1.0, 2.0, 3.0])["srcc"])
