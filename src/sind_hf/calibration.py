"""The affine map from raw predictions to the score scale of a training set.

Training on aligned distributions does not fix scale and shift of the raw scores. Two numbers, fitted once after the
training, put them on the scale of the opinion scores.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sind_hf.metrics import paired_arrays


class CalibrationWarning(RuntimeWarning):
    """Raw scores could not be calibrated and stay as they are; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)  # the only argument: copies and pickles are made from it
        self.reason = reason

    def __str__(self) -> str:
        return f"no calibration: {self.reason}; keeping scale 1 and shift 0"


@dataclass(frozen=True)
class Calibration:
    """`score = scale * raw + shift`; call it with raw scores.

    Attributes:
        scale: Positive factor.
        shift: Score of a raw 0, in the unit of the scores.
    """

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, raw: ArrayLike) -> NDArray[np.float64]:
        """Map raw scores of any shape to calibrated ones of the same shape; nothing is clipped."""
        return self.scale * np.asarray(raw, np.float64) + self.shift


def fit_affine(raw: ArrayLike, target: ArrayLike) -> Calibration:
    """Fit `target ≈ scale * raw + shift` by least squares, in float64.

    Args:
        raw: Raw predictions of the training images, shape (n,), n at least 2.
        target: Their opinion scores, higher is better, shape (n,).

    Returns:
        The calibration. If the slope is not positive or the raw scores are constant, it is the identity, with a
        `CalibrationWarning`: calibration must never reverse the order of the scores.

    Raises:
        ValueError: If lengths differ, there are fewer than two entries, or a value is not finite.
    """
    x, y = paired_arrays(raw, target)
    x_mean, y_mean = float(x.mean()), float(y.mean())
    spread = float(np.abs(x - x_mean).max())
    if spread <= 1e-12 * abs(x_mean):  # differences of the size of rounding errors carry no order
        return _identity(f"the raw scores are constant over {x.size} images")
    unit = (x - x_mean) / spread  # in [-1, 1]: squares neither overflow nor vanish
    scale = float(np.dot(unit, y - y_mean) / np.dot(unit, unit)) / spread
    if not scale > 0:
        return _identity(f"the raw scores do not rise with the opinion scores (slope {scale:.3g})")
    return Calibration(scale, y_mean - scale * x_mean)


def _identity(reason: str) -> Calibration:
    warnings.warn(CalibrationWarning(reason), stacklevel=3)
    return Calibration()
