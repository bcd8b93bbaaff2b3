"""Tests of `load_image`: every form of picture becomes upright RGB, or one line that names it."""

from __future__ import annotations

import io
import os
import resource
import struct
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from sind_hf import ImageError, load_image
from sind_hf import image_processing_sind as module
from sind_hf.image_processing_sind import printable


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(source: Any) -> np.ndarray:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


# --- orientation -----------------------------------------------------------------------------------------------------

# How a camera that writes this EXIF orientation has stored the upright picture (EXIF 2.3, tag 274).
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
def test_broken_exif_does_not_spoil_the_picture(draw: Any, exif: bytes) -> None:
    assert pixels(encoded(draw(60, 40), "JPEG", exif=exif)).shape == (40, 60, 3)


def test_a_picture_is_turned_whatever_else_exif_holds(draw: Any) -> None:
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
    picture = draw(60, 40)
    load_image(picture).paste((0, 0, 0), (0, 0, 60, 40))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(draw(60, 40)))


# --- transparency ----------------------------------------------------------------------------------------------------


def transparent_pictures() -> dict[str, bytes]:
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
        "RGB with a transparent colour": encoded(rgb, transparency=(7, 8, 9)),
    }


@pytest.mark.parametrize("name", transparent_pictures())
def test_transparency_is_white(name: str) -> None:
    found = pixels(transparent_pictures()[name])
    assert found.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_half_transparency_mixes_with_white() -> None:
    half = Image.fromarray(np.array([[[200, 0, 0, 51], [10, 20, 30, 255]]], np.uint8))  # 51 / 255 = one fifth
    assert pixels(half).tolist() == [[[244, 204, 204], [10, 20, 30]]]
    grey = Image.fromarray(np.array([[[100, 51], [100, 255]]], np.uint8))
    assert grey.mode == "LA"
    assert pixels(encoded(grey)).tolist() == [[[224] * 3, [100] * 3]]
    assert pixels(np.asarray(half)).tolist() == pixels(half).tolist()


def test_a_transparent_grey_level_is_white() -> None:
    grey = Image.fromarray(np.array([[0, 90]], np.uint8))
    assert pixels(encoded(grey, transparency=90)).tolist() == [[[0] * 3, [255] * 3]]


# --- modes and depths ------------------------------------------------------------------------------------------------


