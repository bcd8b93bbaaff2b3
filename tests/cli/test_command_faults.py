"""Faults as a user of the commands meets them: one line that names the place, and nothing spoilt."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sind_hf import Manifest
from sind_hf.files import sole_use

Lock = Callable[[Path], Path]


def one_error(answer: tuple[int, str, str], *words: str) -> None:
    code, out, err = answer
    lines = err.strip().splitlines()
    assert code == 2 and "Traceback" not in err, err
    assert len([line for line in lines if line.startswith("error: ")]) == 1 and lines[-1].startswith("error: "), err
    for word in words:
        assert word in lines[-1], err


@pytest.fixture
def commands(study: Path, training_config: Path, tiny_checkpoint: Path) -> dict[str, list[object]]:
    """Commands that write, without the place they write to."""
    manifest = study / "manifest.json"
    return {
        "score": ["score", study / "images", "-m", tiny_checkpoint, "--output"],
        "evaluate": [
            *("evaluate", "--model", tiny_checkpoint, "--manifest", manifest, "--image-root", study),
            *("--views", "center", "--output"),
        ],
        "train": ["train", "-c", training_config],
        "import": ["data", "import", study / "images.csv", "--output"],
        "prepare": ["data", "prepare", manifest, "--image-root", study, "--output"],
        "split": ["data", "split", manifest, "--protocol", "leave-one-out", "--output"],
        "plot": ["data", "stats", manifest, "--plot"],
    }


PLACES = {
    "score": "s.csv",
    "evaluate": "report.json",
    "train": "run",
    "import": "m.json",
    "prepare": "set",
    "split": "folds",
    "plot": "scenes.png",
}


def command_for(commands: dict[str, list[object]], name: str, folder: Path) -> list[object]:
    place = folder / PLACES[name]
    return [*commands[name], f"training.output_dir={place}" if name == "train" else place]


@pytest.fixture
def table(study: Path) -> None:
    entries = Manifest.load(study / "manifest.json").entries
    lines = ["image,score", *(f"{entry.image},{entry.score}" for entry in entries)]
    (study / "images.csv").write_text("\n".join(lines))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("name", PLACES)
def test_a_folder_that_is_read_only(
    run: Any, commands: dict[str, list[object]], tmp_path: Path, read_only: Lock, name: str
) -> None:
    (tmp_path / "locked").mkdir()
    locked = read_only(tmp_path / "locked")
    one_error(run(*command_for(commands, name, locked)), str(locked), "Permission denied")
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("name", ["score", "evaluate", "train", "prepare"])
def test_two_runs_never_write_to_one_place(
    run: Any, commands: dict[str, list[object]], tmp_path: Path, name: str
) -> None:
    with sole_use(tmp_path / PLACES[name]):
        one_error(run(*command_for(commands, name, tmp_path)), PLACES[name], "another run is writing there; wait")
    assert not (tmp_path / PLACES[name]).exists()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("name", ["evaluate", "import", "plot"])
def test_a_disk_that_is_full_leaves_what_was_there(
    run: Any, commands: dict[str, list[object]], tmp_path: Path, small_files: Any, name: str
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    place = folder / PLACES[name]
    place.write_text("of yesterday")
    small_files(300)
    one_error(run(*command_for(commands, name, folder)), str(place), "cannot be written (File too large)")
    small_files(1 << 40)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {place.name: "of yesterday"}


def test_folders_and_files_whose_names_are_not_utf8(
    run: Any, study: Path, training_config: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9tude"))
    shutil.copytree(study, odd)
    code, _, err = run("data", "validate", odd / "manifest.json", "--image-root", odd)
    assert code == 0, err
    code, out, err = run("score", odd / "images", "--model", tiny_checkpoint)
    assert code == 0 and len(out.splitlines()) == 24, err
    place, views = odd / os.fsdecode(b"r\xe9sultat.json"), ("--views", "center")
    images = ("--manifest", odd / "manifest.json", "--image-root", odd)
    code, _, err = run("evaluate", "--model", tiny_checkpoint, *images, *views, "--output", place)
    assert code == 0, err
    assert len(json.loads(place.read_text())["datasets"][0]["images"]) == 24
    # The tables of datasets, which training and prepared data go through, hold UTF-8 alone.
    words = r"\xe9tude: the name of this folder is not UTF-8; rename it"
    one_error(run("data", "prepare", odd / "manifest.json", "--image-root", odd, "--output", tmp_path / "set"), words)
    one_error(run("train", "-c", training_config, f"image_root={odd}"), "image_root=", "is not a YAML value")
    assert not (tmp_path / "set").exists()


def test_an_import_names_images_whose_names_are_not_utf8(run: Any, study: Path, tmp_path: Path) -> None:
    """A manifest is UTF-8, so such an image cannot be in it; the others can."""
    folder = tmp_path / "images"
    shutil.copytree(study / "images", folder)
    os.rename(folder / "00.png", folder / os.fsdecode(b"caf\xe9.png"))
    lines = [b"image,score", b"caf\xe9.png,1", *(b"%02d.png,%d" % (number, number % 5) for number in range(1, 24))]
    (folder / "scores.csv").write_bytes(b"\n".join(lines))
    code, _, err = run("data", "import", folder / "scores.csv", "--output", tmp_path / "m.json")
    assert code == 1 and len(Manifest.load(tmp_path / "m.json")) == 23
    (line,) = [line for line in err.splitlines() if "left out" in line]
    assert line.startswith("left out: row 2: image ") and "broken Unicode" in line
