"""The full-reference indices against their formulas, written once more pixel by pixel, and against what they see."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from full_reference import INDICES, gmsd, haarpsi, mdsi
from PIL import Image, ImageEnhance, ImageFilter


@pytest.fixture(scope="module")
def photograph(draw: Any) -> Image.Image:
    return draw(96, 80).filter(ImageFilter.GaussianBlur(0.7))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def halved(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    return np.array(
        [[plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(width)] for y in range(height)]
    )


def gradient(plane: np.ndarray) -> np.ndarray:
    """Prewitt, by hand."""
    padded = np.pad(plane, 1, mode="edge")
    out = np.empty_like(plane)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            patch = padded[y : y + 3, x : x + 3]
            across = (patch[:, 0] - patch[:, 2]).sum() / 3
            along = (patch[0] - patch[2]).sum() / 3
            out[y, x] = np.sqrt(across**2 + along**2)
    return out


def similar(a: np.ndarray, b: np.ndarray, c: float) -> np.ndarray:
    return (2 * a * b + c) / (a**2 + b**2 + c)


def test_gmsd_is_its_formula(photograph: Image.Image) -> None:
    pair = [pixels(photograph), pixels(photograph.filter(ImageFilter.GaussianBlur(1.5)))]
    planes = [gradient(halved(each.astype(np.float64) @ [0.2989, 0.587, 0.114])) for each in pair]
    expected = similar(*planes, 170)
    value, similarity = gmsd(*pair)
    np.testing.assert_allclose(similarity, expected, atol=1e-3)
    assert value == pytest.approx(-expected.std(), abs=1e-4)


def test_mdsi_is_its_formula(photograph: Image.Image) -> None:
    pair = [
        pixels(photograph),
        pixels(ImageEnhance.Color(photograph.filter(ImageFilter.GaussianBlur(1))).enhance(0.4)),
    ]
    weights = [[0.2989, 0.587, 0.114], [0.3, 0.04, -0.35], [0.34, -0.6, 0.17]]
    (l1, h1, m1), (l2, h2, m2) = ([halved(each.astype(np.float64) @ row) for row in weights] for each in pair)
    g1, g2, fused = gradient(l1), gradient(l2), gradient((l1 + l2) / 2)
    gs = similar(g1, g2, 140) + similar(g2, fused, 55) - similar(g1, fused, 55)
    cs = (2 * (h1 * h2 + m1 * m2) + 550) / (h1**2 + h2**2 + m1**2 + m2**2 + 550)
    both = 0.6 * gs + 0.4 * cs
    rooted = np.maximum(both, 0) ** 0.25
    value, similarity = mdsi(*pair)
    np.testing.assert_allclose(similarity, both, atol=1e-3)
    assert value == pytest.approx(-(np.abs(rooted - rooted.mean()).mean() ** 0.25), abs=1e-3)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


LADDERS: dict[str, tuple[Callable[[Image.Image, Any], Image.Image], tuple[float, ...]]] = {
    "blur": (lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius)), (0.6, 1, 1.6, 2.5, 4)),
    "jpeg": (jpeg, (90, 60, 30, 12, 4)),
    "noise": (
        lambda image, sigma: Image.fromarray(
            np.clip(pixels(image) + sigma * np.random.default_rng(0).standard_normal((80, 96, 3)), 0, 255).astype(
                "uint8"
            )
        ),
        (5, 12, 25, 45, 80),
    ),
}


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("name", INDICES)
def test_more_distortion_is_a_lower_index(name: str, ladder: str, photograph: Image.Image) -> None:
    distort, strengths = LADDERS[ladder]
    images = [photograph, *(distort(photograph, strength) for strength in strengths)]
    found = [INDICES[name](pixels(photograph), pixels(image)) for image in images]
    values = [value for value, _ in found]
    assert values[0] == pytest.approx(1.0 if name == "haarpsi" else 0.0, abs=1e-6)
    assert all(later < earlier for earlier, later in zip(values, values[1:], strict=False)), values
    assert {similarity.shape for _, similarity in found} == {(40, 48)}


def test_the_map_is_low_where_the_distortion_is(photograph: Image.Image) -> None:
    spoilt = pixels(photograph).copy()
    spoilt[:40, :48] = pixels(photograph.filter(ImageFilter.GaussianBlur(4)))[:40, :48]
    for function in INDICES.values():
        _, similarity = function(pixels(photograph), spoilt)
        assert similarity[:18, :22].mean() < similarity[22:, 26:].mean() - 0.01


def test_lost_colors_are_seen_by_those_that_look_at_color(photograph: Image.Image) -> None:
    gray = photograph.convert("L").convert("RGB")
    assert gmsd(pixels(photograph), pixels(gray))[0] > -0.01
    assert mdsi(pixels(photograph), pixels(gray))[0] < -0.1
    assert haarpsi(pixels(photograph), pixels(gray))[0] < 0.95


def test_flat_images_do_not_divide_by_zero() -> None:
    flat = np.full((32, 32, 3), 120, np.uint8)
    for name, function in INDICES.items():
        value, similarity = function(flat, flat)
        assert value == pytest.approx(1.0 if name == "haarpsi" else 0.0, abs=1e-6)
        assert np.isfinite(similarity).all()
