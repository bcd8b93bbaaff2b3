"""Crops: the same from the same recipe, resumed without rework, and scored by rank among all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sind_hf.pretraining.crops import CLEAN, CropRecipe, label_crops, make_crops, plan_versions
from sind_hf.pretraining.distortions import DISTORTIONS

SMALL = CropRecipe(crops=1, ladders=1, singles=1, doubles=1, shortest=70, longest=100)


@pytest.fixture(scope="module")
def made(photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "crops"
    progress: list[tuple[int, int]] = []
    some = dict(list(photographs.items())[:4])
    assert make_crops(some, folder, SMALL, workers=2, progress=lambda *each: progress.append(each)) == {}
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return folder


def test_versions() -> None:
    recipe = CropRecipe()
    versions = list(plan_versions(recipe, np.random.default_rng(0)))
    assert versions[0].name == CLEAN and versions[0].steps == ()
    assert len(versions) == len({version.name for version in versions}) == 1 + 3 * 2 + 4 + 3
    for number in range(recipe.ladders):
        (steps,) = zip(
            *(version.steps for version in versions if version.name.startswith(f"ladder{number}")), strict=True
        )
        kinds, levels = zip(*steps, strict=True)
        assert len(set(kinds)) == 1 and list(levels) == sorted(levels)
    assert [len(version.steps) for version in versions[-3:]] == [2, 2, 2]
    drawn = [
        kind for seed in range(200) for v in plan_versions(recipe, np.random.default_rng(seed)) for kind, _ in v.steps
    ]
    assert set(drawn) == set(DISTORTIONS)
    assert all(0 < level <= 5 for v in versions for _, level in v.steps)


def test_what_is_there_is_not_made_again(made: Path, photographs: dict[str, Path], tmp_path: Path) -> None:
    some = dict(list(photographs.items())[:4])
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert len(list(made.glob("p0/*.png"))) == 6
    make_crops(some, made, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    # A kill leaves pictures without their record: they are made again, and are the same.
    (made / "p1.json").rename(tmp_path / "p1.json")
    picture = sorted(made.glob("p1/*.png"))[2]
    content = picture.read_bytes()
    picture.unlink()
    make_crops(some, made, SMALL)
    assert picture.read_bytes() == content
    assert json.loads((made / "p1.json").read_text()) == json.loads((tmp_path / "p1.json").read_text())


def test_another_recipe_is_refused(made: Path, photographs: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="crops of another recipe; choose another folder"):
        make_crops(photographs, made, CropRecipe())


def test_a_photograph_that_cannot_be_read_is_named(photographs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    files = {"p0": photographs["p0"], "bad": tmp_path / "bad.jpg"}
    failures = make_crops(files, tmp_path / "crops", SMALL)
    assert list(failures) == ["bad"] and "bad.jpg" in failures["bad"]
    with pytest.raises(ValueError, match="the crops of bad are missing"):
        label_crops(tmp_path / "crops", list(files))


def test_labels_are_ranks(made: Path) -> None:
    names = ["p0", "p1", "p2", "p3"]
    manifest, fragments = label_crops(made, names)
    assert len(manifest.entries) == 4 * 6 and fragments.shape == (24, 7, 7)
    assert {entry.scene for entry in manifest.entries} == set(names)
    scores = np.array([entry.score for entry in manifest.entries])
    clean = np.array([entry.distortion is None for entry in manifest.entries])
    assert scores[clean].tolist() == [5.0] * 4 and scores.min() == 1 and (scores[~clean] < 5).all()
    assert ((fragments >= 0) & (fragments <= 1)).all()
    assert np.corrcoef(fragments.mean((1, 2)), scores)[0, 1] > 0.7
    for picture in (json.loads((made / f"{name}.json").read_text()) for name in names):
        levels = {each["image"]: each["levels"][0] for each in picture if "ladder" in each["image"]}
        by_level = sorted(levels, key=lambda image: levels[image])
        rank = {entry.image: entry.score for entry in manifest.entries}
        assert [rank[image] for image in by_level] == sorted((rank[image] for image in by_level), reverse=True)


def test_ladders_are_scenes_on_the_scale_of_other_crops(
    made: Path, photographs: dict[str, Path], tmp_path: Path
) -> None:
    names = ["p0", "p1"]
    kinds = ("jpeg", "gaussian_blur", "white_noise")
    recipe = replace(SMALL, ladders=2, rungs=5, singles=0, doubles=0, kinds=kinds)
    make_crops({name: photographs[name] for name in names}, tmp_path, recipe)
    manifest, fragments = label_crops(tmp_path, names, among=made, part="ladders")
    assert len(manifest.entries) == len(fragments) == 2 * 2 * 5  # the crops as they are belong to no ladder
    scenes: dict[str, list[float]] = {}
    for entry in manifest.entries:
        assert entry.distortion in kinds and entry.distortion in entry.scene and entry.reference in entry.scene
        scenes.setdefault(entry.scene, []).append(entry.score)
    assert len(scenes) == 4
    assert len({scene.rsplit("-", 1)[1] for scene in scenes if scene.startswith("p0-0 ")}) == 2  # no kind twice
    for scores in scenes.values():
        assert scores == sorted(scores, reverse=True) and 1 <= scores[-1] < scores[0] <= 5
    others, _ = label_crops(tmp_path, names, among=made, part="others")
    assert {entry.distortion for entry in others.entries} == {None} and len(others.entries) == 2
    assert {entry.scene for entry in others.entries} == set(names)
    # Among themselves they are ranked as they are alone.
    alone, together = label_crops(made, names), label_crops(made, names, among=made)
    assert alone[0].entries == together[0].entries and np.array_equal(alone[1], together[1])


def test_whole_ladders_go_from_the_crop_to_the_end(photographs: dict[str, Path], tmp_path: Path) -> None:
    recipe = replace(SMALL, crops=4, rungs=4, singles=0, doubles=0, kinds=("jpeg",), levels=(0.3, 6.0), grey=0.5)
    make_crops({"p0": photographs["p0"]}, tmp_path, recipe)
    manifest, _ = label_crops(tmp_path, ["p0"], part="whole ladders")
    pictures = json.loads((tmp_path / "p0.json").read_text())
    assert len(manifest.entries) == len(pictures) == 4 * (1 + 4)
    assert [entry.scene for entry in manifest.entries] == [f"p0-{crop}" for crop in range(4) for _ in range(5)]
    grey = set()
    for first in range(0, 20, 5):
        ladder = pictures[first : first + 5]
        levels = [picture["levels"][0] for picture in ladder[1:]]
        assert ladder[0]["levels"] == [] and levels == sorted(levels) and levels[-1] == 5 and levels[-2] < 5
        scores = [entry.score for entry in manifest.entries[first : first + 5]]
        assert scores[0] == 5 and scores == sorted(scores, reverse=True)
        with Image.open(tmp_path / ladder[0]["image"]) as crop:
            assert crop.mode == "RGB"
            pixels = np.asarray(crop).astype(int)
        grey.add(bool((pixels.max(2) == pixels.min(2)).all()))
    assert grey == {True, False}


@pytest.mark.parametrize("kind", ["motion_blur", "video_like"])
def test_what_is_random_is_drawn_alike_for_all_levels_of_a_ladder(
    kind: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    # Another direction or codec at every level would make a higher level the better picture now and then.
    some = dict(list(photographs.items())[:4])
    make_crops(some, tmp_path, replace(SMALL, rungs=5, singles=0, doubles=0, kinds=(kind,)))
    for name in some:
        ladder = [each for each in json.loads((tmp_path / f"{name}.json").read_text()) if each["ladder"]]
        found = [each["indices"]["gmsd"] for each in ladder]
        assert len(found) == 5 and found == sorted(found, reverse=True)


def test_crops_keep_shape_and_bounds(made: Path) -> None:
    for path in made.glob("*/*.png"):
        with Image.open(path) as picture:
            assert 60 <= min(picture.size) <= 100
            assert max(picture.size) / min(picture.size) < 1.55
