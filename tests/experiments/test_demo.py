"""The demonstration in small: fewer pictures, three steps; `make demo` runs it whole."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image
from transformers import TrainerCallback

from sind_hf import SindModel
from sind_hf.data.synthetic.graded import grade, packaged_photographs
from sind_hf.experiments import demo

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_committed_configuration_is_the_demonstrations():
    assert yaml.safe_load((CONFIGS / "demo.yaml").read_text()) == demo.DEMO


def test_both_trainings_differ_in_nothing_but_the_loss(tmp_path):
    aligned, plain = (demo.demo_config(tmp_path, loss).source for loss in demo.LOSSES)
    assert (aligned["training"].pop("loss_type"), plain["training"].pop("loss_type")) == ("scale_shift", "l1")
    assert aligned["training"].pop("output_dir") != plain["training"].pop("output_dir")
    aligned.pop("experiment")
    plain.pop("experiment")
    assert aligned == plain


@pytest.mark.slow
def test_every_output_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(
        demo, "DEMO", {**demo.DEMO, "training": {**demo.DEMO["training"], "max_steps": 3, "dataloader_num_workers": 0}}
    )
    names = [*demo.HELD_OUT, "astronaut", "coins", "retina", "moon"]
    photographs = {name: path for name, path in packaged_photographs().items() if name in names}
    monkeypatch.setattr(demo, "packaged_photographs", lambda: photographs)
    kinds = ["gaussian_blur", "white_noise"]
    monkeypatch.setattr(
        demo, "grade", lambda *args, progress: grade(*args, kinds=kinds, crops=1, size=128, progress=progress)
    )
    stages: list[str] = []

    @contextmanager
    def stage(title: str):
        stages.append(title)
        yield lambda done, total: None

    (tmp_path / "out/model").mkdir(parents=True)  # what an interrupted run leaves
    (tmp_path / "out/model/results.json").write_text("{}")
    (tmp_path / "out/held_out_scores.csv.part").write_text('{"model": "another"}\n{"image": "a", "score": 1}\n')
    result = demo.run_demo(tmp_path / "out", stage, lambda update: TrainerCallback())

    assert set(result.within_scene) == {"untrained", "scale_shift", "l1"}
    assert all(-1 <= values["srcc"] <= 1 for values in result.within_scene.values())
    assert (result.pictures, result.held_out) == (8 * 11, 4 * 11)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["within_scene"] == result.within_scene
    with open(result.scores, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result.held_out
    # The checkpoint on disk is the one that made the scores.
    model = SindModel.from_pretrained(result.model_dir).eval()
    processor = demo._load(result.model_dir)[1]
    score = model.score(rows[0]["image"], processor, views="nine")[0]
    assert score == pytest.approx(float(rows[0]["score"]), abs=1e-4)
    for figure in (result.scatter, result.sheet):
        with Image.open(figure) as image:
            assert min(image.size) > 400
    assert any("scale_shift" in title for title in stages)
