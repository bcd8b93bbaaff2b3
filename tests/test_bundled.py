"""The bundled checkpoint: small, complete, usable offline, and right about what no person would doubt."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ladders import ladder, score_ladders
from safetensors.torch import load_file
from transformers import pipeline

import sind_hf
from sind_hf import SindConfig, SindImageProcessor, SindModel, bundled_checkpoint
from sind_hf.app.judge import Judge
from sind_hf.bundled import percentile, reference_scores
from sind_hf.checkpoints import load_checkpoint
from sind_hf.cli import main
from sind_hf.data.synthetic import packaged_photographs
from sind_hf.experiments.config import ModelOptions
from sind_hf.experiments.runner import build_model
from sind_hf.image_processing_sind import load_image
from sind_hf.scoring.scorer import score_images

FOLDER = Path(bundled_checkpoint())
LIMIT = 8_000_000
JSON_FILES = ("config.json", "preprocessor_config.json", "reference_scores.json")
# Photographs that no training saw: they come from another package. `--measure` of the recipe takes three more.
PHOTOGRAPHS = ("astronaut", "coffee", "rocket")
KINDS = {
    "blur": ("gaussian_blur", "lens_blur", "motion_blur", "downscaling"),
    "noise": ("white_noise", "high_iso_noise"),
    "compression": ("jpeg", "webp", "avif", "jpeg2000"),
}


def test_it_is_small_and_names_no_machine() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.is_file()}
    assert {*JSON_FILES, "README.md", "model.safetensors"} <= set(files)
    assert sum(files.values()) <= LIMIT
    for name in (*JSON_FILES, "README.md"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert "runs/" not in text.replace("runs/bundled", "") and "_name_or_path" not in text
    assert json.loads((FOLDER / "config.json").read_text())["score_range"] == [1.0, 5.0]


def test_it_loads_quickly_and_whole() -> None:
    started = time.perf_counter()
    model, processor = load_checkpoint(bundled_checkpoint(), device="cpu")
    assert time.perf_counter() - started < 10
    assert isinstance(model, SindModel) and isinstance(processor, SindImageProcessor)
    assert model.dtype == torch.float32
    stored = load_file(FOLDER / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} <= {torch.float16, torch.int64}


def test_the_command_scores_without_a_model_or_a_network(
    image_files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asks the network"))
    monkeypatch.setattr(sys, "argv", ["sind-hf", "score", *image_files, "--device", "cpu"])
    with pytest.raises(SystemExit) as end:
        main()
    done = capsys.readouterr()
    scores = [float(line.split()[0]) for line in done.out.splitlines()]
    assert end.value.code in (None, 0) and len(scores) == len(image_files) and np.isfinite(scores).all()
    assert "on the scale 1 to 5" in done.err


@pytest.fixture(scope="module")
def photographs() -> dict[str, Path]:
    pytest.importorskip("skimage", reason='needs the photographs of scikit-image: pip install "sind-hf[demo]"')
    found = packaged_photographs()
    return {name: found[name] for name in PHOTOGRAPHS}


@pytest.mark.slow
@pytest.mark.parametrize("bordered", [False, True])
@pytest.mark.parametrize("group", KINDS)
def test_more_distortion_is_a_lower_score(group: str, bordered: bool, photographs: dict[str, Path]) -> None:
    model, processor = load_checkpoint(bundled_checkpoint(), device="cpu", fused=True)
    for result in score_ladders(model, processor, photographs, KINDS[group], bordered=bordered):
        assert result.steps >= 0.9, result
        assert list(result.scores) == sorted(result.scores, reverse=True), result
        assert result.scores[0] - result.scores[-1] > 1, result


def test_the_scale_is_used_from_one_end_to_the_other(photographs: dict[str, Path]) -> None:
    model, processor = load_checkpoint(bundled_checkpoint(), device="cpu")
    images = {name: load_image(path) for name, path in photographs.items()}
    for image in images.values():
        image.thumbnail((512, 512))
    clean = model.score(list(images.values()), processor)
    ruined = [ladder(image, kind, name)[-1] for name, image in images.items() for kind in ("gaussian_blur", "jpeg")]
    assert 4 <= np.median(clean) <= 5, clean
    assert np.median(model.score(ruined, processor)) < 1.5


def test_it_looks_at_the_centered_views(photographs: dict[str, Path]) -> None:
    model, processor = load_checkpoint(bundled_checkpoint(), device="cpu")
    image = str(photographs["coffee"])
    (found,) = (row.score for row in score_images(model, processor, [image]))
    assert found == pytest.approx(model.score(image, processor, views="center")[0], abs=1e-4)
    assert found != pytest.approx(model.score(image, processor, views="nine")[0], abs=1e-4)


def test_reference_scores_tell_how_many_images_are_worse() -> None:
    scores = reference_scores()
    assert len(scores) >= 300 and list(scores) == sorted(scores)
    assert percentile(scores[0] - 1) == 0 and percentile(scores[-1] + 1) == 100
    assert percentile(float(np.median(scores))) == pytest.approx(50, abs=1)
    assert percentile(scores[0]) == pytest.approx(50 / len(scores) * scores.count(scores[0]))
    with pytest.raises(ValueError, match="NaN"):
        percentile(float("nan"))


def test_its_name_means_the_same_everywhere(image_files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asks the network"))
    expected = load_checkpoint(bundled_checkpoint(), device="cpu")[0].score(image_files[:1])
    for model in (
        SindModel.from_pretrained("bundled"),
        load_checkpoint("bundled", device="cpu")[0],
        sind_hf.load(device="cpu"),
        build_model(ModelOptions(checkpoint="bundled"), "plcc", 0)[0].eval(),
        Judge.load("bundled", device="cpu").model,
    ):
        assert model.score(image_files[:1]) == pytest.approx(expected, abs=1e-4)
    assert sind_hf.score(image_files[0]) == pytest.approx(expected[0], abs=1e-3)
    assert SindConfig.from_pretrained("bundled").score_range == [1.0, 5.0]
    processor = SindImageProcessor.from_pretrained("bundled")
    assert tuple(processor.image_mean) == tuple(SindConfig.from_pretrained("bundled").image_mean)
    pipe = pipeline("image-quality-assessment", device="cpu")
    assert pipe(image_files[0])["score"] == pytest.approx(expected[0], abs=1e-3)


def test_a_folder_of_that_name_needs_a_path(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent)
    tiny_checkpoint.rename("bundled")
    assert SindModel.from_pretrained("./bundled").config.score_range == [0, 100]
    assert SindModel.from_pretrained("bundled").config.score_range == [1, 5]


def test_where_the_package_is_not_installed_the_name_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that was downloaded with another checkpoint has no bundled one beside it."""
    monkeypatch.setattr("sind_hf.configuration_sind.__file__", str(tmp_path / "configuration_sind.py"))
    with pytest.raises(ValueError, match="part of the package sind-hf; install it"):
        SindModel.from_pretrained("bundled")


def test_the_list_of_checkpoints_has_it_with_its_facts() -> None:
    (info,) = sind_hf.list_checkpoints()
    config = SindConfig.from_pretrained(info.name)
    assert list(info.score_range) == config.score_range
    assert info.size == (FOLDER / "model.safetensors").stat().st_size
    assert "MIT" in info.license and "Apache-2.0" in info.license
    page = (Path(__file__).parents[1] / "docs" / "explanation" / "results.md").read_text(encoding="utf-8")
    assert len(info.results) >= 4
    for name, srcc in info.results.items():
        assert f"| {srcc:.3f} |" in page, name
