"""Kinds of distortion at levels from 1 (hardly visible) to 5 (very annoying).

Every function takes an RGB image, the level and a generator (only some draw from it), and returns a new RGB image of
the same size. Level 0 changes nothing, and levels between whole ones are interpolated. The levels were set by eye on
photographs of 384 pixels, so that equal levels look about equally bad.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["DISTORTIONS", "Distortion", "at_384", "at_level", "to_image"]

Distortion = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def at_level(level: float, nothing: float, *levels: float) -> float:
    """Return the parameter of a level, interpolated linearly between whole levels.

    Args:
        level: Level, from 0 to the number of `levels`.
        nothing: Parameter of level 0.
        *levels: Parameters of level 1, 2, …
    """
    return float(np.interp(level, range(len(levels) + 1), (nothing, *levels)))


def at_384(image: Image.Image, pixels: float) -> float:
    """Scale a length for an image with a short side of 384 to this image, so that it covers as much of the content.

    Short sides below 256 count as 256, because Pillow's blur does nothing at a radius of a third of a pixel.
    """
    return pixels * max(256, min(image.size)) / 384


def to_image(values: np.ndarray) -> Image.Image:
    """Return the image of (H, W, 3) values, rounded and clipped to 0..255."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def gaussian_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Defocus: Gaussian blur with a growing radius."""
    return image.filter(ImageFilter.GaussianBlur(at_384(image, at_level(level, 0, 0.8, 1.4, 2.1, 3.1, 4.5))))


def motion_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Camera shake: the mean along a straight path in a random direction."""
    length = at_384(image, at_level(level, 1, 4, 7, 11, 17, 26))
    angle = rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, max(2, round(length) + 1))
    shifts = np.stack([np.rint(steps * np.sin(angle)), np.rint(steps * np.cos(angle))], axis=1).astype(int)
    margin = int(np.abs(shifts).max())
    pixels = np.asarray(image, np.float32)
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for down, right in shifts:
        total += padded[margin + down : margin + down + height, margin + right : margin + right + width]
    return to_image(total / len(shifts))


def white_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Sensor noise: Gaussian, independent in every pixel and channel."""
    sigma = at_level(level, 0, 9, 17, 28, 43, 64)
    pixels = np.asarray(image, np.float32)
    return to_image(pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32))


def jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compression: JPEG with a falling quality setting."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(at_level(level, 95, 30, 16, 10, 7, 4)))
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def downscaling(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Lost resolution: reduced by a growing factor and enlarged again."""
    factor = max(1, at_384(image, at_level(level, 0, 2.2, 3.2, 4.6, 6.6, 9.5)))
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def contrast_loss(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Flat tones: all values move toward the mean gray of the image."""
    gray = float(np.asarray(image.convert("L"), np.float32).mean())
    return to_image(gray + at_level(level, 1, 0.76, 0.6, 0.46, 0.34, 0.23) * (np.asarray(image, np.float32) - gray))


def overexposure(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Too much light: brightened until bright areas burn out."""
    lift = at_level(level, 0, 0.1, 0.18, 0.27, 0.37, 0.48)
    return to_image((1 + lift / 2) * np.asarray(image, np.float32) + 255 * lift)


DISTORTIONS: dict[str, Distortion] = {
    "gaussian_blur": gaussian_blur,
    "motion_blur": motion_blur,
    "white_noise": white_noise,
    "jpeg": jpeg,
    "downscaling": downscaling,
    "contrast_loss": contrast_loss,
    "overexposure": overexposure,
}
"""All kinds by name."""
