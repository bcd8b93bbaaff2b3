from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

from sind_hf.calibration import Calibration, CalibrationWarning, fit_affine


def test_recovers_an_exact_line():
    raw = np.linspace(-3, 2, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration = fit_affine(raw, 12.5 * raw + 60)
    assert calibration.scale == pytest.approx(12.5, rel=1e-12)
    assert calibration.shift == pytest.approx(60, rel=1e-12)
    np.testing.assert_allclose(calibration(raw), 12.5 * raw + 60)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_is_the_least_squares_line(offset):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=200) + offset
    target = 7 * raw + rng.normal(size=200)
    slope, intercept = np.polyfit(raw - offset, target, 1)
    calibration = fit_affine(raw.astype(np.float32).astype(np.float64), target)
    assert calibration.scale == pytest.approx(slope, rel=1e-2 if offset else 1e-5)
    exact = fit_affine(raw, target)
    assert exact.scale == pytest.approx(slope, rel=1e-9)
    assert exact.shift == pytest.approx(intercept - slope * offset, rel=1e-9)


def test_float32_predictions_are_fitted_in_float64():
    raw = (1e4 + np.arange(100) * 0.5).astype(np.float32)
    calibration = fit_affine(raw, 2.0 * raw.astype(np.float64) - 20000)
    assert calibration.scale == pytest.approx(2.0, rel=1e-12)
    assert calibration.shift == pytest.approx(-20000, rel=1e-9)


@pytest.mark.parametrize(
    ("raw", "target", "reason"),
    [
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], "do not rise"),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], "do not rise"),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], "constant"),
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], "constant"),
    ],
)
def test_without_a_rising_line_the_identity_is_kept(raw, target, reason):
    with pytest.warns(CalibrationWarning, match=reason) as caught:
        assert fit_affine(raw, target) == Calibration(1.0, 0.0)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda warning: pickle.loads(pickle.dumps(warning))])
def test_a_copied_warning_says_the_same(duplicate):
    warning = CalibrationWarning("the raw scores are constant")
    assert (
        str(duplicate(warning))
        == str(warning)
        == ("no calibration: the raw scores are constant; keeping scale 1 and shift 0")
    )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="3 entries and target has 2"):
        fit_affine([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="index 1"):
        fit_affine([1, float("nan")], [1, 2])
