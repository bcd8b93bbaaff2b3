"""Scores of images as the pages show them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.app import judge as judging
from sind_hf.app.judge import Judge
from sind_hf.bundled import bundled_checkpoint
from sind_hf.scoring.scorer import score_images


def test_scores_are_the_models_and_come_in_order(judge, image_files):
    expected = judge.model.score(image_files, judge.processor)
    steps: list[tuple[int, int]] = []
    verdicts = list(judge.verdicts(image_files, progress=lambda done, of: steps.append((done, of))))
    assert [verdict.name for verdict in verdicts] == [f"image{number}.png" for number in range(5)]
    assert [verdict.score for verdict in verdicts] == pytest.approx(expected, abs=1e-4)
    assert np.ptp(expected) > 0.1
    assert steps == [(4, 5), (5, 5)]


def test_nine_views_are_used_when_asked_for(tiny_model, image_files):
    processor = SindImageProcessor()
    nine = Judge(tiny_model, processor, views="nine")
    expected = tiny_model.score(image_files[:1], processor, views="nine")
    assert next(nine.verdicts(image_files[:1])).score == pytest.approx(expected[0], abs=1e-4)


def test_a_percentile_is_the_share_of_lower_scores(judge, image_files):
    verdict = next(judge.verdicts(image_files[:1]))
    lower = sum(place + 0.5 < verdict.score for place in range(100))
    assert 0 < lower < 100 and verdict.percentile == pytest.approx(lower)


def test_a_broken_image_is_named_and_the_others_are_scored(judge, image_files, broken_file, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    files = [image_files[0], broken_file, str(tmp_path / "text.png"), str(tmp_path / "empty.png"), image_files[1]]
    verdicts = list(judge.verdicts(files))
    assert [verdict.score is None for verdict in verdicts] == [False, True, True, True, False]
    assert [verdict.error.split(":")[0] for verdict in verdicts[1:4]] == ["broken.jpg", "text.png", "empty.png"]
    assert str(tmp_path) not in " ".join(str(verdict.error) for verdict in verdicts)
    alone = [next(judge.verdicts([file])).score for file in (files[0], files[-1])]
    assert [verdicts[0].score, verdicts[-1].score] == pytest.approx(alone, abs=1e-4)


def test_images_after_slow_ones_are_passed_over(judge, image_files, monkeypatch):
    clock = iter(range(0, 1000, 15))  # every image takes 15 seconds
    monkeypatch.setattr(judging.time, "thread_time", lambda: next(clock))
    monkeypatch.setattr(judging, "read_image", lambda path: Image.new("RGB", (64, 64)))
    verdicts = list(judge.verdicts(image_files[:4]))
    assert [verdict.score is None for verdict in verdicts] == [False, False, True, True]
    assert verdicts[2].error == (
        "image2.png: not scored: the images before it were too slow to read; add it again without them"
    )


def test_a_map_is_in_points_above_or_below_the_mean_of_its_image(judge, image_files):
    verdict = next(judge.verdicts(image_files[:1]))
    raw = next(score_images(judge.model, judge.processor, image_files[:1], quality_maps=True)).quality_map
    assert verdict.quality_map.shape == (7, 7)
    assert float(verdict.quality_map.mean()) == pytest.approx(0, abs=1e-3)
    assert verdict.quality_map.max() == pytest.approx(10 * (raw.max() - raw.mean()), rel=1e-3)


def test_a_model_without_patches_makes_no_map(tiny_clip_config, image_files):
    model = SindModel(SindConfig(vision_config=tiny_clip_config, local_branch="class")).eval()
    verdict = next(Judge(model, SindImageProcessor()).verdicts(image_files[:1]))
    assert verdict.score is not None and verdict.quality_map is None and verdict.percentile is None


def test_a_nan_score_is_an_error(judge, image_files):
    judge.model.config.score_shift = float("nan")
    verdict = next(judge.verdicts(image_files[:1]))
    assert verdict.score is None and verdict.error == "image0.png: the model gave no finite score"


def test_images_of_verdicts_are_made_smaller(judge):
    verdict = next(judge.verdicts([("wide", Image.new("RGB", (800, 400), "teal"))], side=200))
    assert verdict.name == "wide" and verdict.image.size == (200, 100)


def test_a_checkpoint_has_its_own_reference(tiny_checkpoint, tmp_path):
    assert Judge.load(str(tiny_checkpoint), device="cpu").reference is None
    (tiny_checkpoint / "reference_scores.csv").write_text("image,score,error\na.jpg,1,\nb.jpg,3,\n")
    own = Judge.load(str(tiny_checkpoint), device="cpu")
    assert len(own.reference) == 2 and own.name.endswith("/checkpoint") and own.name.count("/") == 1
    (tmp_path / "other.csv").write_text("image,score,error\na.jpg,1,\n")
    other = Judge.load(str(tiny_checkpoint), reference=tmp_path / "other.csv", name="mine", device="cpu")
    assert len(other.reference) == 1 and other.name == "mine"


def test_memory_holds_few_images_at_once(judge, image_files, monkeypatch):
    """Images are read when verdicts are asked for, not all before the first."""
    read: list[str] = []
    real = judging.read_image
    monkeypatch.setattr(judging, "read_image", lambda path: (read.append(path), real(path))[1])
    verdicts = judge.verdicts(image_files)
    next(verdicts)
    assert read == image_files[: judging.CHUNK]


def test_large_images_are_held_one_at_a_time(judge, image_files, monkeypatch):
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(judging, "MAX_PIXELS", 320 * 240)  # the size of the first image
    verdicts = judge.verdicts(image_files[:3], progress=lambda done, of: steps.append((done, of)))
    assert len(list(verdicts)) == 3 and steps == [(1, 3), (2, 3), (3, 3)]


def test_a_copy_of_the_bundled_checkpoint_is_known(tmp_path):
    assert judging._is_bundled(bundled_checkpoint()) and not judging._is_bundled(str(tmp_path))
    shutil.copyfile(f"{bundled_checkpoint()}/config.json", tmp_path / "config.json")
    assert judging._is_bundled(str(tmp_path))


def test_an_exported_file_judges_as_its_checkpoint_does(exported, image_files):
    case = exported("clip")
    by_file, by_checkpoint = (Judge.load(str(path), device="cpu") for path in (case.path, case.folder))
    assert by_file.name == "sind.onnx" and by_file.reference is None
    for found, expected in zip(by_file.verdicts(image_files), by_checkpoint.verdicts(image_files), strict=True):
        assert found.score == pytest.approx(expected.score, abs=1e-4)
        np.testing.assert_allclose(found.quality_map, expected.quality_map, rtol=0, atol=1e-3)
