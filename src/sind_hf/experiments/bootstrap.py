"""The uncertainty of a correlation, and of the difference between two models' correlations.

Intervals and paired differences come from a bootstrap over the images. Steiger's Z is the closed-form test for two
models that were tested on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sind_hf.metrics import paired_arrays, srcc

Correlation = Literal["srcc", "plcc", "srcc_plcc"]
CORRELATIONS: tuple[Correlation, ...] = ("srcc", "plcc", "srcc_plcc")
_BLOCK = 1 << 20  # values resampled at a time: 8 MB for each float64 table

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The difference between two models on the same images, `first - second`.

    Attributes:
        difference: Difference of the correlations; `low` and `high` are the ends of its interval.
        p_value: Two-sided p-value: twice the share of resamples with the difference on the other side of zero.
    """

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class SteigerTest:
    """Steiger's Z for two correlations that share a variable.

    Attributes:
        z: Standard normal if both correlations are equal; positive if the first is higher.
        p_value: Two-sided p-value.
    """

    z: float
    p_value: float


def bootstrap_intervals(
    prediction: ArrayLike, target: ArrayLike, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of SRCC, PLCC and their mean, from resampling images with replacement.

    Args:
        prediction: Predicted scores, shape (n,).
        target: Opinion scores, shape (n,).
        confidence: Share of the resamples inside the interval.

    Returns:
        (low, high) of `srcc`, `plcc` and `srcc_plcc`; `nan` for constant input. Resamples without variation are left
        out.

    Raises:
        ValueError: See `sind_hf.metrics.paired_arrays`, or an option is out of range.
    """
    x, y = paired_arrays(prediction, target)
    drawn = _resampled([x], y, CORRELATIONS, resamples, confidence, seed)
    return {name: _interval(values[:, 0], confidence) for name, values in drawn.items()}


def bootstrap_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of a few values, such as one per fold, from resampling them.

    Raises:
        ValueError: If there are no values.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError("bootstrap_mean needs at least one value")
    draws = np.random.default_rng(0).integers(array.size, size=(10_000, array.size))
    return _interval(array[draws].mean(axis=1), 0.95)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    target: ArrayLike,
    correlation: Correlation = "srcc",
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two models that scored the same images, resampling the images for both at once.

    Args:
        first: Scores of one model, shape (n,).
        second: Scores of the other model for the same images in the same order.
        target: Opinion scores, shape (n,).
        correlation: `"srcc"`, `"plcc"`, or `"srcc_plcc"` (their mean, as in the paper's cross-set table).
        confidence: Share of the resamples inside the interval.

    Raises:
        ValueError: If the correlation is unknown, an option is out of range, or see `sind_hf.metrics.paired_arrays`.
    """
    if correlation not in CORRELATIONS:
        raise ValueError(f"correlation is {correlation!r}; choose one of {', '.join(CORRELATIONS)}")
    x, y = paired_arrays(first, target)
    other, _ = paired_arrays(second, target)
    whole = _weighted([x, other], y, np.ones((1, y.size)), (correlation,))[correlation][0]
    drawn = _resampled([x, other], y, (correlation,), resamples, confidence, seed)[correlation]
    differences = drawn[:, 0] - drawn[:, 1]
    low, high = _interval(differences, confidence)
    differences = differences[np.isfinite(differences)]
    # The observed sample counts as one resample, so that no p-value is 0 (Davison and Hinkley 1997, section 4.2).
    sides = [(np.count_nonzero(side) + 1) / (differences.size + 1) for side in (differences <= 0, differences >= 0)]
    return Difference(float(whole[0] - whole[1]), low, high, float(min(1.0, 2 * min(sides))))


def steiger_test(first: ArrayLike, second: ArrayLike, target: ArrayLike) -> SteigerTest:
    """Test whether two models' SRCC with the same opinion scores differ.

    This is Steiger's test of dependent correlations on ranks, since a Spearman correlation is the Pearson correlation
    of ranks (Myers and Sirois, "Spearman correlation coefficients, differences between", Encyclopedia of Statistical
    Sciences, 2006).

    Args:
        first: Scores of one model, shape (n,), n at least 4.
        second: Scores of the other model for the same images in the same order.
        target: Opinion scores, shape (n,).

    Raises:
        ValueError: See `sind_hf.metrics.paired_arrays`.
    """
    x, y = paired_arrays(first, target, minimum=4)
    other, _ = paired_arrays(second, target, minimum=4)
    return steiger_z(srcc(x, y), srcc(other, y), srcc(x, other), y.size)


def steiger_z(first: float, second: float, between: float, count: int) -> SteigerTest:
    """Compare two correlations that share a variable, from the correlations alone.

    J. H. Steiger, "Tests for comparing elements of a correlation matrix", Psychological Bulletin 87 (1980), 245-251,
    formula (14): Dunn and Clark's test with the mean of the two correlations in the covariance term.

    Args:
        first: Correlation of the shared variable with the first one.
        second: Correlation of the shared variable with the second one.
        between: Correlation of the first variable with the second.
        count: Number of images, at least 4.

    Returns:
        The test; z is 0 if the two correlations are equal, `nan` if one is not defined.

    Raises:
        ValueError: If `count` is less than 4 or a correlation is outside [-1, 1].
    """
    if count < 4:
        raise ValueError(f"count is {count}; Steiger's test needs at least 4 images")
    given = (first, second, between)
    if any(math.isnan(value) for value in given):
        return SteigerTest(math.nan, math.nan)
    if any(abs(value) > 1 for value in given):
        raise ValueError(f"the correlations are {given}; they must be in [-1, 1]")
    if first == second:
        return SteigerTest(0.0, 1.0)
    mean = (first + second) / 2
    rest = 1 - mean**2
    psi = between * (1 - 2 * mean**2) - 0.5 * mean**2 * (1 - 2 * mean**2 - between**2)
    spread = 2 - 2 * psi / rest**2
    if abs(first) == 1 or abs(second) == 1 or spread <= 0:
        # A perfect correlation has no sampling error by this formula: any difference is beyond chance.
        return SteigerTest(math.copysign(math.inf, first - second), 0.0)
    z = (math.atanh(first) - math.atanh(second)) * math.sqrt((count - 3) / spread)
    return SteigerTest(z, float(2 * stats.norm.sf(abs(z))))


def _resampled(
    models: Sequence[Array], target: Array, names: Sequence[Correlation], resamples: int, confidence: float, seed: int
) -> dict[str, Array]:
    """Return every model's correlations with the target in every resample, by name, shape (resamples, models)."""
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples is {resamples} and confidence {confidence}; give 1 or more, and a share in (0, 1)"
        )
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // target.size)
    blocks: dict[str, list[Array]] = {name: [] for name in names}
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), target.size)
        draws = rng.integers(target.size, size=shape) + np.arange(shape[0])[:, None] * target.size
        counts = np.bincount(draws.ravel(), minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        for name, values in _weighted(models, target, counts, names).items():
            blocks[name].append(values)
    return {name: np.concatenate(values) for name, values in blocks.items()}


def _weighted(
    models: Sequence[Array], target: Array, counts: Array, names: Sequence[Correlation]
) -> dict[Correlation, Array]:
    """Return every model's correlations with the target, each image counted `counts` (R, n) times."""
    found: dict[Correlation, Array] = {}
    if {"plcc", "srcc_plcc"} & set(names):
        found["plcc"] = _weighted_pearson([model[None] for model in models], target[None], counts)
    if {"srcc", "srcc_plcc"} & set(names):
        ranks = [_weighted_ranks(values, counts) for values in (*models, target)]
        found["srcc"] = _weighted_pearson(ranks[:-1], ranks[-1], counts)
    if "srcc_plcc" in names:
        found["srcc_plcc"] = (found["srcc"] + found["plcc"]) / 2
    return {name: found[name] for name in names}


def _weighted_ranks(values: Array, counts: Array) -> Array:
    """Return mean ranks (R, n) of values (n,) that occur `counts` (R, n) times, so that no resample needs sorting."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return ranks[:, group]


def _weighted_pearson(models: Sequence[Array], target: Array, counts: Array) -> Array:
    """Return Pearson correlations (R, models) of models (R or 1, n) and target (R or 1, n); `nan` if constant."""
    y, y_spread = _centred(target, counts)
    columns = []
    for model in models:
        x, x_spread = _centred(model, counts)
        with np.errstate(invalid="ignore"):
            columns.append((counts * x * y).sum(axis=1) / (x_spread * y_spread))
    return np.stack(columns, axis=1)


def _centred(values: Array, counts: Array) -> tuple[Array, Array]:
    """Return values minus their weighted mean, and the root of their weighted sum of squares (`nan` if constant)."""
    values = np.broadcast_to(values, counts.shape)
    centred = values - ((counts * values).sum(axis=1) / counts.sum(axis=1))[:, None]
    drawn = counts > 0
    constant = np.where(drawn, values, -np.inf).max(axis=1) == np.where(drawn, values, np.inf).min(axis=1)
    spread = np.sqrt((counts * centred**2).sum(axis=1))
    return centred, np.where(constant, np.nan, spread)


def _interval(values: Array, confidence: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
