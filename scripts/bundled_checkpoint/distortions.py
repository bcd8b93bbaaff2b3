"""What happens to photographs between the scene and the screen: some thirty kinds of distortion.

Every function takes an RGB image, a level from 0 (nothing) to 5 (very annoying) and a generator, and returns a new RGB
image of the same size, as those of `sind_hf.data.synthetic` do, which are among them.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage

from sind_hf.data import synthetic as graded
from sind_hf.data.synthetic import Distortion, at_384, at_level, jpeg, to_image, white_noise

Pixels = npt.NDArray[np.floating]

# Quality settings at the levels 0 to 5, by codec.
QUALITY = {"JPEG": (95, 30, 16, 10, 7, 4), "WEBP": (95, 42, 18, 4, 1, 0), "AVIF": (92, 42, 27, 15, 6, 0)}


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, np.float32)


def _from_ycbcr(channels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(channels), 0, 255).astype(np.uint8), "YCbCr").convert("RGB")


def _blurred(values: Pixels, sigma: float) -> Pixels:
    return ndimage.gaussian_filter(values, (sigma, sigma, 0), mode="nearest", truncate=3)


def _encoded(image: Image.Image, codec: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def _compressed(image: Image.Image, codec: str, level: float, factor: float = 1) -> Image.Image:
    """Compress, and reduce by a factor for the time."""
    size = (max(16, round(image.width / factor)), max(16, round(image.height / factor)))
    small = image.resize(size, Image.Resampling.BICUBIC)
    options = {"speed": 10} if codec == "AVIF" else {}
    coded = _encoded(small, codec, quality=round(at_level(level, *QUALITY[codec])), **options)
    return coded.resize(image.size, Image.Resampling.BICUBIC)


# --- blur --------------------------------------------------------------------------------------------------------


def lens_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Out of focus: the mean over a disc."""
    radius = at_384(image, at_level(level, 0, 1.3, 2.3, 3.6, 5.4, 8))
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1).astype(np.float32)
    kernel = disc / disc.sum()
    padded = np.pad(_pixels(image), ((reach, reach), (reach, reach), (0, 0)), mode="reflect" if reach else "edge")
    shape = tuple(length + 2 * reach for length in padded.shape[:2])
    spectrum = np.fft.rfft2(kernel, shape)[..., None]
    blurred = np.fft.irfft2(np.fft.rfft2(padded, shape, axes=(0, 1)) * spectrum, shape, axes=(0, 1))
    return to_image(blurred[2 * reach : 2 * reach + image.height, 2 * reach : 2 * reach + image.width])


def partial_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Wrong focus: one half, with a soft border, is blurred."""
    pixels = _pixels(image)
    blurred = _blurred(pixels, at_384(image, at_level(level, 0, 1.3, 2.3, 3.5, 5, 7.5)))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    share = np.clip(0.5 + 2 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    return to_image(pixels + share * (blurred - pixels))


def denoising(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Noise and its removal: a guided filter keeps edges and wipes fine structure off along with the noise."""
    pixels = _pixels(white_noise(image, 0.5 * level, rng))
    size = 2 * round(at_384(image, at_level(level, 1, 2, 3, 4, 5, 6))) + 1
    mean = ndimage.uniform_filter(pixels, (size, size, 0), mode="nearest")
    variance = np.maximum(ndimage.uniform_filter(pixels**2, (size, size, 0), mode="nearest") - mean**2, 0)
    kept = variance / (variance + max(at_level(level, 0, 12, 22, 33, 46, 62) ** 2, 1e-6))
    kept = ndimage.uniform_filter(kept, (size, size, 0), mode="nearest")
    return to_image(mean + kept * (pixels - mean))