def test_grey_one_bit_and_palette() -> None:
    levels = np.array([[0, 90, 255]], np.uint8)
    assert pixels(encoded(Image.fromarray(levels)))[0, :, 0].tolist() == [0, 90, 255]
    assert pixels(encoded(Image.fromarray(levels > 50)))[0].tolist() == [[0] * 3, [255] * 3, [255] * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette([12, 34, 56])
    assert pixels(encoded(palette)).tolist() == [[[12, 34, 56]]]


def test_cmyk_jpeg(draw: Any) -> None:
    picture = Image.new("RGB", (32, 32), (200, 30, 60))
    found = pixels(encoded(picture.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(found.astype(int) - (200, 30, 60)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_bits(kind: str) -> None:
    deep = Image.fromarray(np.array([[0, 257, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16))
    assert deep.mode == "I;16"
    assert pixels(encoded(deep, kind))[0, :, 1].tolist() == [0, 1, 100, 100, 101, 255]


def test_thirty_two_bit_grey() -> None:
    assert pixels(Image.fromarray(np.array([[0, 100, 255]], np.int32)))[0, :, 0].tolist() == [0, 100, 255]
    assert pixels(Image.fromarray(np.array([[-5, 257, 65535]], np.int32)))[0, :, 0].tolist() == [0, 1, 255]


def test_float_tiff() -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert pixels(encoded(unit, "TIFF"))[0, :, 2].tolist() == [0, 128, 255]
    levels = Image.fromarray(np.array([[0, 99.6, 255, 300, -4]], np.float32))
    assert pixels(encoded(levels, "TIFF"))[0, :, 2].tolist() == [0, 100, 255, 255, 0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(red, kind, save_all=True, append_images=[blue], duration=50, **options)
    assert getattr(Image.open(io.BytesIO(file)), "n_frames", 1) == 2
    assert (pixels(file) == (255, 0, 0)).all()


# --- forms of a source -----------------------------------------------------------------------------------------------


def test_paths_bytes_and_dicts(draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, file = draw(40, 30), tmp_path / "a.png"
    picture.save(file)
    sources = [file, str(file), file.read_bytes(), {"bytes": file.read_bytes(), "path": None}]
    sources += [{"bytes": None, "path": str(file)}, {"bytes": file.read_bytes(), "path": "gone.png"}, {"path": file}]
    monkeypatch.chdir(tmp_path)
    for source in [*sources, "a.png", picture, Image.open(file)]:
        np.testing.assert_array_equal(pixels(source), np.asarray(picture))


def test_the_source_is_left_as_it_was(draw: Any) -> None:
    picture = draw(40, 30).convert("RGBA")
    before = picture.tobytes()
    load_image(picture)
    assert picture.mode == "RGBA" and picture.tobytes() == before


def array_forms() -> dict[str, Any]:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    unit = colours / 255
    return {
        "HWC uint8": colours,
        "CHW uint8": colours.transpose(2, 0, 1),
        "not contiguous": np.repeat(colours, 2, axis=1)[:, ::2],
        "HWC float64": unit,
        "CHW float32": unit.transpose(2, 0, 1).astype(np.float32),
        "HWC float16": unit.astype(np.float16),
        "HWC int64": colours.astype(np.int64),
        "HWC uint16": colours.astype(np.uint16) * 257,
        "CHW tensor": torch.from_numpy(colours).permute(2, 0, 1),
        "CHW float tensor": torch.from_numpy(unit).permute(2, 0, 1).requires_grad_(),
        "HWC tensor": torch.from_numpy(colours),
        "HWC with alpha": np.concatenate([colours, np.full((5, 7, 1), 255, np.uint8)], axis=2),
    }


@pytest.mark.parametrize("name", array_forms())
def test_arrays_and_tensors(name: str) -> None:
    forms = array_forms()
    np.testing.assert_array_equal(pixels(forms[name]), forms["HWC uint8"])


def test_grey_arrays() -> None:
    grey = np.array([[0, 9], [200, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    for form in (grey, grey[..., None], grey[None], grey / 255, torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(pixels(form), expected)
    assert pixels(grey > 100)[..., 0].tolist() == [[0, 0], [255, 255]]
    assert pixels(torch.from_numpy(grey > 100))[..., 0].tolist() == [[0, 0], [255, 255]]
    rounded = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.bfloat16)
    assert pixels(rounded)[0, :, 0].tolist() == [0, 128, 255]


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
        "text.jpg": b"This is not a picture.\nNot at all.\n",
        "empty.png": b"",
        "truncated.jpg": whole[: len(whole) // 2],
        "truncated.png": encoded(draw(200, 150))[:5000],
        "header.gif": b"GIF89a",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert_refused(tmp_path / name, name)
        assert_refused({"path": name, "bytes": content} if content else {"path": str(tmp_path / name)}, name)
    assert_refused(tmp_path / "text.jpg", "not a picture in a known format")
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
        (b"not a picture", ["bytes: not a picture"]),
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
    picture = draw(60, 40)
    for kind, name in (("PNG", "a.jpg"), ("BMP", "b.png"), ("TIFF", "c.webp"), ("PNG", "d.txt"), ("PNG", "e")):
        (tmp_path / name).write_bytes(encoded(picture, kind))
        np.testing.assert_array_equal(pixels(tmp_path / name), np.asarray(picture))
    (tmp_path / "f.png").write_bytes(b"%PDF-1.7\n")
    assert_refused(tmp_path / "f.png", "f.png", "not a picture in a known format")


def test_sixteen_bit_colours_keep_their_high_bits() -> None:
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


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls(address: str, draw: Any, tmp_path: Path) -> None:
    draw(40, 30).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(f"{address}/a.png"), np.asarray(draw(40, 30)))
    assert_refused(f"{address}/gone.png", f"{address}/gone.png", "download failed", "404")
    assert_refused("http://127.0.0.1:9/a.png", "download failed")


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
