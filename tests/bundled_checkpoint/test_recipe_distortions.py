"""Every kind of distortion: nothing at level 0, more at each level, and random only by its generator."""

from __future__ import annotations

import numpy as np
import pytest
from distortions import DISTORTIONS
from PIL import Image

from sind_hf.data.synthetic import at_level

# Blocks and patches land at random places; a palette and files of reduced colors are never without a trace.
AT_RANDOM_PLACES = {"lost_blocks", "odd_patches", "colored_blocks"}
LEAVES_TRACES = {
    "few_colors",
    "jpeg",
    "webp",
    "avif",
    "video_like",
    "repeated_jpeg",
    "lossy_noise",
    "lost_blocks",
    "double_jpeg",
}


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """Structure at several scales and in all colors."""
    rng = np.random.default_rng(0)
    layers = []
    for cells in (4, 12, 40, 160):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers.append(np.asarray(grid.resize((400, 384), Image.Resampling.BICUBIC), np.float32))
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def error(kind: str, image: Image.Image, level: float, seed: int = 0) -> float:
    out = DISTORTIONS[kind](image, level, np.random.default_rng(seed))
    assert (out.size, out.mode) == (image.size, "RGB")
    return float(np.mean((np.asarray(out, np.float64) - np.asarray(image, np.float64)) ** 2))


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_it_grows_with_the_level(kind: str, photograph: Image.Image) -> None:
    before = photograph.tobytes()
    seeds = range(4) if kind in AT_RANDOM_PLACES else range(1)
    errors = [np.mean([error(kind, photograph, level, seed) for seed in seeds]) for level in range(6)]
    assert errors[0] < (errors[1] if kind in LEAVES_TRACES else 12)
    assert all(later > earlier for earlier, later in zip(errors, errors[1:], strict=False)), errors
    assert photograph.tobytes() == before


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("size", [(23, 40), (200, 31)])
def test_small_and_narrow_images(kind: str, size: tuple[int, int], photograph: Image.Image) -> None:
    image = photograph.resize(size)
    assert error(kind, image, 5) >= 0


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_generator_alone_decides_what_is_random(kind: str, photograph: Image.Image) -> None:
    image = photograph.resize((96, 80))
    first, again = (DISTORTIONS[kind](image, 3, np.random.default_rng(7)).tobytes() for _ in range(2))
    assert first == again


def test_parameters_between_levels() -> None:
    assert [at_level(level, 0, 2, 6) for level in (0, 0.5, 1, 1.5, 2, 3)] == [0, 1, 2, 4, 6, 6]