def pixelation(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Lost resolution without a filter: blocks of one color."""
    factor = max(1, at_384(image, at_level(level, 1, 1.7, 2.3, 3.2, 4.6, 6.5)))
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def sparse_samples(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Pixels are lost at random and filled in from those around."""
    kept = rng.random((image.height, image.width)) >= at_level(level, 0, 0.25, 0.45, 0.62, 0.77, 0.88)
    weight = kept[..., None].astype(np.float32)
    pixels = _pixels(image)
    sigma = at_level(level, 0.5, 0.6, 0.75, 0.95, 1.25, 1.8)
    filled = _blurred(pixels * weight, sigma) / np.maximum(_blurred(weight, sigma), 1e-4)
    return to_image(np.where(kept[..., None], pixels, filled))


# --- noise -------------------------------------------------------------------------------------------------------


def color_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Noise of colors more than of brightness."""
    channels = np.asarray(image.convert("YCbCr"), np.float32)
    noise = rng.standard_normal(channels.shape, dtype=np.float32) * at_level(level, 0, 8, 15, 24, 36, 52)
    return _from_ycbcr(channels + noise * np.array([0.25, 1, 1], np.float32))


def high_iso_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Little light: noise that grows with the signal, in grains of more than a pixel."""
    pixels = _pixels(image)
    grain = rng.standard_normal(pixels.shape, dtype=np.float32) * np.sqrt(pixels / 128 + 0.3)
    grain = _blurred(grain, 0.4 + at_384(image, 0.35))
    return to_image(pixels + grain / grain.std() * at_level(level, 0, 5, 10, 17, 26, 38))


def coarse_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Noise correlated over several pixels."""
    noise = _blurred(rng.standard_normal((image.height, image.width, 3), dtype=np.float32), rng.uniform(1, 2.2))
    return to_image(_pixels(image) + noise / noise.std() * at_level(level, 0, 5, 10, 16, 24, 34))


def high_frequency_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Noise of the finest grain, without its lower frequencies."""
    noise = rng.standard_normal((image.height, image.width, 3), dtype=np.float32)
    noise -= _blurred(noise, 1.0)
    return to_image(_pixels(image) + noise / noise.std() * at_level(level, 0, 9, 18, 30, 45, 65))


def masked_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Noise where the image is busy, where it is seen least."""
    pixels = _pixels(image)
    busy = np.sqrt(_blurred((pixels - _blurred(pixels, 2)) ** 2, 3)).mean(2, keepdims=True)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * busy / max(float(busy.mean()), 1)
    return to_image(pixels + noise * at_level(level, 0, 8, 16, 26, 38, 54))


def speckle(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Noise in proportion to the brightness."""
    noise = rng.standard_normal((image.height, image.width, 3), dtype=np.float32)
    return to_image(_pixels(image) * (1 + at_level(level, 0, 0.07, 0.13, 0.22, 0.34, 0.5) * noise))


def impulse_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Salt and pepper: values that are lost altogether."""
    pixels = _pixels(image).copy()
    lost = rng.random(pixels.shape) < at_level(level, 0, 0.004, 0.012, 0.03, 0.06, 0.12)
    pixels[lost] = 255 * rng.integers(0, 2, int(lost.sum()))
    return to_image(pixels)


# --- compression and transmission ---------------------------------------------------------------------------------


def webp(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compression: WebP, the intra frames of VP8; smaller images at the high levels."""
    return _compressed(image, "WEBP", level, at_level(level, 1, 1, 1, 1, 1.25, 1.7))


def avif(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compression: AVIF, the intra frames of AV1."""
    return _compressed(image, "AVIF", level)


def jpeg2000(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compression: JPEG 2000 at a falling rate."""
    ratio = at_level(level, 4, 30, 60, 100, 170, 300)
    return _encoded(image, "JPEG2000", quality_mode="rates", quality_layers=[ratio], num_resolutions=5)


def video_like(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """A streamed video: reduced, compressed by one of the codecs, enlarged by the player."""
    factor = 1 + rng.uniform(0.1, 0.5) * at_level(level, 0, 0.7, 1.3, 2, 2.8, 4)
    return _compressed(image, tuple(QUALITY)[rng.integers(3)], at_level(level, 0, 0.5, 1, 1.6, 2.4, 3.4), factor)


def repeated_jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Shared again and again: resized a little and compressed each time."""
    whole = image.size
    for _ in range(3):
        size = (max(16, round(whole[0] * rng.uniform(0.75, 1))), max(16, round(whole[1] * rng.uniform(0.75, 1))))
        image = jpeg(image.resize(size, Image.Resampling.BILINEAR), 0.75 * level, rng)
    return image.resize(whole, Image.Resampling.BILINEAR)


def lossy_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """A noisy image, compressed."""
    noisy = white_noise(image, 0.6 * level, rng)
    return _compressed(noisy, ("JPEG", "WEBP")[rng.integers(2)], 0.7 * level)


def lost_blocks(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """A faulty transmission: rows of blocks are shifted, repeated, or of another brightness."""
    pixels = _pixels(jpeg(image, 0.5, rng)).copy()
    side = 16
    for _ in range(round(at_level(level, 0, 1, 3, 6, 11, 20) * image.width * image.height / 384**2)):
        top = side * int(rng.integers(0, max(1, image.height // side)))
        left = side * int(rng.integers(0, max(1, image.width // side)))
        length = side * int(rng.integers(2, 14))
        block = pixels[top : top + side, left : left + length]
        kind = rng.integers(3)
        if kind == 0:
            block[:] = np.roll(block, int(rng.integers(4, 24)), axis=1)
        elif kind == 1:
            block[:] = block.mean((0, 1))
        else:
            block += rng.uniform(-60, 60, 3)
    return to_image(pixels)


def odd_patches(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Small patches that were taken from close by, as of a wrong motion or a generator's mistake."""
    pixels, out = _pixels(image), _pixels(image).copy()
    side = max(6, round(at_384(image, 14)))
    for _ in range(round(at_level(level, 0, 10, 25, 50, 90, 160))):
        top, left = (int(rng.integers(0, max(1, length - side))) for length in pixels.shape[:2])
        from_top, from_left = (
            int(np.clip(place + rng.integers(-side, side + 1), 0, max(0, length - side)))
            for place, length in zip((top, left), pixels.shape[:2], strict=True)
        )
        patch = pixels[from_top : from_top + side, from_left : from_left + side]
        out[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return to_image(out)


def colored_blocks(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Blocks of one color that is like what they cover."""
    pixels = _pixels(image).copy()
    side = max(8, round(at_384(image, 24)))
    for _ in range(round(at_level(level, 0, 2, 4, 7, 11, 17))):
        top, left = (int(rng.integers(0, max(1, length - side))) for length in pixels.shape[:2])
        block = pixels[top : top + side, left : left + side]
        block[:] = block.mean((0, 1)) + rng.uniform(-40, 40, 3)
    return to_image(pixels)


# --- tones and colors -------------------------------------------------------------------------------------------


def underexposure(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Too little light: darkened, with the noise of the dark."""
    gain = at_level(level, 1, 0.72, 0.54, 0.4, 0.29, 0.2)
    dark = gain * _pixels(image) + rng.standard_normal((image.height, image.width, 3), dtype=np.float32) * level * 0.6
    return to_image(dark)


def haze(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Fog or a dirty lens: everything moves towards a bright gray."""
    share = at_level(level, 0, 0.18, 0.32, 0.46, 0.6, 0.74)
    return to_image((1 - share) * _pixels(image) + share * rng.uniform(170, 235))


def excess_contrast(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Hard tones: shadows and lights are cut off."""
    pixels = _pixels(image)
    return to_image(pixels.mean() + at_level(level, 1, 1.3, 1.6, 2, 2.6, 3.5) * (pixels - pixels.mean()))


def color_cast(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """A wrong white balance."""
    direction = rng.standard_normal(3)
    direction -= direction.mean()
    direction /= np.abs(direction).max()
    return to_image(_pixels(image) * (1 + at_level(level, 0, 0.1, 0.18, 0.28, 0.4, 0.55) * direction))


def oversaturation(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Glaring colors."""
    return ImageEnhance.Color(image).enhance(at_level(level, 1, 1.5, 2, 2.7, 3.6, 5))


def desaturation(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Faded colors; a gray image at the end."""
    return ImageEnhance.Color(image).enhance(at_level(level, 1, 0.7, 0.5, 0.32, 0.16, 0))


def oversharpening(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Too much sharpening: halos along the edges."""
    pixels = _pixels(image)
    detail = pixels - _blurred(pixels, at_384(image, rng.uniform(0.8, 2)))
    return to_image(pixels + at_level(level, 0, 0.8, 1.6, 2.7, 4.2, 6.5) * detail)


def banding(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Too few shades: smooth areas break up into steps."""
    steps = at_level(level, 64, 20, 13, 9, 6, 4)
    return to_image(np.rint(_pixels(image) / 255 * (steps - 1)) / (steps - 1) * 255)


def few_colors(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """A palette of few colors, dithered."""
    colors = round(at_level(level, 256, 64, 32, 18, 10, 5))
    palette = image.quantize(colors, Image.Quantize.FASTOCTREE)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def chromatic_aberration(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Red and blue lie beside green, and are softer."""
    shift = round(at_384(image, at_level(level, 0, 1, 2, 3.3, 5, 7.5)))
    pixels = _pixels(image).copy()
    axis = int(rng.integers(2))
    pixels[..., 0] = np.roll(pixels[..., 0], shift, axis)
    pixels[..., 2] = np.roll(pixels[..., 2], -shift, axis)
    pixels[..., ::2] = _blurred(pixels[..., ::2], 0.3 * shift)
    return to_image(pixels)


def block_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Add quantization noise: round all values to few shades, with a random offset for each channel."""
    step = at_level(level, 1, 22, 38, 58, 82, 110)
    offset = rng.uniform(0, step, (1, 1, 3)).astype(np.float32)
    return to_image(np.floor((_pixels(image) + offset) / step) * step + step / 2 - offset)


def fading(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Simulate a fading channel: JPEG 2000 whose code blocks lose bands, which leaves local blur and ringing."""
    pixels = _pixels(
        _encoded(image, "JPEG2000", quality_mode="rates", quality_layers=[at_level(level, 4, 15, 25, 40, 60, 80)])
    )
    coarse, bands = pixels, []
    for scale in range(4):
        smooth = _blurred(coarse, 0.8 * 2**scale)
        bands.append(coarse - smooth)
        coarse = smooth
    height, width = pixels.shape[:2]
    share = at_level(level, 0, 0.08, 0.17, 0.3, 0.48, 0.7)
    for scale, band in enumerate(bands):
        side = 16 * 2**scale
        gains = np.where(
            rng.random((height // side + 1, width // side + 1)) < share, rng.choice([-0.6, 0.0, 0.0, 2.2]), 1.0
        )
        grown = np.kron(gains, np.ones((side, side), np.float32))[:height, :width, None]
        band *= ndimage.uniform_filter(grown, (5, 5, 0)).astype(np.float32)
    return to_image(coarse + sum(bands))


def brightness_shift(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Shift all values up or down by the same amount."""
    return to_image(_pixels(image) + rng.choice([-1, 1]) * at_level(level, 0, 15, 28, 42, 58, 75))


def enlargement(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Enlarge a small image with a random filter, sharpened or compressed now and then."""
    factor = max(1.0, at_level(level, 1, 1.7, 2.5, 3.7, 5.5, 8))
    small = (max(2, round(image.width / factor)), max(2, round(image.height / factor)))
    down = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)[rng.integers(3)]
    up = (
        Image.Resampling.NEAREST,
        Image.Resampling.BILINEAR,
        Image.Resampling.BICUBIC,
        Image.Resampling.LANCZOS,
    )[rng.integers(4)]
    reduced = image.resize(small, down)
    style = rng.integers(4)
    if style == 0:
        reduced = _encoded(reduced, "JPEG", quality=int(rng.integers(40, 92)))
    grown = reduced.resize(image.size, up)
    if style == 1:
        pixels = _pixels(grown)
        grown = to_image(pixels + 1.5 * (pixels - _blurred(pixels, 0.5 * factor)))
    return grown


def double_jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compress twice as JPEG on shifted block grids, the first time more strongly or less."""
    first, second = (level, 0.4 * level) if rng.random() < 0.5 else (0.6 * level, level)
    down, right = (int(value) for value in rng.integers(1, 8, 2))
    once = _compressed(image, "JPEG", first)
    moved = Image.fromarray(np.roll(np.asarray(once), (down, right), (0, 1)))
    return Image.fromarray(np.roll(np.asarray(_compressed(moved, "JPEG", second)), (-down, -right), (0, 1)))


def painted(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Wipe fine structure off and sharpen the edges that are left, as generators and strong denoisers do."""
    if level == 0:
        return image.copy()
    size = 2 * round(at_level(level, 0.5, 1, 2, 3, 4, 5)) + 1
    wiped = _pixels(image.filter(ImageFilter.MedianFilter(size)))
    sharpened = wiped + rng.uniform(0.3, 1.2) * (wiped - _blurred(wiped, 1.5))
    return to_image(sharpened)


def warped(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Bend shapes by a smooth random field."""
    pixels = _pixels(image)
    height, width = pixels.shape[:2]
    amount = at_384(image, at_level(level, 0, 1.2, 2.2, 3.5, 5.5, 8))
    field = ndimage.gaussian_filter(rng.standard_normal((2, height, width), dtype=np.float32), (0, 9, 9), mode="wrap")
    field *= amount / max(float(field.std()), 1e-6)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    places = np.stack([y + field[0], x + field[1]])
    return to_image(
        np.stack([ndimage.map_coordinates(pixels[..., c], places, order=1, mode="nearest") for c in range(3)], -1)
    )


DISTORTIONS: dict[str, Distortion] = graded.DISTORTIONS | {
    function.__name__: function
    for function in (
        lens_blur,
        partial_blur,
        denoising,
        pixelation,
        sparse_samples,
        color_noise,
        high_iso_noise,
        coarse_noise,
        high_frequency_noise,
        masked_noise,
        speckle,
        impulse_noise,
        webp,
        avif,
        jpeg2000,
        video_like,
        repeated_jpeg,
        lossy_noise,
        lost_blocks,
        odd_patches,
        colored_blocks,
        underexposure,
        haze,
        excess_contrast,
        color_cast,
        oversaturation,
        desaturation,
        oversharpening,
        banding,
        few_colors,
        chromatic_aberration,
        block_noise,
        fading,
        brightness_shift,
        enlargement,
        double_jpeg,
        painted,
        warped,
    )
}
"""All kinds by name."""
