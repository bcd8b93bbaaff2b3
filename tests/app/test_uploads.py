"""Images that a page is given: uploads within limits, and examples."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sind_hf.app import uploads
from sind_hf.app.uploads import PACKAGED_EXAMPLES, example_images, read_image, readable_formats
from sind_hf.image_processing_sind import ImageError, load_image


def test_an_image_is_read_upright(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(60, 40).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (40, 60)


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
        read_image(tmp_path / "bomb.png")


def test_too_many_bytes_are_refused_before_reading(tmp_path, draw):
    path = tmp_path / "heavy.png"
    draw(40, 40).save(path)
    with open(path, "ab") as file:
        file.truncate(uploads.MAX_BYTES + 2**20)
    with pytest.raises(ImageError, match="^heavy.png: 51 MB is over the limit of 50 MB"):
        read_image(path)


def test_a_deleted_file_is_named(tmp_path):
    with pytest.raises(ImageError, match="^gone.png: is no longer on the server; add it again$"):
        read_image(tmp_path / "gone.png")


def test_a_file_in_an_unknown_format_gets_the_list_of_formats(tmp_path):
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(
        ImageError, match=r"^notes.png: not an image that this page reads; it reads JPEG, PNG, .* and BMP$"
    ):
        read_image(tmp_path / "notes.png")
    assert ("HEIC" in readable_formats()) == ("HEIF" in Image.OPEN)


def test_examples_of_a_folder_are_named_after_their_files(example_folder, tmp_path):
    shown = example_images(example_folder)
    assert [example.name for example in shown] == ["first", "second", "third"]
    assert shown[1].image.size == (240, 300)
    (example_folder / "bad.png").write_text("not an image")
    with pytest.raises(ValueError, match="bad.png"):
        example_images(example_folder)
    with pytest.raises(ValueError, match="no such folder"):
        example_images(tmp_path / "nowhere")


def test_six_packaged_examples_have_labels_texts_and_the_distortions_of_their_labels():
    pytest.importorskip("skimage")
    shown = example_images()
    assert [example.name for example in shown] == [label for _, label, _, _ in PACKAGED_EXAMPLES]
    assert len({example.alt for example in shown}) == len({file for file, *_ in PACKAGED_EXAMPLES}) == 6
    for example, (file, _, _, distortion) in zip(shown, PACKAGED_EXAMPLES, strict=True):
        original = np.asarray(load_image(uploads.packaged_photographs()[file]), float)
        found = np.asarray(example.image, float)
        assert np.array_equal(found, original) == (distortion is None), example.name
    blurred = np.asarray(shown[3].image, float)
    original = np.asarray(load_image(uploads.packaged_photographs()["astronaut"]), float)
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.7 * np.abs(np.diff(original, axis=1)).mean()


def test_without_scikit_image_there_are_no_examples(monkeypatch):
    def missing() -> None:
        raise ValueError("not installed")

    monkeypatch.setattr(uploads, "packaged_photographs", missing)
    assert example_images() == []
