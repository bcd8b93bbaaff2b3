"""How far a distorted image is from its original: three full-reference indices, and where in the image.

They stand in for opinions: what was done to a photograph is known here, and these indices follow human ratings of
such images closely. Each makes one map of similarity and one number from it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Plane = npt.NDArray[np.floating]
Index = tuple[float, Plane]

_PREWITT = np.array([1, 1, 1], np.float32), np.array([1, 0, -1], np.float32) / 3  # along and across the edge
# Luminance and two chromatic channels, rows: of MDSI (eq. 1 and 2), and YIQ as HaarPSI takes it.
_LHM = np.array([[0.2989, 0.587, 0.114], [0.3, 0.04, -0.35], [0.34, -0.6, 0.17]], np.float32)
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)


def gmsd(reference: npt.NDArray[np.uint8], distorted: npt.NDArray[np.uint8]) -> Index:
    """Gradient magnitude similarity deviation (Xue et al., TIP 2014), turned around so that higher is better.

    Args:
        reference: The original, uint8 (H, W, 3), at least 8 pixels either way.
        distorted: The same after distortion.

    Returns:
        Minus the deviation, 0 for equal images; and the map of similarities, at half the size.
    """
    first, second = (_gradient(_planes(each, _LHM[:1])[0]) for each in (reference, distorted))
    similarity = _similarity(first, second, 170)
    return -float(similarity.std()), similarity


def mdsi(reference: npt.NDArray[np.uint8], distorted: npt.NDArray[np.uint8]) -> Index:
    """Mean deviation similarity index (Nafchi et al., IEEE Access 2016), turned around so that higher is better.

    Gradient similarity to a image that is fused from both, and chromaticity similarity, pooled by deviation.

    Args:
        reference: See `gmsd`.
        distorted: See `gmsd`.

    Returns:
        Minus the index, 0 for equal images; and the map of similarities, at half the size.
    """
    first, second = (_planes(each, _LHM) for each in (reference, distorted))
    gradients = [_gradient(plane) for plane in (first[0], second[0], (first[0] + second[0]) / 2)]
    gradient = (
        _similarity(gradients[0], gradients[1], 140)
        + _similarity(gradients[1], gradients[2], 55)
        - _similarity(gradients[0], gradients[2], 55)
    )
    products = 2 * (first[1:] * second[1:]).sum(0) + 550
    chroma = products / ((first[1:] ** 2).sum(0) + (second[1:] ** 2).sum(0) + 550)
    similarity = 0.6 * gradient + 0.4 * chroma
    rooted = np.maximum(similarity, 0) ** 0.25
    return -float(np.abs(rooted - rooted.mean()).mean() ** 0.25), similarity


def haarpsi(reference: npt.NDArray[np.uint8], distorted: npt.NDArray[np.uint8]) -> Index:
    """Haar wavelet-based perceptual similarity index (Reisenhofer et al., SPIC 2018); higher is better.

    Args:
        reference: See `gmsd`.
        distorted: See `gmsd`.

    Returns:
        The index, 0 to 1; and the map of similarities weighted by what the eye is drawn to, at half the size.
    """
    constant, alpha = 30.0, 4.2
    first, second = (_planes(each, _YIQ) for each in (reference, distorted))
    similarities: list[Plane] = []
    weights: list[Plane] = []
    for vertical in (False, True):
        coarse, *fine = (
            [np.abs(_haar(plane, scale, vertical)) for plane in (first[0], second[0])] for scale in (3, 2, 1)
        )
        weights.append(np.maximum(*coarse))
        similarities.append(np.mean([_similarity(one, other, constant) for one, other in fine], axis=0))
    chroma = [np.abs(ndimage.uniform_filter(each[1:], (0, 2, 2), mode="nearest")) for each in (first, second)]
    similarities.append(_similarity(chroma[0], chroma[1], constant).mean(0))
    weights.append((weights[0] + weights[1]) / 2)
    squashed = 1 / (1 + np.exp(-alpha * np.stack(similarities)))
    weighting = np.stack(weights)
    sums = [float(each.sum(dtype=np.float64)) for each in (squashed * weighting, weighting)]
    total = sums[0] / max(sums[1], 1e-6) if weighting.any() else 1.0
    local = (squashed * weighting).sum(0) / np.maximum(weighting.sum(0), 1e-3)
    top = 1 / (1 + np.exp(-alpha))
    value = min(total, top)
    return float((np.log(value / (1 - value)) / alpha) ** 2), np.where(weighting.sum(0) > 1e-3, local, top)


INDICES: dict[str, Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], Index]] = {
    "gmsd": gmsd,
    "mdsi": mdsi,
    "haarpsi": haarpsi,
}
"""All indices by name, higher better."""


def _planes(image: npt.NDArray[np.uint8], weights: Plane) -> Plane:
    """Means over 2×2 pixels, and from their color channels those of the rows of `weights`: (n, H/2, W/2)."""
    height, width, _ = image.shape
    even = image[: height - height % 2, : width - width % 2].astype(np.uint16)
    total = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return np.ascontiguousarray(np.moveaxis(total.astype(np.float32) @ (weights.T / 4), -1, 0))


def _gradient(plane: Plane) -> Plane:
    """Gradient magnitude by Prewitt's filters."""
    smooth, step = _PREWITT
    sides = [
        ndimage.correlate1d(
            ndimage.correlate1d(plane, _PREWITT[0], 1 - axis, mode="nearest"), _PREWITT[1], axis, mode="nearest"
        )
        for axis in (0, 1)
    ]
    return np.hypot(*sides)


def _haar(plane: Plane, scale: int, vertical: bool) -> Plane:
    """Response to the Haar wavelet of side 2^scale, normalized to its length."""
    side = 2**scale
    step = np.repeat(np.array([-1, 1], np.float32), side // 2) / side
    flat = np.full(side, 1, np.float32)
    first, second = (flat, step) if vertical else (step, flat)
    return ndimage.correlate1d(ndimage.correlate1d(plane, first, 0, mode="nearest"), second, 1, mode="nearest")


def _similarity(first: Plane, second: Plane, constant: float) -> Plane:
    return (2 * first * second + constant) / (first**2 + second**2 + constant)
