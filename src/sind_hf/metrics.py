"""Agreement between predicted and subjective quality: correlations, logistic fits, pair accuracy.

Pure NumPy and SciPy, float64 throughout. Every function takes two equally long one-dimensional sequences, the
predictions and the opinion scores, both with *higher is better*; negate DMOS first. It raises a `ValueError` where
`paired_arrays` does. A measure that is not defined (constant input, no pair to compare) is `nan`; a warning names
constant input. Python's `json` writes `nan` as `NaN`, which is not JSON: replace it by `None` in files for other
programs.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats
from scipy.stats import ConstantInputWarning as ConstantInputWarning  # for those who catch it

Array = NDArray[np.float64]
Label = TypeVar("Label", bound=Hashable)

_PAIR_BLOCK = 1 << 21  # compared pairs held in memory at a time: about 16 MB for each float64 table
# The logistic search: a sigmoid narrower than this share of the spread of the predictions is a step, one wider than
# this many standard deviations is a line. The spread ignores outliers, beside which every sigmoid looks narrow.
_NARROWEST, _WIDEST = 1e-3, 10.0
_WIDTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the starts
_STARTS = 3  # this many of a coarse grid are refined


class FitWarning(RuntimeWarning):
    """A logistic curve could not be fitted, so a straight line is used instead."""


def paired_arrays(prediction: ArrayLike, target: ArrayLike, minimum: int = 2) -> tuple[Array, Array]:
    """Check predictions and scores and return them as float64 arrays.

    Args:
        prediction: Predicted scores, shape (n,).
        target: Opinion scores, shape (n,).
        minimum: The smallest n allowed.

    Returns:
        The two float64 arrays of shape (n,).

    Raises:
        ValueError: If an input is not one-dimensional, holds NaN or infinity, has another length than its partner or
            fewer than `minimum` entries.
    """
    x, y = _finite_vector("prediction", prediction), _finite_vector("target", target)
    if x.size != y.size:
        raise ValueError(f"prediction has {x.size} entries and target has {y.size}; give one target per prediction")
    if x.size < minimum:
        raise ValueError(f"prediction and target have {x.size} entries; at least {minimum} are needed")
    return x, y


def srcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Compute Spearman's rank correlation in [-1, 1]; ties share their mean rank; `nan` for constant input."""
    x, y = paired_arrays(prediction, target)
    _warn_if_constant(x, y, "srcc")
    return _srcc(x, y)


def plcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Compute Pearson's linear correlation in [-1, 1] of the raw predictions; `nan` for constant input."""
    x, y = paired_arrays(prediction, target)
    _warn_if_constant(x, y, "plcc")
    return _plcc(x, y)


def krcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Compute Kendall's tau-b in [-1, 1], which corrects for ties in either input; `nan` for constant input."""
    x, y = paired_arrays(prediction, target)
    _warn_if_constant(x, y, "krcc")
    return _krcc(x, y)


def rmse(prediction: ArrayLike, target: ArrayLike) -> float:
    """Compute the root mean squared difference, in the unit of the scores: for calibrated predictions only."""
    return _rmse(*paired_arrays(prediction, target))


@dataclass(frozen=True)
class LogisticFit:
    """A fitted curve that maps predictions to the scale of the opinion scores; call it with predictions.

    Attributes:
        parameters: (b1, …, b4) or (b1, …, b5) of `fit_logistic`, in the units of the inputs; after a failed fit
            (slope, intercept) of the least-squares line.
        converged: Whether the logistic fit succeeded.
        message: Reason why it did or did not.
    """

    parameters: tuple[float, ...]
    converged: bool
    message: str

    def __call__(self, prediction: ArrayLike) -> Array:
        """Map predictions of any shape; the result has the same shape."""
        return _curve(self.parameters, np.asarray(prediction, np.float64))


