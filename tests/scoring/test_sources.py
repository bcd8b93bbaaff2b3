from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sind_hf.scoring.images import Unusable
from sind_hf.scoring.sources import list_images, open_sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made in an order that is not the sorted one."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/z.png", "b/a.JPG", "a/c/deep.webp", "a/z.jpeg", "c.bmp", "a.tiff", "b.txt", "b/notes.md", "d.pdf"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path / "photos"


def test_a_folder_is_all_its_images_sorted(tree: Path) -> None:
    expected = ["a.tiff", "c.bmp", "a/z.jpeg", "a/c/deep.webp", "b/a.JPG", "b/z.png"]
    assert list(list_images(["photos"])) == [f"photos/{name}" for name in expected]
    assert list(list_images([tree])) == [str(tree / name) for name in expected]


def test_the_order_does_not_come_from_the_file_system(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(list_images([tree]))
    scandir = os.scandir

    @contextmanager
    def backwards(top: str) -> Iterator[object]:
        with scandir(top) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr("os.scandir", backwards)
    assert list(list_images([tree])) == expected


def test_what_a_folder_passes_over_is_named(tree: Path) -> None:
    """Images in formats that are not read, and links to folders that hold this one."""
    unread = ["b/a.AVCI", "b/b.jxr", "a/c.dng", "a/d.CR3", "e.svg"]
    for name in unread:
        (tree / name).write_bytes(b"")
    (tree / "loop").symlink_to(tree)
    (tree / "a" / "disk").symlink_to("/")
    found = list(open_sources(["photos"]))
    reasons = {image.name: image.source.reason for image in found if isinstance(image.source, Unusable)}
    assert set(reasons) == {f"photos/{name}" for name in (*unread, "loop", "a/disk")}
    assert reasons["photos/b/a.AVCI"].startswith("photos/b/a.AVCI: AVC images are not read")
    assert reasons["photos/loop"].startswith("photos/loop: is a link to a folder that holds this one")
    assert [image.name for image in found if image.name not in reasons] == list(list_images(["photos"]))
    Path("only").mkdir()
    Path("only/a.bpg").write_bytes(b"")
    (only,) = open_sources(["only"])
    assert isinstance(only.source, Unusable)


def test_linked_folders_are_followed_once_and_last(tree: Path) -> None:
    """A folder that has a name of its own goes by it; circles end."""
    disk = tree.parent / "disk"
    (disk / "deep").mkdir(parents=True)
    (disk / "deep" / "x.png").write_bytes(b"")
    (disk / "deep" / "back").symlink_to(disk)
    (tree / "2024").symlink_to(disk)
    (tree / "2025").symlink_to(disk)
    (tree / "_b").symlink_to(tree / "b")
    expected = ["a.tiff", "c.bmp", "a/z.jpeg", "a/c/deep.webp", "b/a.JPG", "b/z.png", "2024/deep/x.png"]
    assert [image.source for image in open_sources(["photos"])] == [f"photos/{name}" for name in expected]


def test_patterns_are_expanded_as_a_shell_does(tree: Path) -> None:
    assert list(list_images(["photos/b/*.[pJ]*"])) == ["photos/b/a.JPG", "photos/b/z.png"]
    assert list(list_images(["photos/**/*.webp", "ph?tos/a"])) == [
        *("photos/a/c/deep.webp", "photos/a/z.jpeg", "photos/a/c/deep.webp")
    ]
    assert list(list_images(["photos/*.gone", "https://host/*.jpg"])) == ["photos/*.gone", "https://host/*.jpg"]
    (tree / "x[1].png").write_bytes(b"")  # the name of a file, not a pattern
    assert list(list_images(["photos/x[1].png"])) == ["photos/x[1].png"]


def test_a_folder_may_be_deeper_than_calls_or_paths_may(tree: Path) -> None:
    deep, here = tree / "deep", os.getcwd()
    deep.mkdir()
    try:
        os.chdir(deep)
        for _ in range(1500):  # as no path could name it
            os.mkdir("abc")
            os.chdir("abc")
    finally:
        os.chdir(here)
    try:
        last = list(open_sources([tree]))[-1]
    finally:
        subprocess.run(["rm", "-rf", deep], check=True)  # rmtree of Python calls itself for every folder
    assert isinstance(last.source, Unusable) and "cannot be read (File name too long)" in last.source.reason
    assert len(last.source.reason) < 500


def test_paths_keep_their_order_and_need_not_exist(tree: Path) -> None:
    named = ["photos/c.bmp", "gone.jpg", "photos/a", "no_extension", "photos/d.pdf"]
    expected = ["photos/c.bmp", "gone.jpg", "photos/a/z.jpeg", "photos/a/c/deep.webp", "no_extension", "photos/d.pdf"]
    assert list(list_images(named)) == expected


def test_addresses_stay_as_they_are(tree: Path) -> None:
    assert list(list_images(["https://host/a//b.jpg?x=1.txt"])) == ["https://host/a//b.jpg?x=1.txt"]


def test_a_list_names_one_image_a_line(tree: Path) -> None:
    text = "\ufeffphotos/c.bmp\r\n\n  with space.jpg  \nhttps://host/a.jpg\n/absolute.png"
    Path("mine.TXT").write_bytes(text.encode())
    expected = ["photos/c.bmp", "with space.jpg", "https://host/a.jpg", "/absolute.png"]
    assert list(list_images(["mine.TXT"])) == expected


def test_names_that_are_not_utf8(tree: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tree / "b" / name).write_bytes(b"")
    Path("list.txt").write_bytes(b"photos/b/caf\xe9.jpg\n")
    assert f"photos/b/{name}" in list(list_images(["photos/b"]))
    (from_list,) = list_images(["list.txt"])
    assert from_list == f"photos/b/{name}" and os.path.exists(from_list)


def test_what_cannot_be_listed_is_named(tree: Path) -> None:
    Path("empty/below").mkdir(parents=True)
    Path("empty/note.txt").write_text("x")
    with pytest.raises(ValueError, match="^empty: no images in this folder"):
        list(list_images(["photos", "empty"]))
    with pytest.raises(ValueError, match=r"gone\.txt: cannot read this list of images \(No such file"):
        list(list_images(["gone.txt"]))
