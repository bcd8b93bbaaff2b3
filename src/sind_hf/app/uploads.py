"""The pictures that a page is given: reading uploads within limits, and examples to start from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from sind_hf.data.synthetic.distortions import DISTORTIONS
from sind_hf.data.synthetic.graded import packaged_photographs
from sind_hf.image_processing_sind import ImageError, load_image, open_image, open_regular_file
from sind_hf.scoring.sources import list_images

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
MAX_PICTURES = 100  # of one upload
MAX_EXAMPLES = 12
PACKAGED_EXAMPLES = ("coffee", "cat", "rocket")  # of scikit-image's: one that it has not is left out


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Read one picture from disk, if it is within the limits of the page.

    Returns:
        Upright RGB.

    Raises:
        ImageError: When it is too large or cannot be read. The message names the file without its folder, which is
            none of the visitor's.
    """
    path = Path(path)
    name = path.name
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImageError(
                f"{name}: {size / 2**20:.0f} MB is over the limit of {MAX_BYTES // 2**20} MB; save it smaller"
            )
        with open_regular_file(path) as file:
            data = file.read()
    except OSError:
        raise ImageError(f"{name}: is no longer on the server; add it again") from None
    if not data:
        raise ImageError(f"{name}: is empty")
    _check_pixels(path, name)
    return load_image({"bytes": data, "path": name})


def _check_pixels(path: Path, name: str) -> None:
    """Refuse a picture by what its header says, before anything is decoded."""
    limit = f"the limit is {MAX_PIXELS // 10**6} megapixels; save it smaller"
    try:
        with open_image(path, name) as image:
            pixels = image.width * image.height
    except ImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise ImageError(f"{name}: has far too many pixels; {limit}") from None
        raise
    if pixels > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} × {image.height} is {pixels / 10**6:.0f} megapixels; {limit}")


def example_pictures(folder: str | os.PathLike[str] | None = None) -> Mapping[str, Image.Image]:
    """Pictures for visitors who have none at hand, by the name to show.

    Args:
        folder: Where to take them from, at most twelve, in the order of their names. Default: photographs inside
            scikit-image's package, one of them also blurred, noisy and compressed; none where it is not installed.

    Raises:
        ValueError: When the folder holds no pictures, or one that cannot be read.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: there is no such folder of examples.")
        paths = [path for path, _ in zip(list_images([folder]), range(MAX_EXAMPLES), strict=False)]
        return {Path(path).stem: read_picture(path) for path in paths}
    try:
        photographs = packaged_photographs()
    except ValueError:
        return {}
    examples: dict[str, Image.Image] = {}
    for name in PACKAGED_EXAMPLES:
        if name in photographs:
            examples[name] = load_image(photographs[name])
            if len(examples) == 1:
                for kind, shown in (("gaussian_blur", "blurred"), ("white_noise", "noisy"), ("jpeg", "JPEG")):
                    examples[f"{name}, {shown}"] = DISTORTIONS[kind](examples[name], 4, np.random.default_rng(0))
    return examples