def fit_logistic(
    prediction: ArrayLike, target: ArrayLike, parameters: Literal[4, 5] = 4, *, max_evaluations: int = 200
) -> LogisticFit:
    """Fit the VQEG logistic from predictions x to opinion scores by least squares.

    With four parameters `(b1-b2) / (1 + exp(-(x-b3)/|b4|)) + b2` (VQEG FR-TV phase I, 2000), with five
    `b1 * (1/2 - 1/(1 + exp(b2*(x-b3)))) + b4*x + b5` (Sheikh, Sabir and Bovik, TIP 2006). The fit runs on
    standardized values from several starts and keeps the best; b4 of the first and b2 of the second are returned
    positive. The width of the sigmoid stays between 0.001 times the spread of the predictions (measured on their
    middle half, so that outliers do not count) and 10 standard deviations.

    Args:
        prediction: Predicted scores, shape (n,).
        target: Opinion scores, shape (n,).
        parameters: 4 or 5.
        max_evaluations: Evaluations of the curve allowed per start, gradients not counted.

    Returns:
        The fit. If no start converges, if an input is constant or if there are fewer images than parameters, it is
        the least-squares line, with `converged=False` and a `FitWarning`.

    Raises:
        ValueError: If `parameters` is neither 4 nor 5.
    """
    if parameters not in (4, 5):
        raise ValueError(f"parameters is {parameters!r}; the logistic has 4 or 5 parameters")
    x, y = paired_arrays(prediction, target)
    fit = _fit(x, y, parameters, max_evaluations)
    if not fit.converged:
        warnings.warn(f"{parameters}-parameter logistic: {fit.message}; using a straight line", FitWarning, 2)
    return fit


def plcc_logistic(prediction: ArrayLike, target: ArrayLike, parameters: Literal[4, 5] = 4) -> float:
    """Compute Pearson's correlation after `fit_logistic`, the usual IQA protocol; `nan` for constant input.

    The curve may fall as well as rise, so the value is not negative even where predictions and scores disagree in
    direction: read it beside SRCC.
    """
    x, y = paired_arrays(prediction, target)
    if _warn_if_constant(x, y, "plcc_logistic"):
        return float("nan")
    return _plcc(fit_logistic(x, y, parameters)(x), y)


def pair_accuracy(
    prediction: ArrayLike, target: ArrayLike, reference: Sequence[Hashable], max_difference: float | None = None
) -> float:
    """Compute the share of image pairs with the same reference that the predictions put in the right order.

    Pairs with equal opinion scores are left out, pairs with equal predictions count half. Memory stays bounded for
    large groups; the time is quadratic in the size of a group.

    Args:
        prediction: Predicted scores, shape (n,).
        target: Opinion scores, shape (n,).
        reference: The reference of each image, length n; images with `None` are in no pair.
        max_difference: Largest difference of opinion scores of the pairs that count (fine distinctions).

    Returns:
        The share in [0, 1], `nan` if there is no pair.

    Raises:
        ValueError: If `reference` has another length or `max_difference` is negative.
    """
    x, y = paired_arrays(prediction, target)
    if max_difference is not None and not max_difference >= 0:
        raise ValueError(f"max_difference is {max_difference}; give a score difference of 0 or more, or None")
    # A difference of decimal scores can be one rounding error above the limit (0.4 - 0.3 > 0.1).
    limit = np.inf if max_difference is None else max_difference * (1 + 1e-9) + 1e-12
    pairs, right = 0, 0.0
    for members in _groups("reference", reference, x.size).values():
        group_pairs, group_right = _ordered_pairs(x[members], y[members], limit)
        pairs += group_pairs
        right += group_right
    return right / pairs if pairs else float("nan")


def correlations(prediction: ArrayLike, target: ArrayLike) -> dict[str, float]:
    """Compute all measures of one set of predictions, by lower-case name.

    Returns:
        `srcc`, `plcc`, `krcc`, `rmse`, `plcc_logistic4`, `plcc_logistic5` and `n`, the number of images. Constant
        input gives `nan` for the correlations and one warning.
    """
    x, y = paired_arrays(prediction, target)
    constant = _warn_if_constant(x, y, "correlations")
    values = _basic(x, y)
    n = values.pop("n")
    values["plcc_logistic4"] = float("nan") if constant else plcc_logistic(x, y, 4)
    values["plcc_logistic5"] = float("nan") if constant else plcc_logistic(x, y, 5)
    return values | {"n": n}


