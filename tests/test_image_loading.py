"""Tests of `load_image`: every form of image becomes upright RGB, or one line that names it."""

from __future__ import annotations

import io
import ipaddress
import os
import resource
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, ExifTags, Image, ImageCms

from helpers.color_profiles import DISPLAY_P3, P3, SRGB, icc_profile
from sind_hf import ImageError, load_image
from sind_hf import image_processing_sind as module
from sind_hf.image_processing_sind import image_suffixes, open_image, open_regular_file, printable, why_not_read


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(source: Any) -> np.ndarray:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


# --- orientation -----------------------------------------------------------------------------------------------------

# How a camera that writes this EXIF orientation has stored the upright image (EXIF 2.3, tag 274).
STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),  # shown after a quarter turn clockwise, so stored a quarter turn against it
    7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_turned_upright_once(draw: Any, tmp_path: Path, orientation: int) -> None:
    upright = np.asarray(draw(60, 40))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    file = tmp_path / "turned.png"
    stored.save(file, exif=exif)
    np.testing.assert_array_equal(pixels(file), upright)
    np.testing.assert_array_equal(pixels(Image.open(file)), upright)
    np.testing.assert_array_equal(pixels(load_image(file)), upright)  # a second loading must not turn it again
    jpeg = pixels(encoded(stored, "JPEG", quality=100, subsampling=0, exif=exif))
    assert jpeg.shape == upright.shape and np.abs(jpeg.astype(int) - upright).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0"])
def test_broken_exif_does_not_spoil_the_image(draw: Any, exif: bytes) -> None:
    assert pixels(encoded(draw(60, 40), "JPEG", exif=exif)).shape == (40, 60, 3)


def test_an_image_is_turned_whatever_else_exif_holds(draw: Any) -> None:
    """Tags of types that no writer should use: Model as a float, ResolutionUnit as text."""
    entries = (
        struct.pack(">HHII", 0x0110, 11, 1, 0),
        struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0),
        struct.pack(">HHI4s", 0x0128, 2, 3, b"in\0\0"),
    )
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(entries) + bytes(4)
    stored = encoded(draw(60, 40), "JPEG", exif=exif)
    assert Image.open(io.BytesIO(stored)).getexif()[0x0110] == 0.0
    for source in (stored, Image.open(io.BytesIO(stored))):
        np.testing.assert_array_equal(pixels(source), np.rot90(pixels(encoded(draw(60, 40), "JPEG")), -1))


def test_what_is_returned_is_not_the_source(draw: Any) -> None:
    image = draw(60, 40)
    load_image(image).paste((0, 0, 0), (0, 0, 60, 40))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(draw(60, 40)))


# --- transparency ----------------------------------------------------------------------------------------------------


def transparent_images() -> dict[str, bytes]:
    """Two pixels, one solid red, one of which nothing may be seen (or as much as said)."""
    rgba = Image.fromarray(np.array([[[255, 0, 0, 255], [0, 0, 0, 0]]], np.uint8))
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.putdata([0, 1])
    rgb = Image.fromarray(np.array([[[255, 0, 0], [7, 8, 9]]], np.uint8))
    return {
        "RGBA": encoded(rgba),
        "RGBA WebP": encoded(rgba, "WEBP", lossless=True, exact=True),
        "palette, index": encoded(palette, transparency=1),
        "palette, table": encoded(palette, transparency=b"\xff\x00"),
        "GIF": encoded(palette, "GIF", transparency=1),
        "RGB with a transparent color": encoded(rgb, transparency=(7, 8, 9)),
    }


@pytest.mark.parametrize("name", transparent_images())
def test_transparency_is_white(name: str) -> None:
    found = pixels(transparent_images()[name])
    assert found.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_half_transparency_mixes_with_white() -> None:
    half = Image.fromarray(np.array([[[200, 0, 0, 51], [10, 20, 30, 255]]], np.uint8))  # 51 / 255 = one fifth
    assert pixels(half).tolist() == [[[244, 204, 204], [10, 20, 30]]]
    gray = Image.fromarray(np.array([[[100, 51], [100, 255]]], np.uint8))
    assert gray.mode == "LA"
    assert pixels(encoded(gray)).tolist() == [[[224] * 3, [100] * 3]]
    assert pixels(np.asarray(half)).tolist() == pixels(half).tolist()


def test_a_transparent_gray_level_is_white() -> None:
    gray = Image.fromarray(np.array([[0, 90]], np.uint8))
    assert pixels(encoded(gray, transparency=90)).tolist() == [[[0] * 3, [255] * 3]]


# --- modes and depths ------------------------------------------------------------------------------------------------


