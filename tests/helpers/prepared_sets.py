"""A small set of images of every shape that the views treat differently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sind_hf import SindImageProcessor
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo

VIEW_SIZE = 56
# Wide, tall, above 8:1 both ways, one pixel, smaller than the views, and just at the limit of 8:1.
SIZES = [(160, 120), (90, 170), (400, 40), (30, 310), (1, 1), (20, 24), (240, 30), (200, 200), (121, 77), (64, 48)]


def make_set(root: Path, count: int = len(SIZES)) -> Manifest:
    """Noisy images, RGB, gray, transparent and turned by EXIF, with scores and three scenes."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True, exist_ok=True)
    entries = []
    for index in range(count):
        width, height = SIZES[index % len(SIZES)]
        channels = {1: 1, 5: 4}.get(index % len(SIZES), 3)
        pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        name = f"images/{index:03}.png"
        exif = Image.Exif()
        if index % len(SIZES) == 8:
            exif[0x0112] = 6  # orientation: turned by 90 degrees
        image.save(root / name, exif=exif)
        entries.append(ManifestEntry(name, float(rng.uniform(1, 5)), ("day", "night", "indoor")[index % 3]))
    return Manifest("generated", entries, ScoreInfo("MOS", (1.0, 5.0)))


def make_processor(view_size: int = VIEW_SIZE, backend: str = "torch") -> SindImageProcessor:
    return SindImageProcessor(size={"height": view_size, "width": view_size}, resize_backend=backend)