def report(
    prediction: ArrayLike,
    target: ArrayLike,
    scene: Sequence[Hashable] | None = None,
    reference: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Compute everything that is reported about one evaluation.

    Args:
        prediction: Predicted scores, shape (n,).
        target: Opinion scores, shape (n,).
        scene: The scene of each image, length n; images with `None` belong to no scene.
        reference: The reference of each image, length n; images with `None` have none.

    Returns:
        The values of `correlations` over all images; with scenes also `by_scene` (for each scene, by name, `srcc`,
        `plcc`, `krcc`, `rmse`, `n`) and `within_scene` (`srcc` and `plcc` averaged over the scenes where they are
        defined, and `scenes`, the number of those); with references also `pair_accuracy`. Plain Python values; `nan`
        if a measure is not defined.

    Raises:
        ValueError: If `scene` or `reference` has another length.
    """
    x, y = paired_arrays(prediction, target)
    names = [None if name is None else str(name) for name in scene] if scene is not None else []
    groups = _groups("scene", names, x.size) if scene is not None else {}
    result: dict[str, Any] = dict(correlations(x, y))
    if scene is not None:
        result["by_scene"] = {name: _basic(x[groups[name]], y[groups[name]]) for name in sorted(groups)}
        result["within_scene"] = _within_scene(result["by_scene"])
    if reference is not None:
        result["pair_accuracy"] = pair_accuracy(x, y, reference)
    return result


def _finite_vector(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; it must be one-dimensional, one number per image")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name} holds {bad.size} values that are not finite, the first is {array[bad[0]]} at index {bad[0]}; "
            "remove those images"
        )
    return array


def _is_constant(array: Array) -> bool:
    return bool((array == array[0]).all())


def _warn_if_constant(x: Array, y: Array, where: str) -> bool:
    """Warn on behalf of the public function that called; return whether an input is constant."""
    names = [name for name, array in (("prediction", x), ("target", y)) if _is_constant(array)]
    if names:
        message = f"{where}: {' and '.join(names)} constant over {x.size} images; the correlation is not defined"
        warnings.warn(ConstantInputWarning(message), stacklevel=3)
    return bool(names)


def _srcc(x: Array, y: Array) -> float:
    return _plcc(stats.rankdata(x), stats.rankdata(y))


def _plcc(x: Array, y: Array) -> float:
    if x.size < 2 or _is_constant(x) or _is_constant(y):
        return float("nan")
    # One common factor per input keeps the squares of very large or very small scores representable.
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip(np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)), -1.0, 1.0))


def _krcc(x: Array, y: Array) -> float:
    if x.size < 2 or _is_constant(x) or _is_constant(y):
        return float("nan")
    return float(stats.kendalltau(x, y, variant="b").statistic)


def _rmse(x: Array, y: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x - y))))


def _basic(x: Array, y: Array) -> dict[str, float]:
    return {"srcc": _srcc(x, y), "plcc": _plcc(x, y), "krcc": _krcc(x, y), "rmse": _rmse(x, y), "n": x.size}


def _within_scene(by_scene: dict[str, dict[str, float]]) -> dict[str, float]:
    """Average SRCC and PLCC over the scenes where they are defined, naming the others in one warning."""
    defined = [values for values in by_scene.values() if not np.isnan(values["srcc"])]
    undefined = [name for name, values in by_scene.items() if np.isnan(values["srcc"])]
    if undefined:
        shown = ", ".join(undefined[:5]) + (" …" if len(undefined) > 5 else "")
        count = f"{len(undefined)} of {len(by_scene)} scenes"
        message = f"report: no correlation within {count} (one image, or constant values): {shown}"
        warnings.warn(ConstantInputWarning(message), stacklevel=3)
    means = {
        name: float(np.mean([values[name] for values in defined])) if defined else float("nan")
        for name in ("srcc", "plcc")
    }
    return {**means, "scenes": len(defined)}


def _groups(name: str, labels: Sequence[Label | None], size: int) -> dict[Label, NDArray[np.intp]]:
    """Return the indices of each label; `None` labels are left out."""
    if len(labels) != size:
        raise ValueError(f"{name} has {len(labels)} entries and prediction has {size}; give one {name} per prediction")
    members: dict[Label, list[int]] = {}
    for index, label in enumerate(labels):
        if label is not None:
            members.setdefault(label, []).append(index)
    return {label: np.asarray(indices, np.intp) for label, indices in members.items()}


def _ordered_pairs(x: Array, y: Array, limit: float) -> tuple[int, float]:
    """Count the comparable pairs of one group and how many are in order, each pair once.

    Sorted by score, the partners of an image that count (better, by at most `limit`) are one run of later images.
    """
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    n, pairs, right = x.size, 0, 0.0
    rows = max(1, _PAIR_BLOCK // max(1, n))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        gap = y[None, start + 1 :] - y[start:stop, None]
        rise = x[None, start + 1 :] - x[start:stop, None]
        counted = (gap > 0) & (gap <= limit)
        pairs += int(np.count_nonzero(counted))
        right += float(np.count_nonzero(counted & (rise > 0))) + 0.5 * float(np.count_nonzero(counted & (rise == 0)))
    return pairs, right


def _curve(b: Sequence[float], x: Array) -> Array:
    """Evaluate the line (2 parameters) or the logistic (4, 5); `expit` keeps large exponents from overflowing."""
    if len(b) == 2:
        return b[0] * x + b[1]
    if len(b) == 4:
        return (b[0] - b[1]) * special.expit((x - b[2]) / b[3]) + b[1]
    return b[0] * (special.expit(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4]


def _project(place: float, width: float, u: Array, v: Array, parameters: int) -> tuple[Array, Array]:
    """Return the best linear coefficients for a sigmoid at `place`, and the residuals."""
    columns = [special.expit((u - place) / width) - 0.5, np.ones_like(u)]
    if parameters == 5:
        columns.append(u)
    design = np.stack(columns, axis=1)
    coefficients = np.linalg.lstsq(design, v, rcond=None)[0]
    return coefficients, design @ coefficients - v


def _spread(u: Array) -> float:
    """Return the spread of standardized predictions without their outliers: 1 for a normal distribution, at most 1."""
    low, high = np.quantile(u, [0.25, 0.75])
    spread = float(high - low) / 1.349
    return min(spread, 1.0) if spread > 1e-9 else 1.0


def _fit(x: Array, y: Array, parameters: int, max_evaluations: int) -> LogisticFit:
    """Fit by variable projection: only place and log width are searched, all other parameters follow linearly.

    The linear parameters need no start values. The bounds on place and width keep the search finite where a line or
    half a sigmoid fits as well.
    """
    x_mean, x_std, y_mean, y_std = float(x.mean()), float(x.std()), float(y.mean()), float(y.std())
    if _is_constant(x) or _is_constant(y) or x_std == 0 or y_std == 0:
        return LogisticFit((0.0, y_mean), False, "the predictions or the scores are constant")
    u, v = (x - x_mean) / x_std, (y - y_mean) / y_std
    slope = float(np.dot(u, v) / u.size) * y_std / x_std
    line = (slope, y_mean - slope * x_mean)
    if x.size < parameters:
        return LogisticFit(line, False, f"{x.size} images are fewer than the {parameters} parameters")

    def residuals(where: Array) -> Array:
        return _project(where[0], np.exp(where[1]), u, v, parameters)[1]

    spread = _spread(u)
    places = np.quantile(u, np.linspace(0.05, 0.95, 7))
    widths = {width * scale for scale in (1.0, spread) for width in _WIDTHS}
    grid = [np.array([place, np.log(width)]) for place in places for width in sorted(widths)]
    grid.sort(key=lambda where: float(np.sum(residuals(where) ** 2)))
    bounds = ([u.min() - 5, np.log(_NARROWEST * spread)], [u.max() + 5, np.log(_WIDEST)])
    searches = [
        optimize.least_squares(residuals, start, bounds=bounds, max_nfev=max_evaluations) for start in grid[:_STARTS]
    ]
    converged = [found for found in searches if found.success and np.isfinite(found.x).all()]
    if not converged:
        return LogisticFit(line, False, f"no start converged within {max_evaluations} evaluations")
    best = min(converged, key=lambda found: found.cost)

    place, width = float(best.x[0]), float(np.exp(best.x[1]))
    height, middle, *tilt = (float(value) for value in _project(place, width, u, v, parameters)[0])
    b3 = place * x_std + x_mean
    if parameters == 4:
        top, bottom = (middle + height / 2) * y_std + y_mean, (middle - height / 2) * y_std + y_mean
        return LogisticFit((top, bottom, b3, width * x_std), True, best.message)
    b4 = tilt[0] * y_std / x_std
    b5 = middle * y_std + y_mean - b4 * x_mean
    return LogisticFit((height * y_std, 1 / (width * x_std), b3, b4, b5), True, best.message)
