"""A file is replaced whole, or stays what it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sind_hf.experiments.evaluation import write_json
from sind_hf.whole_files import reason, write_text, written_file


def only(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.txt"
    write_text(path, "old")
    with written_file(path) as temporary:
        temporary.write_text("né", encoding="utf-8")
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "né"
    with pytest.raises(KeyboardInterrupt), written_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert only(path.parent) == {"report.txt": "né"}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, small_files) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"srcc": 0.5})
    before = only(tmp_path)
    small_files(1000)
    with pytest.raises(ValueError, match=r"report\.json: cannot be written \(File too large\); make room") as error:
        write_json(path, {"predictions": list(range(10_000))})
    assert "\n" not in str(error.value) and only(tmp_path) == before


def test_a_folder_that_is_read_only_is_named(tmp_path: Path, read_only) -> None:
    (tmp_path / "kept.txt").write_text("old")
    read_only(tmp_path)
    with pytest.raises(ValueError, match=r"kept\.txt: cannot be written \(Permission denied\)"):
        write_text(tmp_path / "kept.txt", "new")
    assert only(tmp_path) == {"kept.txt": "old"}


def test_a_full_disk_is_called_one() -> None:
    assert reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/path")) == "the disk is full"
    assert reason(OSError("half\na line")) == "half a line"