def test_gray_one_bit_and_palette() -> None:
    levels = np.array([[0, 90, 255]], np.uint8)
    assert pixels(encoded(Image.fromarray(levels)))[0, :, 0].tolist() == [0, 90, 255]
    assert pixels(encoded(Image.fromarray(levels > 50)))[0].tolist() == [[0] * 3, [255] * 3, [255] * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette([12, 34, 56])
    assert pixels(encoded(palette)).tolist() == [[[12, 34, 56]]]


def test_cmyk_jpeg(draw: Any) -> None:
    image = Image.new("RGB", (32, 32), (200, 30, 60))
    found = pixels(encoded(image.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(found.astype(int) - (200, 30, 60)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_high_bits(kind: str) -> None:
    deep = Image.fromarray(np.array([[0, 257, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16))
    assert deep.mode == "I;16"
    assert pixels(encoded(deep, kind))[0, :, 1].tolist() == [0, 1, 100, 100, 101, 255]


def test_thirty_two_bit_gray() -> None:
    assert pixels(Image.fromarray(np.array([[0, 100, 255]], np.int32)))[0, :, 0].tolist() == [0, 100, 255]
    assert pixels(Image.fromarray(np.array([[-5, 257, 65535]], np.int32)))[0, :, 0].tolist() == [0, 1, 255]


def test_float_tiff() -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert pixels(encoded(unit, "TIFF"))[0, :, 2].tolist() == [0, 128, 255]
    levels = Image.fromarray(np.array([[0, 99.6, 255, 300, -4]], np.float32))
    assert pixels(encoded(levels, "TIFF"))[0, :, 2].tolist() == [0, 100, 255, 255, 0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(red, kind, save_all=True, append_images=[blue], duration=50, **options)
    assert getattr(Image.open(io.BytesIO(file)), "n_frames", 1) == 2
    assert (pixels(file) == (255, 0, 0)).all()


# --- forms of a source -----------------------------------------------------------------------------------------------


def test_paths_bytes_and_dicts(draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, file = draw(40, 30), tmp_path / "a.png"
    image.save(file)
    sources = [file, str(file), file.read_bytes(), {"bytes": file.read_bytes(), "path": None}]
    sources += [{"bytes": None, "path": str(file)}, {"bytes": file.read_bytes(), "path": "gone.png"}, {"path": file}]
    monkeypatch.chdir(tmp_path)
    for source in [*sources, "a.png", image, Image.open(file)]:
        np.testing.assert_array_equal(pixels(source), np.asarray(image))


def test_the_source_is_left_as_it_was(draw: Any) -> None:
    image = draw(40, 30).convert("RGBA")
    before = image.tobytes()
    load_image(image)
    assert image.mode == "RGBA" and image.tobytes() == before


def array_forms() -> dict[str, Any]:
    colors = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    unit = colors / 255
    return {
        "HWC uint8": colors,
        "CHW uint8": colors.transpose(2, 0, 1),
        "not contiguous": np.repeat(colors, 2, axis=1)[:, ::2],
        "HWC float64": unit,
        "CHW float32": unit.transpose(2, 0, 1).astype(np.float32),
        "HWC float16": unit.astype(np.float16),
        "HWC int64": colors.astype(np.int64),
        "HWC uint16": colors.astype(np.uint16) * 257,
        "CHW tensor": torch.from_numpy(colors).permute(2, 0, 1),
        "CHW float tensor": torch.from_numpy(unit).permute(2, 0, 1).requires_grad_(),
        "HWC tensor": torch.from_numpy(colors),
        "HWC with alpha": np.concatenate([colors, np.full((5, 7, 1), 255, np.uint8)], axis=2),
    }


@pytest.mark.parametrize("name", array_forms())
def test_arrays_and_tensors(name: str) -> None:
    forms = array_forms()
    np.testing.assert_array_equal(pixels(forms[name]), forms["HWC uint8"])


def test_gray_arrays() -> None:
    gray = np.array([[0, 9], [200, 255]], np.uint8)
    expected = np.repeat(gray[..., None], 3, axis=2)
    for form in (gray, gray[..., None], gray[None], gray / 255, torch.from_numpy(gray)[None]):
        np.testing.assert_array_equal(pixels(form), expected)
    assert pixels(gray > 100)[..., 0].tolist() == [[0, 0], [255, 255]]
    assert pixels(torch.from_numpy(gray > 100))[..., 0].tolist() == [[0, 0], [255, 255]]
    rounded = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.bfloat16)
    assert pixels(rounded)[0, :, 0].tolist() == [0, 128, 255]


# --- color profiles --------------------------------------------------------------------------------------------------


def in_srgb(levels: np.ndarray, colorants: np.ndarray = DISPLAY_P3, gamma: float = 563 / 256) -> np.ndarray:
    """The definition: colorants and gamma to XYZ, XYZ to linear sRGB, its curve."""
    linear = (levels / 255) ** gamma @ (np.linalg.inv(SRGB) @ colorants).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colors_are_converted_to_srgb(draw: Any, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = draw(60, 40)
    data = encoded(image, kind, icc_profile=P3, **options)
    levels = np.asarray(image)
    assert np.abs(pixels(data) - in_srgb(levels)).max() < 1.6
    assert np.abs(pixels(data).astype(int) - levels).mean() > 3
    np.testing.assert_array_equal(pixels(load_image(data)), pixels(data))  # once
    np.testing.assert_array_equal(load_image(data, color_management=False), levels)
    opened = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(pixels(opened), pixels(data))
    np.testing.assert_array_equal(load_image(opened, color_management=False), levels)


def test_colors_of_palettes_of_gray_and_under_transparency_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    color = np.array([[[180, 40, 90], [20, 200, 60]]], np.uint8)
    expected = in_srgb(color)
    palette = Image.fromarray(color).quantize(2)
    assert palette.mode == "P"
    assert np.abs(pixels(encoded(palette, icc_profile=P3)) - expected).max() < 1.6
    rgba = Image.fromarray(np.concatenate([color, np.array([[[255], [51]]], np.uint8)], axis=2))
    mixed = expected * [[[1.0], [0.2]]] + 255 * np.array([[[0.0], [0.8]]])
    for rows in (2**22, 1):
        monkeypatch.setattr(module, "STRIP_PIXELS", rows)
        assert np.abs(pixels(encoded(rgba, icc_profile=P3)) - mixed).max() < 1.6
    gray = Image.fromarray(np.array([[0, 55, 255]], np.uint8))
    found = pixels(encoded(gray, icc_profile=icc_profile(b"GRAY", 1.0)))
    assert np.abs(found - in_srgb(np.array([[[0] * 3, [55] * 3, [255] * 3]]), SRGB, 1.0)).max() < 1.6
    cmyk = Image.new("CMYK", (4, 4), (10, 200, 90, 5))
    np.testing.assert_array_equal(pixels(encoded(cmyk, "JPEG", icc_profile=P3)), pixels(encoded(cmyk, "JPEG")))


@pytest.mark.parametrize(
    "profile",
    [b"x", b"x" * 300, P3[:200], P3[:-30] + bytes(30), icc_profile(b"GRAY", 1.0), bytes(2**22 + 1)],
    ids=["short", "garbage", "cut", "overwritten", "of gray", "large"],
)
def test_a_profile_that_cannot_be_used_is_ignored(draw: Any, profile: bytes) -> None:
    image = draw(60, 40)
    image.info["icc_profile"] = profile
    np.testing.assert_array_equal(pixels(image), np.asarray(image))


def test_an_srgb_profile_changes_nothing_and_is_looked_at_once(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock(wraps=ImageCms.buildTransform)
    monkeypatch.setattr(ImageCms, "buildTransform", made)
    module._srgb_transform.cache_clear()
    image = draw(60, 40)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for _ in range(3):
        np.testing.assert_array_equal(pixels(image), np.asarray(image))
    assert made.call_count == 1


# --- formats ---------------------------------------------------------------------------------------------------------


def test_every_format_has_its_own_suffixes_and_decoders() -> None:
    known = module.KNOWN_FORMATS
    suffixes = [suffix for each in known for suffix in each.suffixes.split()]
    assert len(suffixes) == len(set(suffixes)) and all(s[0] == "." and s == s.lower() for s in suffixes)
    Image.init()
    for suffix, decoder in Image.registered_extensions().items():
        if decoder in module.IMAGE_FORMATS:
            assert suffix in image_suffixes()
    assert not {".pdf", ".eps", ".mpg", ".txt", ".h5", ".ico", ".heics.txt"} & image_suffixes()


@pytest.mark.parametrize(
    ("head", "suffix", "decoder", "package"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf", ".HEIC", "HEIF", "pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", ".avif", "AVIF", "pillow-avif-plugin"),
        (b"\xff\x0a\x7f\x06\0", ".jxl", "JXL", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", ".jxl", "JXL", "pillow-jxl-plugin"),
    ],
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, head: bytes, suffix: str, decoder: str, package: str
) -> None:
    Image.init()
    monkeypatch.delitem(Image.OPEN, decoder, raising=False)
    monkeypatch.setitem(sys.modules, package.removesuffix("-plugin").replace("-", "_"), None)
    expected = f"images need the package {package}; run: pip install {package}"
    assert_refused({"bytes": head.ljust(100, b"\0"), "path": "a.jpg"}, "a.jpg: ", expected)
    assert expected in (why_not_read(suffix) or "") and suffix.lower() not in image_suffixes()


def test_why_files_are_not_read() -> None:
    assert why_not_read(".CR2") == "raw images are not read; convert it to JPEG, PNG or TIFF"
    assert why_not_read(".jpg") is why_not_read(".txt") is None


@pytest.mark.parametrize(("plugin", "decoder"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL"), ("PIL", "AVIF")])
def test_formats_of_plugins_are_read_upright(draw: Any, plugin: str, decoder: str) -> None:
    pytest.importorskip(plugin, reason=f'needs {plugin}: pip install "sind-hf[formats]"')
    image = draw(8, 6).resize((160, 120), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    if decoder == "HEIF":
        sys.modules[plugin].register_heif_opener()
    elif decoder not in Image.OPEN:
        pytest.skip("this Pillow has no AVIF")
    plain, turned = encoded(image, decoder, quality=95), encoded(image, decoder, quality=95, exif=exif.tobytes())
    assert np.abs(pixels(plain).astype(int) - np.asarray(image)).mean() < 3
    # In JPEG XL, EXIF does not count.
    expected = pixels(plain) if decoder == "JXL" else np.rot90(pixels(plain), -1)
    assert pixels(turned).shape == expected.shape
    assert np.abs(pixels(turned).astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    ("size", "head"),
    [
        ((60, 40), "ff0a09070013080100f00067"),
        ((256, 256), "ff0a7f060013080100080167"),
        ((1600, 900), "ff0a1a1c1d00130801006c00"),
        ((70000, 2), "ff0a0800df221a0013080100"),
        ((800, 1200), "ff0a7a25e8630c0013080100"),
    ],
)
def test_the_size_of_a_jpeg_xl_file_is_read_from_its_header(size: tuple[int, int], head: str) -> None:
    stream = bytes.fromhex(head)
    assert module._jxl_size(stream) == size
    start = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl "
    whole = struct.pack(">L4s", len(stream) + 8, b"jxlc") + stream
    long = struct.pack(">L4sQ", 1, b"jxlc", len(stream) + 16) + stream
    to_the_end = struct.pack(">L4s", 0, b"jxlc") + stream
    parts = b"".join(
        struct.pack(">L4sL", 12 + len(part), b"jxlp", number) + part
        for number, part in enumerate((stream[:3], stream[3:5], stream[5:]))
    )
    for boxes in (whole, long, to_the_end, parts):
        assert module._jxl_size(start + boxes + bytes(20)) == size
    for broken in (start, start + bytes(50), start + struct.pack(">L4s", 8, b"free") * 20_000 + whole):
        with pytest.raises(ValueError, match="no header of JPEG XL"):
            module._jxl_size(broken)


def test_a_large_jpeg_xl_file_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Mock(side_effect=AssertionError)
    Image.init()
    monkeypatch.setitem(Image.OPEN, "JXL", (decode, lambda head: True))
    monkeypatch.setattr(module, "CHEAP_PIXELS", 100_000)
    monkeypatch.setattr(module, "PIXELS_PER_BYTE", 1)
    assert_refused(bytes.fromhex("ff0a7a25e8630c0013080100"), "800x1200 pixels from 12 bytes")
    assert not decode.called


# --- what cannot be used ---------------------------------------------------------------------------------------------


def assert_refused(source: Any, *words: str) -> None:
    with pytest.raises(ImageError) as error:
        load_image(source)
    message = str(error.value)
    assert "\n" not in message and isinstance(error.value, ValueError)
    for word in words:
        assert word in message, message


def test_bad_files_are_named_in_one_line(draw: Any, tmp_path: Path) -> None:
    whole = encoded(draw(200, 150), "JPEG")
    contents = {
        "text.jpg": b"This is not an image.\nNot at all.\n",
        "empty.png": b"",
        "truncated.jpg": whole[: len(whole) // 2],
        "truncated.png": encoded(draw(200, 150))[:5000],
        "header.gif": b"GIF89a",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert_refused(tmp_path / name, name)
        assert_refused({"path": name, "bytes": content} if content else {"path": str(tmp_path / name)}, name)
    assert_refused(tmp_path / "text.jpg", "not an image in a supported format")
    assert_refused(tmp_path / "empty.png", "is empty")
    assert_refused(tmp_path / "truncated.jpg", "damaged")
    assert_refused(tmp_path / "gone.jpg", "gone.jpg", "no such file")
    assert_refused(tmp_path, str(tmp_path), "is a folder")
    assert_refused(str(tmp_path / "text.jpg" / "below.jpg"), "below.jpg")
    assert_refused("nul\0l.jpg", "nul\\x00l.jpg")


def test_a_file_that_pillow_opened_but_cannot_decode_is_named_too(draw: Any, tmp_path: Path) -> None:
    whole = encoded(draw(200, 150), "JPEG")
    (tmp_path / "late.jpg").write_bytes(whole[: len(whole) // 2])
    assert_refused(Image.open(tmp_path / "late.jpg"), "late.jpg", "damaged")


def test_names_cannot_break_the_message(tmp_path: Path) -> None:
    assert_refused(tmp_path / "two\nlines.jpg", "two\\nlines.jpg")
    undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    with pytest.raises(ImageError) as error:
        load_image(undecodable)
    str(error.value).encode("utf-8")  # printable anywhere
    assert_refused(tmp_path / "写真 1.jpg", "写真 1.jpg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("photo 1.jpg", "photo 1.jpg"),
        ("写真 é.jpg", "写真 é.jpg"),
        ("a\x1b]0;title\x07\x1b[2J.jpg", "a\\x1b]0;title\\x07\\x1b[2J.jpg"),
        ("a.jpg\nb.jpg\r\t5.0\x85\u2028", "a.jpg\\nb.jpg\\r\\t5.0\\x85\\u2028"),
        ("a\u202egpj.exe\u2066", "a\\u202egpj.exe\\u2066"),
        ("caf\udce9", "caf\\udce9"),
        (Path("a\nb"), "a\\nb"),
        (b"caf\xe9", "caf\\udce9"),
        (7, "7"),
    ],
)
def test_names_are_made_printable(text: object, expected: str) -> None:
    assert printable(text) == expected


def test_long_names_are_cut_in_the_middle() -> None:
    for text in ("iVBORw0KGgo" * 3000 + "end.png", "\x1b" * 40_000 + "end.png", "x" * 301 + "end.png"):
        short = printable(text)
        assert len(short) == 300 and short.isprintable() and "…" in short and short.endswith("end.png")
        assert len(printable(text, 40)) == 40
    assert printable("x" * 300) == "x" * 300
    with pytest.raises(ImageError) as error:
        load_image("iVBORw0KGgo" * 3000)
    assert len(str(error.value)) < 700


def test_undecodable_file_names_are_read(draw: Any, tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(file, "wb") as stream:
        draw(20, 10).save(stream, "PNG")
    assert pixels(os.fsdecode(file)).shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((3, 4, 5), np.uint8)[:0], ["shape (0, 4, 5)"]),
        (np.zeros((5, 5, 6), np.uint8), ["shape (5, 5, 6)", "(H, W, C)"]),
        (np.zeros((2, 5, 6), np.uint8), ["shape (2, 5, 6)"]),
        (np.zeros(12, np.uint8), ["shape (12,)"]),
        (np.zeros((1, 2, 3, 3), np.uint8), ["shape (1, 2, 3, 3)"]),
        (np.full((2, 2), np.nan), ["finite"]),
        (np.full((2, 2, 3), 1.5), ["[0, 1]"]),
        (np.full((2, 2, 3), -0.5), ["[0, 1]"]),
        (np.full((2, 2, 3), 256), ["int64", "0..255"]),
        (np.full((2, 2, 3), -1), ["int64", "0..255"]),
        (torch.full((3, 2, 2), float("inf")), ["finite"]),
        (Image.new("RGB", (0, 4)), ["no pixels"]),
        (Image.fromarray(np.array([[0.5, np.nan]], np.float32)), ["finite"]),
        (None, ["NoneType"]),
        (3.5, ["float"]),
        ({"bytes": None, "path": None}, ["'bytes' or 'path'"]),
        ({}, ["'bytes' or 'path'"]),
        (b"not an image", ["bytes: not an image in a supported format"]),
        (b"", ["bytes: is empty"]),
    ],
)
def test_other_bad_sources(source: Any, words: list[str]) -> None:
    assert_refused(source, *words)


def test_a_tiff_with_nan_is_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5, np.nan]], np.float32)).save(tmp_path / "hole.tif")
    assert_refused(tmp_path / "hole.tif", "hole.tif", "finite")


def png_header(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file that claims a size, with other chunks, and hardly any pixels."""
    size = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", size, *chunks, png_chunk(b"IDAT", zlib.compress(bytes(99)))])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_decompression_bombs_are_refused_by_their_headers(tmp_path: Path) -> None:
    text = b"Title\0\0" + zlib.compress(bytes(50_000_000))
    bombs = {
        "pixels.png": (png_header(60_000, 60_000), "more pixels than Pillow's limit of 178,956,970; scale it down"),
        "text.png": (png_header(40, 30, png_chunk(b"zTXt", text)), "too large"),
        "profile.png": (png_header(40, 30, png_chunk(b"iCCP", text)), "too large"),
        "frame.gif": (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",", "frame.gif: "),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, (data, words) in bombs.items():
        (tmp_path / name).write_bytes(data)
        assert_refused(tmp_path / name, name, words)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; decoded they take GBs


def test_the_content_decides_and_not_the_extension(draw: Any, tmp_path: Path) -> None:
    image = draw(60, 40)
    for kind, name in (("PNG", "a.jpg"), ("BMP", "b.png"), ("TIFF", "c.webp"), ("PNG", "d.txt"), ("PNG", "e")):
        (tmp_path / name).write_bytes(encoded(image, kind))
        np.testing.assert_array_equal(pixels(tmp_path / name), np.asarray(image))
    (tmp_path / "f.png").write_bytes(b"%PDF-1.7\n")
    assert_refused(tmp_path / "f.png", "f.png", "not an image in a supported format")


def test_sixteen_bit_colors_keep_their_high_bits() -> None:
    deep = np.array([[[0, 257 * 100, 65535]]], ">u2")
    size = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" + deep.tobytes()))
    found = pixels(b"\x89PNG\r\n\x1a\n" + size + data + png_chunk(b"IEND", b""))
    assert found.tolist() == [[[0, 100, 255]]]


def test_too_many_pixels(tmp_path: Path, draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(40, 30).save(tmp_path / "large.png")
    monkeypatch.setattr(module, "PIXEL_LIMIT", 1199)
    assert_refused(tmp_path / "large.png", "large.png", "40x30", "1199")
    monkeypatch.setattr(module, "PIXEL_LIMIT", 1200)
    assert pixels(tmp_path / "large.png").shape == (30, 40, 3)


def test_formats_beyond_the_list_start_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, ghostscript = tmp_path / "started", tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\necho >> {mark}\nexit 0\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(ghostscript))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshow\n%%EOF\n")
    for source in (photo, photo.read_bytes(), {"bytes": photo.read_bytes(), "path": "photo.jpg"}):
        assert_refused(source, "not an image in a supported format")
    with pytest.raises(ImageError, match="photo.jpg"), open_image(photo):
        pass
    with Image.open(photo) as opened:
        assert_refused(opened, "photo.jpg", "EPS")
    assert not mark.exists()
    for kind in ("PCX", "SGI"):
        assert_refused(encoded(Image.new("RGB", (8, 8)), kind), "supported format")


def test_an_image_is_opened_without_its_pixels(draw: Any) -> None:
    data = encoded(draw(40, 30))
    with open_image(data[: len(data) // 2], "half.png") as image:
        assert (image.size, image.format) == ((40, 30), "PNG")
    with pytest.raises(ImageError, match="^half.png: damaged"), open_image(data[:99], "half.png") as image:
        image.load()


# --- files that are not regular --------------------------------------------------------------------------------------


def test_pipes_devices_and_sockets_are_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe.png")
    Path("zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        for name, kind in (("pipe.png", "a named pipe"), ("zero.png", "a device"), ("socket.png", "a socket")):
            assert_refused(name, f"{name}: cannot be read (it is {kind}; only regular files are read)")
            with pytest.raises(OSError, match=f"it is {kind}"):
                open_regular_file(name)
    with pytest.raises(IsADirectoryError):
        open_regular_file(tmp_path)


def test_a_pipe_that_takes_the_place_of_a_file_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check comes first, and the file may be replaced before it is opened."""
    pipe, regular = tmp_path / "pipe.png", os.stat(__file__)
    os.mkfifo(pipe)
    monkeypatch.setattr(module.os, "stat", lambda path: regular)
    with pytest.raises(OSError, match="it is a named pipe"):
        open_regular_file(pipe)


# --- dear work for cheap input ---------------------------------------------------------------------------------------


def jpeg_segment(mark: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, mark, len(data) + 2) + data


def exif_of_overlapping_tags(count: int, size: int) -> bytes:
    """EXIF whose tags all claim the same bytes, so that their copies take `count` × `size` bytes."""
    tags = b"".join(struct.pack("<HHLL", 0x8000 + number, 7, size, 8) for number in range(count))
    return (b"II*\0" + struct.pack("<LH", 8, count) + tags).ljust(size + 8, b"\0")


def test_work_out_of_proportion_is_refused(draw: Any) -> None:
    whole, jpeg = encoded(draw(40, 30)), encoded(draw(40, 30), "JPEG")
    exif = exif_of_overlapping_tags(30_000, 400_000)
    segments = [exif[start : start + 60_000] for start in range(0, len(exif), 60_000)]
    inputs = {
        "a comment": b"P6\n#" + b"x" * 20_000_000 + b"\n2 2\n255\n" + bytes(12),
        "chunks": whole[:33] + png_chunk(b"teXt", b"") * 400_000 + whole[33:],
        "segments": jpeg[:2] + jpeg_segment(0xFE, b"") * 400_000 + jpeg[2:],
        "padding": jpeg[:2] + b"\xff" * 2_000_000 + jpeg[2:],
        "EXIF": jpeg[:2] + b"".join(jpeg_segment(0xE1, b"Exif\0\0" + part) for part in segments) + jpeg[20:],
        "tags": exif,  # a TIFF file
        "flat": png_header(9000, 9000),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in inputs.items():
        start = time.thread_time()
        assert_refused({"bytes": data, "path": name}, f"{name}: ")
        assert time.thread_time() - start < 8, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def test_an_icon_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    icon = io.BytesIO()
    Image.new("RGB", (64, 64)).save(icon, "ICO")
    decoded: list[object] = []
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image))
    assert_refused(icon.getvalue(), "not an image in a supported format")
    assert decoded == []


def test_orientation_is_read_without_the_other_tags(draw: Any) -> None:
    """Reading all tags of a PNG file's EXIF would take 24 GB."""
    exif = bytearray(exif_of_overlapping_tags(30_000, 800_000))
    exif[10:22] = struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0)
    whole = encoded(draw(40, 30))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_image(whole[:33] + png_chunk(b"eXIf", bytes(exif)) + whole[33:]).size == (30, 40)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_cost_of_a_scan_is_bounded_while_it_is_decoded(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(draw(640, 480), "JPEG", progressive=True, quality=95)
    monkeypatch.setattr(module, "HEADER_SECONDS", -1.0)
    monkeypatch.setattr(module, "SECONDS_PER_PIXEL", 0.0)
    assert_refused(data, "takes far more work to decode")


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large.webp").open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBPVP8 ")
        file.truncate(2**40)
    assert_refused(tmp_path / "large.webp", "large.webp: 1,099,511,627,776 bytes is over the limit")


@pytest.mark.parametrize("mode", ["LA", "I", "I;16", "F", "P"])
def test_strips_give_the_same_pixels(draw: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gray = np.asarray(draw(60, 41).convert("L"))
    image = {
        "LA": lambda: Image.merge("LA", [Image.fromarray(gray), Image.fromarray(gray[::-1].copy())]),
        "I": lambda: Image.fromarray(gray.astype(np.int32) * 100),
        "I;16": lambda: Image.fromarray(gray.astype(np.uint16) * 257),
        "F": lambda: Image.fromarray(gray / np.float32(255)),
        "P": lambda: draw(60, 41).quantize(16),
    }[mode]()
    if mode == "P":
        image.info["transparency"] = 3
    expected = pixels(image)
    monkeypatch.setattr(module, "STRIP_PIXELS", 60 * 8)
    np.testing.assert_array_equal(pixels(image), expected)


# --- URLs ------------------------------------------------------------------------------------------------------------


class Site(BaseHTTPRequestHandler):
    """Serves what each test of a bounded client needs."""

    asked: list[str] = []
    image = b""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.asked.append(self.path)
        port = self.server.server_address[1]
        moved = {
            "/internal": f"http://127.0.0.2:{port}/secret",
            "/loop": "/loop",
            "/file": "file:///etc/passwd",
            "/moved": "/a.png",
        }
        with suppress(OSError):
            if self.path == "/slow-header":
                for _ in range(100):
                    self.wfile.write(b"H")
                    time.sleep(0.1)
            self.send_response(302 if self.path in moved else 404 if self.path == "/gone.png" else 200)
            if self.path in moved:
                self.send_header("Location", moved[self.path])
            if self.path == "/announced":
                self.send_header("Content-Length", str(10**12))
            if self.path == "/packed":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            if self.path == "/endless":
                for _ in range(200):
                    self.wfile.write(bytes(2**20))
            elif self.path == "/drip":
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            elif self.path not in moved:
                self.wfile.write(self.image)


@pytest.fixture
def address(draw: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")
    monkeypatch.setattr(Site, "asked", [])
    monkeypatch.setattr(Site, "image", encoded(draw(40, 30)))
    with ThreadingHTTPServer(("", 0), Site) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def assert_url_refused(url: str, *words: str) -> None:
    with pytest.raises(ImageError) as error:
        load_image(url, private_addresses=True)
    message = str(error.value)
    assert message.startswith(url) and "\n" not in message
    for word in words:
        assert word in message, message


def test_urls(address: str, draw: Any) -> None:
    for path in ("/a.png", "/moved", "/写真 1.png", "/a%20b.png?size=1&q=é"):
        found = load_image(address + path, private_addresses=True)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(draw(40, 30)))
    assert load_image(address.replace("http", "HTTP") + "/b.png", private_addresses=True).size == (40, 30)
    escaped = "/%E5%86%99%E7%9C%9F%201.png"
    assert Site.asked == ["/a.png", "/moved", "/a.png", escaped, "/a%20b.png?size=1&q=%C3%A9", "/b.png"]
    assert_url_refused(f"{address}/gone.png", "download failed", "404")
    assert_url_refused("http://127.0.0.1:9/a.png", "download failed", "refused")
    assert_url_refused(f"{address}/packed", "compresses")


def test_downloads_end_in_time_and_in_size(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOWNLOAD_LIMIT", 5 * 2**20)
    for path in ("/endless", "/announced"):
        assert_url_refused(address + path, "larger than the limit of 5,242,880 bytes")
    assert_url_refused(f"{address}/loop", "more than 5 redirects")
    assert Site.asked.count("/loop") == 6
    assert_url_refused(f"{address}/file", "leads to file:/etc/passwd, which is not an http(s) URL")
    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 1.0)
    for path in ("/drip", "/slow-header"):
        start = time.monotonic()
        assert_url_refused(address + path, "takes longer than 1 seconds")
        assert time.monotonic() - start < 5


def test_addresses_that_are_not_public_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = address.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"):
        assert_refused(f"http://{host}:{port}/a.png", "is not a public address; pass private_addresses=True")
    assert_refused({"path": f"{address}/a.png"}, "no such file")  # the path of a row is a file
    assert Site.asked == []
    monkeypatch.setattr(module, "_is_public", lambda ip: str(ipaddress.ip_address(ip)) == "127.0.0.1")
    assert load_image(f"{address}/moved").size == (40, 30)
    assert_refused(f"{address}/internal", "127.0.0.2 is not a public address")
    assert "/secret" not in Site.asked
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", address)
    assert_refused("http://127.0.0.2/secret", "127.0.0.2 is not a public address")
    assert load_image("http://photos.example/a.png").size == (40, 30)  # the proxy looks up the name
    assert Site.asked[-1] == "http://photos.example/a.png"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        *((bad, False) for bad in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1")),
        *((bad, False) for bad in ("224.0.0.1", "240.0.0.1", "255.255.255.255", "0.0.0.0", "fe80::1%eth0", "fd00::1")),
        *((bad, False) for bad in ("fec0::1", "64:ff9b:1::a00:1", "::ffff:0:7f00:1", "5f00::1")),
        *((bad, False) for bad in ("::", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "::127.0.0.1")),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert module._is_public(address) is public


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "017700000001", "localhost.", "a.localhost."])
def test_a_proxy_is_asked_for_no_other_form_of_a_local_address(
    address: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", address)
    assert_refused(f"http://{host}/secret", f"{host} is not a public address")
    assert Site.asked == []


def test_the_address_that_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"]]
    monkeypatch.setattr(
        module.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (ip, 80)) for ip in answers.pop(0)]
    )
    network = Mock()
    bounded = module._BoundedNetwork(network, time.monotonic() + 60)
    bounded.connect_tcp("photos.example", 80)
    assert [call.args[0] for call in network.connect_tcp.mock_calls] == ["93.184.216.34"]
    for _ in range(2):  # another answer, and one public address among others
        with pytest.raises(module._NotPublicError):
            bounded.connect_tcp("photos.example", 80)
    assert len(network.connect_tcp.mock_calls) == 1


# --- decoding at a fraction of the size ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1600, 1200), 300, (400, 300)),  # a quarter is still enough
        ((1600, 1200), 301, (800, 600)),  # a quarter would be one pixel short
        ((1600, 1200), 601, (1600, 1200)),
        ((1200, 1600), 100, (150, 200)),  # an eighth is the least there is
        ((320, 240), 300, (320, 240)),  # never enlarged
    ],
)
def test_jpeg_at_a_fraction_keeps_the_short_side(
    draw: Any, size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    data = encoded(draw(*size), "JPEG", quality=95)
    assert load_image(data, short_side=short_side).size == expected
    assert load_image(data).size == size


def test_fractions_look_like_the_whole(draw: Any, tmp_path: Path) -> None:
    smooth = draw(64, 48).resize((1600, 1200), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    smooth.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    small = load_image(tmp_path / "turned.jpg", short_side=300)
    assert small.size == (300, 400)
    whole = load_image(tmp_path / "turned.jpg").resize(small.size, Image.Resampling.BOX)
    assert np.abs(pixels(small).astype(int) - pixels(whole)).mean() < 1.5


def test_other_formats_are_decoded_whole(draw: Any) -> None:
    assert load_image(encoded(draw(800, 600), "PNG"), short_side=100).size == (800, 600)
