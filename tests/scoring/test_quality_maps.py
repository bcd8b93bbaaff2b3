from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sind_hf.scoring.quality_maps import COLORS, overlay, save_overlay

RED, BLUE, PALE = (178, 24, 43), (33, 102, 172), (253, 241, 205)
RAMP = np.linspace(-3, 5, 49).reshape(7, 7)


def blended(colour: tuple[int, int, int], under: int) -> np.ndarray:
    return np.rint(0.55 * under + 0.45 * np.array(colour))


def test_the_worst_cell_is_red_the_best_blue_and_the_middle_pale() -> None:
    found = np.asarray(overlay(Image.new("RGB", (140, 70), (100, 100, 100)), RAMP)).astype(int)
    assert found.shape == (70, 140, 3)
    for (y, x), colour in (((5, 10), RED), ((65, 130), BLUE), ((35, 70), PALE)):
        assert np.abs(found[y, x] - blended(colour, 100)).max() <= 1
    # A cell is one flat rectangle: 20 × 10 pixels here.
    assert (found[10:20, 40:60] == found[10, 40]).all()
    assert (found[10, 40] != found[10, 39]).any() and (found[10, 40] != found[9, 40]).any()


def test_the_map_is_not_turned() -> None:
    lone = np.zeros((7, 7))
    lone[1, 5] = 1
    found = np.asarray(overlay(Image.new("RGB", (70, 70)), lone)).astype(int)
    blue = (np.abs(found - blended(BLUE, 0)) <= 1).all(axis=2)
    assert blue[10:20, 50:60].all() and blue.sum() == 100


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (640, 480)), ((2048, 1024), (1024, 512)), ((500, 3000), (171, 1024)), ((3, 5), (3, 5))],
)
def test_the_overlay_has_the_images_size_up_to_1024(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    assert overlay(image, RAMP).size == expected
    assert image.size == size and image.getpixel((0, 0)) == (255, 255, 255)  # left as it was


@pytest.mark.parametrize(
    "constant", [np.zeros((7, 7)), np.full((7, 7), -4.25, np.float32)], ids=["zero", "negative float32"]
)
def test_a_constant_map_is_drawn(constant: np.ndarray) -> None:
    found = np.asarray(overlay(Image.new("RGB", (70, 70)), constant))
    assert (found == found[0, 0]).all()


def test_the_file_holds_the_numbers(tmp_path: Path) -> None:
    path = save_overlay(tmp_path, "night/a.jpg", Image.new("RGB", (70, 70)), RAMP.astype(np.float32))
    assert path == tmp_path / "night__a.jpg.png"
    with Image.open(path) as image:
        assert image.size == (70, 70)
        np.testing.assert_allclose(json.loads(image.text["quality_map"]), RAMP, atol=1e-6)


def test_every_image_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "../a.jpg", "/a.jpg", "b/a.jpg", "b__a.jpg", "b/../a.jpg", "https://host/a.jpg?x"]
    names += [
        "long/" * 80 + "a.jpg",
        "long/" * 81 + "a.jpg",
        "é" * 120 + ".jpg",
        os.fsdecode(b"caf\xe9.jpg"),
        "a:b.jpg",
    ]
    paths = [save_overlay(tmp_path, name, Image.new("RGB", (7, 7)), RAMP) for name in names]
    assert len(set(paths)) == len(names) == len(list(tmp_path.iterdir()))
    assert all(path.parent == tmp_path and path.suffix == ".png" for path in paths)
    assert save_overlay(tmp_path, names[-3], Image.new("RGB", (7, 7)), RAMP) == paths[-3]


def test_a_map_of_one_value_is_neither_good_nor_bad():
    gray = Image.new("RGB", (70, 70), (128, 128, 128))
    tinted = np.asarray(overlay(gray, np.full((7, 7), 3.0)), np.int64)
    neutral = np.round(0.55 * 128 + 0.45 * COLORS[2])
    assert np.abs(tinted - neutral).max() <= 1
