from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sind_hf.data.synthetic.distortions import DISTORTIONS


def textured(size: tuple[int, int]) -> Image.Image:
    """Structure at several scales, so that blur, noise and compression all change it."""
    rng = np.random.default_rng(0)
    layers = []
    for cells in (4, 12, 40, 160):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers.append(np.asarray(grid.resize(size, Image.Resampling.BICUBIC), np.float32))
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


@pytest.mark.parametrize("size", [(100, 64), (384, 500)])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_every_level_changes_the_picture_more_than_the_one_before(kind, size):
    image = textured(size)
    before = image.tobytes()
    errors = []
    for level in range(1, 6):
        out = DISTORTIONS[kind](image, level, np.random.default_rng(0))
        assert (out.size, out.mode) == (image.size, "RGB")
        errors.append(float(np.mean((np.asarray(out, np.float64) - np.asarray(image, np.float64)) ** 2)))
    assert errors[0] > 0
    assert all(later > 1.1 * earlier for earlier, later in zip(errors, errors[1:], strict=False)), errors
    assert image.tobytes() == before


@pytest.mark.parametrize("kind", ["gaussian_blur", "motion_blur", "downscaling"])
def test_blurs_reach_as_far_relative_to_the_picture_whatever_its_size(kind):
    def edge_width(side: int) -> float:
        """Share of the picture over which a vertical edge is smeared, averaged over random directions."""
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[:, side // 2 :] = 255
        shares = []
        for seed in range(8):
            out = DISTORTIONS[kind](Image.fromarray(pixels), 5, np.random.default_rng(seed))
            row = np.asarray(out, np.float64)[side // 2, :, 0]
            shares.append(np.count_nonzero((row > 20) & (row < 235)) / side)
        return float(np.mean(shares))

    assert edge_width(384) == pytest.approx(edge_width(768), rel=0.25)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_generator_alone_decides_what_is_random(kind):
    image = textured((80, 80))
    first, again, other = (DISTORTIONS[kind](image, 4, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2))
    assert first == again
    assert (first != other) == (kind in {"white_noise", "motion_blur"})


def test_noise_has_the_same_strength_in_every_channel_and_no_drift():
    grey = Image.new("RGB", (128, 128), (128, 128, 128))
    noise = np.asarray(DISTORTIONS["white_noise"](grey, 2, np.random.default_rng(0)), np.float64) - 128
    assert np.abs(noise.mean(axis=(0, 1))).max() < 0.6
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 17, rtol=0.03)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T)[np.triu_indices(3, 1)]).max() < 0.05


def test_contrast_loss_keeps_the_mean_and_overexposure_burns_out():
    image = textured((96, 96))
    mean = np.asarray(image, np.float64).mean()
    flat = np.asarray(DISTORTIONS["contrast_loss"](image, 5, np.random.default_rng(0)), np.float64)
    assert flat.mean() == pytest.approx(mean, abs=4)
    assert flat.std() == pytest.approx(0.23 * np.asarray(image, np.float64).std(), rel=0.1)
    bright = np.asarray(DISTORTIONS["overexposure"](image, 5, np.random.default_rng(0)))
    assert (bright == 255).mean() > 0.2
