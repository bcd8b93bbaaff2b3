from __future__ import annotations

import os
from pathlib import Path

import pytest

from sind_hf.scoring import selection as module
from sind_hf.scoring.scorer import ScoredImage
from sind_hf.scoring.selection import Selection, common_folder, place_files

ROWS = [ScoredImage(name, score) for name, score in zip("abcde", (2.0, 5.0, None, 2.0, 3.0), strict=True)]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), "abcde"),
        (Selection(sort=True), "beadc"),
        (Selection(min_score=2.0), "abde"),
        (Selection(min_score=2.5, sort=True), "be"),
        (Selection(top=3), "bea"),
        (Selection(top=9), "bead"),
        (Selection(min_score=2.5, top=1), "b"),
        (Selection(min_score=-1.0), "abde"),
    ],
)
def test_what_is_chosen_and_in_which_order(selection: Selection, expected: str) -> None:
    assert "".join(row.image for row in selection.choose(ROWS)) == expected


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    files = [tmp_path / "photos" / name for name in ("1.jpg", "a/1.jpg", "b/1.jpg")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"image {number}")
    return [str(file) for file in files]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


ALL = {"1.jpg": "image 0", "a/1.jpg": "image 1", "b/1.jpg": "image 2"}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("move", [True, False])
def test_files_keep_their_paths_and_are_placed_once(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: bool, links: bool
) -> None:
    if not links:  # as on another disk, or where the file system has none
        monkeypatch.setattr(module, "_link", lambda source, target: False)
    good, base = tmp_path / "photos" / "good", common_folder(photos)
    assert list(place_files(photos, good, base, move=move)) == [None] * 3
    assert contents(good) == ALL
    assert [os.path.exists(photo) for photo in photos] == [not move] * 3
    # A second run finds the files in place: those that it copied, and those in the folder itself.
    again = [*map(str, good.rglob("*.jpg")), *([] if move else photos)]
    assert set(place_files(again, good, base, move=move)) == {None}
    assert contents(good) == ALL


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("move", [True, False])
def test_nothing_is_overwritten(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: bool, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(module, "_link", lambda source, target: False)
    folder = tmp_path / "out"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.jpg").write_text("of somebody else")
    found = list(place_files([*photos, "https://host/x.jpg"], folder, common_folder(photos), move=move))
    assert [line is None for line in found] == [True, False, True, False]
    assert str(found[1]).endswith(f"{folder}/a/1.jpg is another file, which is not overwritten")
    assert str(found[3]).startswith("https://host/x.jpg: cannot be put at")
    assert contents(folder) == ALL | {"a/1.jpg": "of somebody else"}
    assert os.path.exists(photos[1])


def test_a_moved_link_leaves_its_target(photos: list[str], tmp_path: Path) -> None:
    link = tmp_path / "photos" / "link.jpg"
    link.symlink_to("a/1.jpg")  # would lead elsewhere from another folder
    assert list(place_files([str(link)], tmp_path / "bad", str(link.parent), move=True)) == [None]
    assert contents(tmp_path / "bad") == {"link.jpg": "image 1"} and not link.is_symlink()
    assert os.path.exists(photos[1])


def test_a_copy_that_fails_leaves_nothing(photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        Path(target).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    (line,) = place_files(photos[:1], tmp_path / "good", common_folder(photos))
    assert "the disk is full" in str(line) and contents(tmp_path / "good") == {}
