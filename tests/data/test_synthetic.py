from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.synthetic import DISTORTIONS, PhotographWarning, grade, packaged_photographs

SMALL = {"crops": 1, "size": 64, "kinds": ["jpeg", "white_noise"]}


def textured(size: tuple[int, int], cells: tuple[int, ...] = (4, 12, 40, 160), seed: int = 0) -> Image.Image:
    """Structure at several scales, so that blur, noise and compression all change it."""
    rng = np.random.default_rng(seed)
    grids = [Image.fromarray(rng.integers(0, 256, (count, count, 3), dtype=np.uint8)) for count in cells]
    layers = [np.asarray(grid.resize(size, Image.Resampling.BICUBIC), np.float32) for grid in grids]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def write_photograph(path: Path, seed: int, size: tuple[int, int] = (120, 90), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    textured(size, (4, 12, 40), seed).save(path, **options)
    return path


@pytest.fixture
def photographs(tmp_path) -> dict[str, Path]:
    return {
        name: write_photograph(tmp_path / "in" / f"{name}.png", seed) for seed, name in enumerate(["sea", "street"])
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_packaged_photographs_are_real_files_in_the_wheel():
    pytest.importorskip("skimage")
    found = packaged_photographs()
    assert len(found) >= 12
    assert list(found) == sorted(found)
    for path in found.values():
        with Image.open(path) as image:
            assert min(image.size) >= 300


def test_without_scikit_image_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "sind-hf\[demo\]"'):
        packaged_photographs()


def test_a_set_holds_every_crop_kind_and_level(photographs, tmp_path):
    calls = []
    manifest = grade(
        photographs,
        tmp_path / "out",
        size=64,
        crops=2,
        levels=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    per_scene = 2 * (1 + len(DISTORTIONS) * 3)
    assert len(manifest.entries) == len({entry.image for entry in manifest.entries}) == 2 * per_scene
    assert calls == [(i + 1, 2 * per_scene) for i in range(2 * per_scene)]
    for entry in manifest.entries:
        with Image.open(tmp_path / "out" / entry.image) as image:
            assert (image.size, image.format) == ((64, 64), "PNG")
        assert entry.image.startswith(f"images/{entry.scene}/")
        assert manifest.domain_names[entry.domain_id] == entry.scene
    sea = [entry for entry in manifest.entries if entry.scene == "sea"]
    assert {entry.reference for entry in sea} == {"sea-0", "sea-1"}
    assert sum(entry.distortion is None for entry in sea) == 2
    assert {entry.distortion for entry in sea} == {None, *DISTORTIONS}
    assert min(manifest.domain_names) >= 10_000  # no dataset of the catalog has such ids
    assert manifest.reference_based
    assert manifest.score.higher_is_better
    assert tuple(manifest.score.range) == (1, 5)
    assert "synthetic" in manifest.source
    loaded = Manifest.load(tmp_path / "out" / "manifest.json")
    assert [(e.image, e.score) for e in loaded.entries] == [(e.image, e.score) for e in manifest.entries]


def test_scores_fall_with_every_level_and_scenes_differ_in_scale_and_shift(tmp_path):
    path = write_photograph(tmp_path / "in.png", 0)
    scenes = {f"scene{i:02d}": path for i in range(12)}
    manifest = grade(scenes, tmp_path / "out", size=64, crops=2, kinds=["contrast_loss", "overexposure"], seed=3)
    assert all(1 <= entry.score <= 5 for entry in manifest.entries)
    tops, spans = [], []
    for scene in scenes:
        entries = {
            entry.image.rsplit("/", 1)[1].removesuffix(".png"): entry.score
            for entry in manifest.entries
            if entry.scene == scene
        }
        for crop in (0, 1):
            for kind in ("contrast_loss", "overexposure"):
                fall = [entries[f"{crop}-clean"], *(entries[f"{crop}-{kind}-{level}"] for level in range(1, 6))]
                assert fall == sorted(set(fall), reverse=True)
        tops.append(max(entries.values()))
        spans.append(max(entries.values()) - min(entries.values()))
    assert min(spans) < 1.8 and max(spans) > 2.8  # 0.9 of a scale between 1.2 and 4
    assert max(tops) - min(tops) > 0.8


def test_crops_of_a_photograph_differ(photographs, tmp_path):
    grade({"sea": photographs["sea"]}, tmp_path / "out", size=64, crops=3, kinds=[], levels=1)
    assert len({path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}) == 3


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(photographs, tmp_path):
    first = grade(photographs, tmp_path / "a", **SMALL)
    # The order of the photographs and what else is in the set make no difference.
    swapped = {name: photographs[name] for name in ("street", "sea")}
    assert grade(swapped, tmp_path / "b", **SMALL) == first
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    alone = grade({"street": photographs["street"]}, tmp_path / "c", **SMALL | {"kinds": ["white_noise"]})
    bytes_a, bytes_c = contents(tmp_path / "a"), contents(tmp_path / "c")
    scores = {entry.image: entry.score for entry in first.entries}
    assert len(alone.entries) == 6
    for entry in alone.entries:
        assert scores[entry.image] == entry.score
        assert bytes_a[entry.image] == bytes_c[entry.image]
    other = grade(photographs, tmp_path / "d", **SMALL, seed=1)
    assert [entry.score for entry in other.entries] != [entry.score for entry in first.entries]
    name = "images/sea/0-white_noise-3.png"
    assert contents(tmp_path / "d")[name] != bytes_a[name]


def test_a_complete_set_is_reused_and_an_interrupted_one_completed(photographs, tmp_path):
    out = tmp_path / "out"
    first = grade(photographs, out, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    calls = []
    assert grade(photographs, out, **SMALL, progress=lambda *now: calls.append(now)).entries == first.entries
    assert not calls
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before

    whole = contents(out)
    (out / "manifest.json").unlink()
    (out / "images/sea/0-jpeg-2.png").unlink()
    grade(photographs, out, **SMALL)
    assert contents(out) == whole
    (out / "images/sea/0-jpeg-2.png").unlink()
    grade(photographs, out, **SMALL)
    assert contents(out) == whole


def test_an_interruption_leaves_no_manifest(photographs, tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade(photographs, tmp_path / "out", **SMALL, progress=interrupt)
    assert not (tmp_path / "out/manifest.json").exists()
    grade(photographs, tmp_path / "out", **SMALL)
    grade(photographs, tmp_path / "fresh", **SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("change", "named"), [({"seed": 1}, "seed"), ({"size": 70}, "size"), ({"kinds": ["jpeg"]}, "kinds")]
)
def test_other_settings_in_the_same_folder_are_refused(photographs, tmp_path, change, named):
    grade(photographs, tmp_path / "out", **SMALL)
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=f"other {named} .*choose another output folder") as caught:
        grade(photographs, tmp_path / "out", **SMALL | change)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_changed_photographs_in_the_same_folder_are_refused(photographs, tmp_path):
    grade(photographs, tmp_path / "out", **SMALL)
    write_photograph(photographs["sea"], 77)
    with pytest.raises(ValueError, match="other photographs"):
        grade(photographs, tmp_path / "out", **SMALL)


@pytest.mark.parametrize("name", ["holiday.txt", "grading.json"])
def test_a_folder_with_other_content_is_left_alone(photographs, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    with pytest.raises(ValueError, match="choose another output folder"):
        grade(photographs, out, **SMALL)
    assert contents(out) == {name: b"precious"}


def test_unreadable_photographs_are_named_and_the_others_done(tmp_path):
    folder = tmp_path / "in"
    write_photograph(folder / "good.jpg", 0)
    (folder / "broken.jpg").write_bytes(b"no image")
    write_photograph(folder / "cut.png", 1)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:3000])
    write_photograph(folder / "tiny.png", 2, (30, 30))
    (folder / "notes.txt").write_text("not a photograph")
    write_photograph(folder / ".hidden.png", 3)
    for _ in range(2):  # made, then reused
        with pytest.warns(PhotographWarning) as caught:
            manifest = grade(folder, tmp_path / "out", **SMALL)
        messages = [str(warning.message) for warning in caught]
        assert len(messages) == 3
        assert "'broken'" in messages[0] and "not an image in a supported format" in messages[0]
        assert "'cut'" in messages[1]
        assert "'tiny'" in messages[2] and "30x30 pixels are too few" in messages[2]
        assert {entry.scene for entry in manifest.entries} == set(manifest.domain_names.values()) == {"good"}
    assert set(json.loads((tmp_path / "out/grading.json").read_text())["left_out"]) == {"broken", "cut", "tiny"}


def test_nothing_usable_is_an_error_that_leaves_the_folder_free(photographs, tmp_path):
    missing = tmp_path / "missing.jpg"
    with pytest.warns(PhotographWarning), pytest.raises(ValueError, match="none of the 1 photographs .*no such file"):
        grade({"gone": missing}, tmp_path / "out", **SMALL)
    assert grade(photographs, tmp_path / "out", **SMALL).entries


def test_photographs_are_upright_and_transparency_is_white(tmp_path):
    gray = np.full((100, 100, 4), 255, np.uint8)
    gray[..., :3] = 40
    gray[:50, :, 3] = 0  # the upper half is transparent
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    (tmp_path / "in").mkdir()
    Image.fromarray(gray).save(tmp_path / "in/a.png", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grade(tmp_path / "in", tmp_path / "out", size=64, crops=1, kinds=[])
    clean = np.asarray(Image.open(tmp_path / "out/images/a/0-clean.png"))
    assert (clean[0] == 40).all()
    assert (clean[-1] == 255).all()


def test_files_with_the_same_stem_become_two_scenes(tmp_path):
    write_photograph(tmp_path / "in/a.jpg", 0)
    write_photograph(tmp_path / "in/a.png", 1)
    manifest = grade(tmp_path / "in", tmp_path / "out", **SMALL)
    assert list(manifest.domain_names.values()) == ["a.jpg", "a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ["gausian_blur"]}, "did you mean 'gaussian_blur'"),
        ({"levels": 6}, "levels is 6; give at least 1 and at most 5"),
        ({"levels": 0}, "levels is 0"),
        ({"crops": 0}, "crops is 0"),
        ({"size": 10}, "size is 10"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused(photographs, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        grade(photographs, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "c:\\x"])
def test_names_that_are_not_folder_names_are_refused(photographs, tmp_path, name):
    with pytest.raises(ValueError, match="cannot be a scene"):
        grade({name: photographs["sea"]}, tmp_path / "out", **SMALL)


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no photographs"):
        grade(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="is not a folder"):
        grade(tmp_path / "none", tmp_path / "out")


def test_scenes_and_crops_get_noise_of_their_own(tmp_path):
    Image.new("RGB", (100, 100), (128, 128, 128)).save(tmp_path / "gray.png")
    scenes = {"a": tmp_path / "gray.png", "b": tmp_path / "gray.png"}
    grade(scenes, tmp_path / "out", size=64, crops=2, kinds=["white_noise"], levels=1)
    assert len({path.read_bytes() for path in (tmp_path / "out").rglob("*-white_noise-1.png")}) == 4


def test_the_committed_manifest_is_what_grading_makes(tmp_path):
    """Entries depend on the names of the photographs only, so small images of anything will do."""
    committed = Manifest.load(Path(__file__).parents[2] / "data_json/graded/all.json")
    names = list(committed.domain_names.values())
    with (Path(__file__).parents[2] / "data_json/graded/all.json").open() as file:
        assert len(json.load(file)["files"]) == len(committed) == 1008
    if importlib.util.find_spec("skimage") is not None:
        assert names == list(packaged_photographs())
    write_photograph(tmp_path / "any.png", 0)
    assert grade(dict.fromkeys(names, tmp_path / "any.png"), tmp_path / "out", size=64) == committed


@pytest.mark.parametrize("size", [(100, 64), (384, 500)])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_every_level_changes_the_image_more_than_the_one_before(kind, size):
    image = textured(size)
    before = image.tobytes()
    errors = []
    for level in range(1, 6):
        out = DISTORTIONS[kind](image, level, np.random.default_rng(0))
        assert (out.size, out.mode) == (image.size, "RGB")
        errors.append(float(np.mean((np.asarray(out, np.float64) - np.asarray(image, np.float64)) ** 2)))
    assert errors[0] > 0
    assert all(later > 1.1 * earlier for earlier, later in zip(errors, errors[1:], strict=False)), errors
    assert image.tobytes() == before


@pytest.mark.parametrize("kind", ["gaussian_blur", "motion_blur", "downscaling"])
def test_blurs_reach_as_far_relative_to_the_image_whatever_its_size(kind):
    def edge_width(side: int) -> float:
        """Share of the image over which a vertical edge is smeared, averaged over random directions."""
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[:, side // 2 :] = 255
        shares = []
        for seed in range(8):
            out = DISTORTIONS[kind](Image.fromarray(pixels), 5, np.random.default_rng(seed))
            row = np.asarray(out, np.float64)[side // 2, :, 0]
            shares.append(np.count_nonzero((row > 20) & (row < 235)) / side)
        return float(np.mean(shares))

    assert edge_width(384) == pytest.approx(edge_width(768), rel=0.25)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_generator_alone_decides_what_is_random(kind):
    image = textured((80, 80))
    first, again, other = (DISTORTIONS[kind](image, 4, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2))
    assert first == again
    assert (first != other) == (kind in {"white_noise", "motion_blur"})


def test_noise_has_the_same_strength_in_every_channel_and_no_drift():
    gray = Image.new("RGB", (128, 128), (128, 128, 128))
    noise = np.asarray(DISTORTIONS["white_noise"](gray, 2, np.random.default_rng(0)), np.float64) - 128
    assert np.abs(noise.mean(axis=(0, 1))).max() < 0.6
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 17, rtol=0.03)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T)[np.triu_indices(3, 1)]).max() < 0.05


def test_contrast_loss_keeps_the_mean_and_overexposure_burns_out():
    image = textured((96, 96))
    mean = np.asarray(image, np.float64).mean()
    flat = np.asarray(DISTORTIONS["contrast_loss"](image, 5, np.random.default_rng(0)), np.float64)
    assert flat.mean() == pytest.approx(mean, abs=4)
    assert flat.std() == pytest.approx(0.23 * np.asarray(image, np.float64).std(), rel=0.1)
    bright = np.asarray(DISTORTIONS["overexposure"](image, 5, np.random.default_rng(0)))
    assert (bright == 255).mean() > 0.2
