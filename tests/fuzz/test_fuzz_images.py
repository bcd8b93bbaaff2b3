"""Any bytes are an image, or an `ImageError` of one line, in bounded time and memory."""

from __future__ import annotations

import io
import resource
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fuzzing import damaged, fuzz, one_line
from hypothesis import strategies as st
from PIL import Image

from sind_hf import ImageError, SindImageProcessor, load_image

LONGEST = 20.0  # seconds for one image, on a machine that does other work
PIXELS = 1_000_000  # so that a size which a fault invents is refused, as sizes beyond the real limit are
MOST_MEMORY = 400_000  # KiB beyond what the process had


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
        yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def images(draw: Any) -> dict[str, bytes]:
    """One small image in the formats and modes that are met."""
    plain = draw(48, 36)
    deep = Image.fromarray(np.arange(48 * 36, dtype=np.uint16).reshape(36, 48) * 37)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "JPEG": (plain, "JPEG", {"exif": exif}),
        "progressive JPEG": (plain, "JPEG", {"progressive": True, "icc_profile": bytes(300)}),
        "CMYK JPEG": (plain.convert("CMYK"), "JPEG", {}),
        "PNG": (plain, "PNG", {"exif": exif}),
        "palette PNG": (plain.quantize(16), "PNG", {"transparency": 3}),
        "16-bit PNG": (deep, "PNG", {}),
        "animated PNG": (plain, "PNG", {"save_all": True, "append_images": [plain.rotate(180)]}),
        "WebP": (plain, "WEBP", {"exif": exif}),
        "animated WebP": (plain.convert("RGBA"), "WEBP", {"save_all": True, "append_images": [plain]}),
        "TIFF": (plain, "TIFF", {}),
        "compressed TIFF": (plain, "TIFF", {"compression": "tiff_lzw"}),
        "float TIFF": (plain.convert("F"), "TIFF", {}),
        "16-bit TIFF": (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "GIF": (plain, "GIF", {}),
        "animated GIF": (plain, "GIF", {"save_all": True, "append_images": [plain.rotate(90)], "disposal": 2}),
        "BMP": (plain, "BMP", {}),
        "PPM": (plain, "PPM", {}),
        "TGA": (plain, "TGA", {"compression": "tga_rle"}),
        "JPEG 2000": (plain, "JPEG2000", {}),
    }
    made = {}
    for name, (image, kind, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        made[name] = file.getvalue()
    return made


def load(data: bytes) -> None:
    started = time.monotonic()
    loaded = one_line(lambda: load_image({"path": "drawn.bin", "bytes": data}), "drawn.bin", ImageError)
    if loaded is not None:
        assert loaded.mode == "RGB" and 0 not in loaded.size
        assert loaded.width * loaded.height <= 2 * PIXELS
    assert time.monotonic() - started < LONGEST


def test_damaged_images(draw: Any, bounded: None) -> None:
    whole = images(draw)
    for data in whole.values():
        assert load_image(data).size in [(48, 36), (36, 48)]
    fuzz(load, st.sampled_from(sorted(whole)).flatmap(lambda name: damaged(whole[name])))


def test_bytes_behind_the_marks_of_formats(bounded: None) -> None:
    marks = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM", b"P5 9 9 255\n"]
    marks += [b"RIFF\0\0\0\0WEBPVP8 ", b"\0\0\x01\0", b"\0\0\0\x0cjP  \r\n\x87\n", b"8BPS", b"\0\0\0\x1cftypavif"]
    fuzz(lambda mark, data: load(mark + data), st.sampled_from(marks), st.binary(min_size=1, max_size=400))


def test_views_of_images_of_any_shape() -> None:
    processor = SindImageProcessor(size={"height": 56, "width": 56})

    def check(width: int, height: int, mode: Any, gray: int) -> None:
        views = processor.make_views(Image.new("L", (width, height), gray), mode)
        for view in views:
            assert view.shape == (9 if mode == "nine" else 1, 3, 56, 56) and (view == gray).all()

    sides = st.integers(1, 400) | st.integers(1, 20_000).map(lambda side: max(1, side // 10))
    fuzz(check, sides, sides, st.sampled_from(["center", "nine"]), st.integers(0, 255))
