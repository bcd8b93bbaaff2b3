"""Images that a page is given: uploads within limits, and examples to start from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sind_hf.data.synthetic import DISTORTIONS, packaged_photographs
from sind_hf.image_processing_sind import FORMAT_OF_DECODER, ImageError, load_image, open_image, open_regular_file
from sind_hf.scoring.sources import list_images

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
MAX_IMAGES = 100  # of one upload
MAX_EXAMPLES = 12
# Photographs of scikit-image: name there, label, text for those who do not see it, and a distortion with its level.
PACKAGED_EXAMPLES = (
    ("coffee", "Coffee", "A cup of coffee on a wooden table", None),
    ("cat", "Cat", "The face of a tabby cat", None),
    ("rocket", "Rocket", "A rocket on its launch pad at night", None),
    ("astronaut", "Astronaut, blurred", "A blurred portrait of an astronaut in an orange suit", ("gaussian_blur", 4)),
    ("motorcycle", "Motorcycle, noisy", "A noisy photograph of a motorcycle in a garage", ("white_noise", 4)),
    ("hubble", "Galaxies, compressed", "Galaxies in the night sky, with blocks of strong compression", ("jpeg", 5)),
)
# Names of Pillow's decoders, in the order in which the page lists their formats; HEIF and JXL need a package each.
SHOWN_DECODERS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL", "TIFF", "GIF", "BMP")


@dataclass(frozen=True)
class Example:
    """An image that visitors can try."""

    name: str  # label of the image
    alt: str  # what the image shows, for those who do not see it; empty when only the label is known
    image: Image.Image  # RGB


def small_copy(image: Image.Image, side: int) -> Image.Image:
    """Return a copy of an image that is at most `side` pixels long; a smaller image keeps its size."""
    small = image.copy()
    small.thumbnail((side, side))
    return small


def readable_formats() -> str:
    """Return the formats that this machine reads, as text."""
    Image.init()
    names = [FORMAT_OF_DECODER[kind].name for kind in SHOWN_DECODERS if kind in Image.OPEN]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read one image from disk, as upright RGB, if it is within the limits of the page.

    Raises:
        ImageError: When it is too large or cannot be read. The message names the file without its folder, which the
            visitor does not know.
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
    _check_header(path, name)
    return load_image({"bytes": data, "path": name})


def _check_header(path: Path, name: str) -> None:
    """Refuse an image by its header, before anything is decoded."""
    limit = f"the limit is {MAX_PIXELS // 10**6} megapixels; save it smaller"
    try:
        with open_image(path, name) as image:
            pixels = image.width * image.height
    except ImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise ImageError(f"{name}: has far too many pixels; {limit}") from None
        if str(error).endswith("not an image in a supported format"):
            raise ImageError(f"{name}: not an image that this page reads; it reads {readable_formats()}") from None
        raise
    if pixels > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} × {image.height} is {pixels / 10**6:.0f} megapixels; {limit}")


def example_images(folder: str | os.PathLike[str] | None = None) -> list[Example]:
    """Return images for visitors who have none at hand.

    Args:
        folder: Folder of images, of which at most twelve are taken, in the order of their names, which become their
            labels. Default: six photographs of the package scikit-image, three of them distorted; none where it is
            not installed.

    Raises:
        ValueError: When the folder is missing or empty, or one of its images cannot be read.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: there is no such folder of examples.")
        paths = [path for path, _ in zip(list_images([folder]), range(MAX_EXAMPLES), strict=False)]
        return [Example(Path(path).stem, "", read_image(path)) for path in paths]
    try:
        photographs = packaged_photographs()
    except ValueError:
        return []
    examples = []
    for file, name, alt, distortion in PACKAGED_EXAMPLES:
        if file not in photographs:
            continue
        image = load_image(photographs[file])
        if distortion is not None:
            kind, level = distortion
            image = DISTORTIONS[kind](image, level, np.random.default_rng(0))
        examples.append(Example(name, alt, image))
    return examples
