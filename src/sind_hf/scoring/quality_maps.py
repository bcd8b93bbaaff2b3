"""Quality maps drawn over images: which parts raise or lower the score."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sind_hf.files import atomic_file

LONGEST_NAME = 200  # bytes; file systems allow 255, and the digest and the extension need some
# Bad to good: a diverging scale that color-blind readers can tell apart (red over pale yellow to blue).
COLORS = np.array([[178, 24, 43], [239, 138, 98], [253, 241, 205], [103, 169, 207], [33, 102, 172]], np.float64)


def overlay(image: Image.Image, quality_map: npt.NDArray[np.floating]) -> Image.Image:
    """Tint an image by its quality map: red where a fragment lowers the score, blue where it raises it.

    Args:
        image: RGB.
        quality_map: (7, 7). Its lowest value becomes full red and its highest full blue; a map of one value is shown
            as neither.

    Returns:
        An image of the same size, scaled down to at most 1024 pixels on its longer side.
    """
    low, high = float(quality_map.min()), float(quality_map.max())
    share = np.clip((quality_map - low) / (high - low), 0, 1) if high > low else np.full(quality_map.shape, 0.5)
    place = share * (len(COLORS) - 1)
    stops = np.arange(len(COLORS))
    tint = np.stack([np.interp(place, stops, COLORS[:, channel]) for channel in range(3)], axis=-1)
    small = image.copy()
    small.thumbnail((1024, 1024))
    layer = Image.fromarray(tint.round().astype(np.uint8)).resize(small.size, Image.Resampling.NEAREST)
    return Image.blend(small, layer, 0.45)


def save_overlay(folder: Path, name: str, image: Image.Image, quality_map: npt.NDArray[np.floating]) -> Path:
    """Write the overlay of one image as PNG; its text chunk `quality_map` holds the 49 numbers as JSON.

    Raises:
        ValueError: If it cannot be written.
    """
    path = folder / _file_name(name)
    info = PngInfo()
    info.add_text("quality_map", json.dumps([[round(float(x), 6) for x in row] for row in quality_map]))
    with atomic_file(path) as temporary:
        overlay(image, quality_map).save(temporary, "PNG", pnginfo=info)
    return path


def _file_name(name: str) -> str:
    """Return one file name for a path, another for every other path: `night/a.jpg` becomes `night__a.jpg.png`."""
    plain = re.sub(r'[<>:"|?*]', "_", re.sub(r"[/\\]", "__", name))
    raw = os.fsencode(plain)
    if len(raw) <= LONGEST_NAME and plain.replace("__", os.sep) == name:
        return f"{plain}.png"
    # Another path may have this name, or the name is too long: a digest keeps such names apart.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f"{os.fsdecode(raw[-LONGEST_NAME:])}-{digest}.png"
