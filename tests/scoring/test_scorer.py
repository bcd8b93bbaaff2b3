from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.scoring.scorer import ScoredImage, score_images


@pytest.fixture
def mixed(image_files: list[str], tmp_path: Path) -> list[str]:
    """Good images with bad ones at the front, in the middle, side by side and at the end."""
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    one, two, three, four, five = image_files
    gone = str(tmp_path / "gone.jpg")
    return [gone, one, two, str(tmp_path / "text.jpg"), str(tmp_path / "empty.png"), three, four, five, gone]


def run(model: SindModel, images: Any, **options: Any) -> list[ScoredImage]:
    return list(score_images(model, SindImageProcessor(), images, **options))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_results_come_in_order_and_bad_images_stop_nothing(
    tiny_model: SindModel, mixed: list[str], image_files: list[str], batch_size: int, workers: int
) -> None:
    found = run(tiny_model, mixed, batch_size=batch_size, workers=workers)
    assert [row.image for row in found] == mixed
    assert [row.score is None for row in found] == [True, False, False, True, True, False, False, False, True]
    for row in found:
        assert (row.error is None) == (row.score is not None)
        assert row.error is None or (Path(row.image).name in row.error and "\n" not in row.error)
    assert "no such file" in str(found[0].error) and "is empty" in str(found[4].error)
    expected = tiny_model.score(image_files, SindImageProcessor())
    assert [row.score for row in found if row.score is not None] == pytest.approx(expected, rel=1e-5)


def test_batches_of_bad_images_only(tiny_model: SindModel, tmp_path: Path, image_files: list[str]) -> None:
    bad = [str(tmp_path / f"gone{i}.jpg") for i in range(4)]
    found = run(tiny_model, [*bad, image_files[0]], batch_size=2)
    assert [row.image for row in found] == [*bad, image_files[0]]
    assert [row.score is None for row in found] == [True] * 4 + [False]
    assert run(tiny_model, []) == []


@pytest.mark.parametrize("views", ["center", "nine"])
def test_views_and_maps_are_those_of_the_model(tiny_model: SindModel, image_files: list[str], views: Any) -> None:
    inputs = SindImageProcessor()(image_files[:3], views=views, return_tensors="pt")
    with torch.inference_mode():
        expected = tiny_model(**inputs, output_quality_map=True)
    found = run(tiny_model, image_files[:3], views=views, batch_size=2, quality_maps=True)
    for row, image in enumerate(found):
        assert image.score == pytest.approx(expected.quality[row].item(), rel=1e-5)
        assert image.quality_map is not None and image.quality_map.dtype == np.float32
        np.testing.assert_allclose(image.quality_map, expected.quality_map[row].numpy(), rtol=1e-3, atol=1e-4)
    assert run(tiny_model, image_files[:1])[0].quality_map is None


def test_views_that_were_trained_with_another_size_and_backend(tiny_resnet_config: dict[str, Any], draw: Any) -> None:
    model = SindModel(SindConfig(vision_config=tiny_resnet_config, view_size=112, initializer_range=1.0)).eval()
    processor = SindImageProcessor(size=112, resize_backend="pillow")
    (found,) = score_images(model, processor, [draw(320, 240)])
    with torch.inference_mode():
        expected = model(**processor(draw(320, 240), return_tensors="pt")).quality.item()
    assert found.score == pytest.approx(expected, rel=1e-4)


def test_images_in_other_forms_have_a_name(tiny_model: SindModel, image_files: list[str]) -> None:
    file = image_files[0]
    content = Path(file).read_bytes()
    images: list[Any] = [Path(file), content, {"path": file, "bytes": None}, {"bytes": content}]
    images += [np.asarray(Image.open(file)), {"path": "shown.png", "bytes": content}]
    found = run(tiny_model, images)
    assert [row.image for row in found] == [file, "bytes", file, "bytes", "ndarray", "shown.png"]
    assert [row.score for row in found] == pytest.approx([found[0].score] * 6)


def test_a_score_that_is_not_a_number_is_an_error(tiny_model: SindModel, image_files: list[str]) -> None:
    torch.nn.init.constant_(tiny_model.quality_head.bias, math.nan)
    for row in run(tiny_model, image_files[:2], quality_maps=True):
        assert row.score is None and row.quality_map is None
        assert row.error == f"{row.image}: the model's score is nan"


def test_maps_of_a_variant_without_them(tiny_clip_config: dict[str, Any], image_files: list[str]) -> None:
    model = SindModel(SindConfig(vision_config=tiny_clip_config, local_branch="class")).eval()
    with pytest.raises(ValueError, match="No quality map: local_branch='class'"):
        run(model, image_files, quality_maps=True)
    assert all(row.score is not None for row in run(model, image_files[:1]))
