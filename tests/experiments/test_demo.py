"""The demonstration on fewer images, in three steps; `make demo` runs all of it."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from transformers import TrainerCallback

from sind_hf import SindImageProcessor, SindModel, bundled_checkpoint
from sind_hf.data.synthetic import grade, packaged_photographs
from sind_hf.experiments import demo

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_committed_configuration_is_that_of_the_demonstration():
    assert yaml.safe_load((CONFIGS / "demo.yaml").read_text()) == demo.DEMO


def test_both_trainings_differ_only_in_the_loss(tmp_path):
    aligned, plain = (demo.demo_config(tmp_path, loss).source for loss in demo.LOSSES)
    assert (aligned["training"].pop("loss_type"), plain["training"].pop("loss_type")) == ("plcc", "l1")
    assert aligned["training"].pop("output_dir") != plain["training"].pop("output_dir")
    aligned.pop("experiment")
    plain.pop("experiment")
    assert aligned == plain


@pytest.mark.slow
def test_every_output_is_made(tmp_path, monkeypatch):
    training = {**demo.DEMO["training"], "max_steps": 3, "dataloader_num_workers": 0, "calibration_images": 8}
    monkeypatch.setattr(demo, "DEMO", {**demo.DEMO, "training": training})
    names = [*demo.HELD_OUT, "astronaut", "coins", "retina", "moon"]
    photographs = {name: path for name, path in packaged_photographs().items() if name in names}
    monkeypatch.setattr(demo, "packaged_photographs", lambda: photographs)
    kinds = ["gaussian_blur", "white_noise"]
    monkeypatch.setattr(
        demo, "grade", lambda *args, crops, progress: grade(*args, kinds=kinds, crops=1, size=128, progress=progress)
    )
    stages: list[str] = []

    @contextmanager
    def stage(title: str):
        stages.append(title)
        yield lambda done, total: None

    (tmp_path / "out/model").mkdir(parents=True)  # left by an interrupted run
    (tmp_path / "out/model/results.json").write_text("{}")
    (tmp_path / "out/held_out_scores.csv.part").write_text('{"model": "another"}\n{"image": "a", "score": 1}\n')
    result = demo.run_demo(tmp_path / "out", stage, lambda update: TrainerCallback())

    assert set(result.within_scene) == {"before", "plcc", "l1"}
    assert result.within_scene["before"]["srcc"] > 0.6  # the start knows blur and noise
    assert result.within_scene["before"] != result.within_scene["plcc"] != result.within_scene["l1"]
    assert (result.images, result.held_out) == (8 * 11, 4 * 11)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["within_scene"] == result.within_scene
    with open(result.scores, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result.held_out
    # The checkpoint on disk made the scores, and only its head was trained.
    model = SindModel.from_pretrained(result.model_dir).eval()
    score = model.score(rows[0]["image"], SindImageProcessor.from_pretrained(result.model_dir))[0]
    assert score == pytest.approx(float(rows[0]["score"]), abs=1e-4)
    start = SindModel.from_pretrained(bundled_checkpoint()).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert changed == {"quality_head.weight", "quality_head.bias"}
    for figure in (result.scatter, result.sheet):
        with Image.open(figure) as image:
            assert min(image.size) > 400
    assert any("plcc" in title for title in stages)
