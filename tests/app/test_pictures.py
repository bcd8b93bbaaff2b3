"""Reading uploads within limits, and the examples."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sind_hf.app import uploads as pictures
from sind_hf.app.uploads import example_pictures, read_picture
from sind_hf.image_processing_sind import ImageError, load_image


def test_a_picture_is_read_upright(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(60, 40).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (40, 60)


def png_of(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "expected"), [((8000, 7000), "8000 × 7000 is 56 megapixels"), ((60_000, 60_000), "far too many pixels")]
)
def test_too_many_pixels_are_refused_by_the_header(tmp_path, size, expected):
    (tmp_path / "bomb.png").write_bytes(png_of(*size))
    with pytest.raises(ImageError, match=f"^bomb.png: .*{expected}.*limit is 50 megapixels"):
        read_picture(tmp_path / "bomb.png")


def test_too_many_bytes_are_refused_before_reading(tmp_path, draw):
    path = tmp_path / "heavy.png"
    draw(40, 40).save(path)
    with open(path, "ab") as file:
        file.truncate(pictures.MAX_BYTES + 2**20)
    with pytest.raises(ImageError, match="^heavy.png: 51 MB is over the limit of 50 MB"):
        read_picture(path)


def test_a_file_that_is_gone_is_said_so(tmp_path):
    with pytest.raises(ImageError, match="^gone.png: is no longer on the server; add it again$"):
        read_picture(tmp_path / "gone.png")


def test_examples_of_a_folder(example_folder, tmp_path):
    shown = example_pictures(example_folder)
    assert list(shown) == ["first", "second", "third"] and shown["second"].size == (240, 300)
    (example_folder / "bad.png").write_text("no picture")
    with pytest.raises(ValueError, match="bad.png"):
        example_pictures(example_folder)
    with pytest.raises(ValueError, match="no such folder"):
        example_pictures(tmp_path / "nowhere")


def test_packaged_examples_start_with_a_good_and_a_spoilt_one():
    pytest.importorskip("skimage")
    shown = example_pictures()
    assert list(shown)[:2] == ["coffee", "coffee, blurred"] and "cat" in shown
    good, spoilt = (np.asarray(image, float) for image in list(shown.values())[:2])
    assert np.abs(np.diff(spoilt, axis=1)).mean() < 0.7 * np.abs(np.diff(good, axis=1)).mean()
    assert np.array_equal(good, np.asarray(load_image(pictures.packaged_photographs()["coffee"])))


def test_without_scikit_image_there_are_no_examples(monkeypatch):
    def missing() -> None:
        raise ValueError("not installed")

    monkeypatch.setattr(pictures, "packaged_photographs", missing)
    assert example_pictures() == {}
