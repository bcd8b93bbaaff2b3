from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sind_hf import Manifest, ManifestEntry, ScoreInfo, cli
from sind_hf.checkpoints import load_scorer
from sind_hf.scoring.job import run_job

Answer = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the command line in this process; returns exit code, standard output, standard error."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["sind-hf", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def interrupt() -> Callable[..., None]:
    """Leave what `sind-hf score` leaves when it ends after some images, with a score of 7 for each of them."""

    def call(model: Path, paths: list[str], output: Path, count: int) -> None:
        stream = run_job(*load_scorer(str(model), device="cpu"), paths, output=output)
        rows = [next(stream) for _ in range(count)]
        stream.close()
        part = output.with_name(f"{output.name}.part")
        text = part.read_text()
        for row in rows:
            text = text.replace(f'"score": {row.score}', '"score": 7.0')
        part.write_text(text)

    return call


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with 24 images of three scenes and their manifest: blurrier is worse, scenes differ in shift."""
    folder = tmp_path / "study"
    rng = np.random.default_rng(0)
    entries = []
    for number in range(24):
        scene, level = number % 3, number // 3
        (folder / "images").mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 255, (12 + 8 * level, 16 + 8 * level, 3), dtype=np.uint8))
        name = f"images/{number:02}.png"
        small.resize((160, 120), Image.Resampling.BILINEAR).save(folder / name)
        entries.append(ManifestEntry(name, 1 + 0.4 * level + 0.2 * scene, scene=f"scene {scene}", domain_id=scene))
    Manifest(
        dataset="study",
        entries=entries,
        score=ScoreInfo("MOS", (1, 5)),
        domain_names={scene: f"scene {scene}" for scene in range(3)},
    ).save(folder / "manifest.json")
    return folder


@pytest.fixture
def training_config(study: Path, tmp_path: Path) -> Path:
    """A configuration that trains a tiny network on the study for four steps."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
model:
  vision_config: {{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1], layer_type: basic}}
  view_size: 56
data:
  image_root: {study}
  train: [{study}/manifest.json]
  hold_out_scenes: [scene 2]
training:
  output_dir: {tmp_path}/run
  per_device_train_batch_size: 8
  max_steps: 4
  learning_rate: 1e-3
  eval_views: center
  save_steps: 2
  report_to: none
experiment:
  name: tiny
"""
    )
    return path
