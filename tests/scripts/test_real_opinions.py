"""The study of alignment on real opinions, at toy size: folds are of scenes, the bias is on the training side."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageFilter

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.data.manifests.manifest import Manifest

pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "sind-hf[eval]"')
SCRIPT = Path(__file__).parents[2] / "scripts/real_opinions.py"
SCENES, LEVELS = 16, 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, draw: Any) -> tuple[Path, Path]:
    """A checkpoint to start from, and a study of sixteen scenes whose pictures are blurred in steps."""
    root = tmp_path_factory.mktemp("opinions")
    (root / "study").mkdir()
    resnet = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 16], "depths": [1, 1]}
    SindModel(SindConfig(vision_config=resnet | {"layer_type": "basic"}, view_size=56)).save_pretrained(root / "start")
    SindImageProcessor(size={"height": 56, "width": 56}).save_pretrained(root / "start")
    with (root / "study/scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mos", "scene"])
        for scene in range(SCENES):
            for level in range(LEVELS):
                name = f"s{scene}-{level}.png"
                picture = draw(90 + 5 * scene, 80).filter(ImageFilter.GaussianBlur(level))
                picture.save(root / "study" / name)
                writer.writerow([name, 4.5 - level + 0.03 * scene, f"s{scene}"])
    return root / "start", root / "study"


@pytest.mark.slow
def test_the_study_from_a_checkpoint_to_tables(folders: tuple[Path, Path], tmp_path: Path) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    small = ["per_device_train_batch_size=8", "max_steps=2", "warmup_steps=1"]
    arguments = ["--start", folders[0], "--study", folders[1], "--output", tmp_path, "--strengths", "0", "1"]
    arguments += ["--seeds", "2", "--bias-seeds", "1", "--folds", "2", "--losses", "l1", "scale_shift"]
    arguments += ["--set", *small, "eval_views=center"]
    main([str(argument) for argument in arguments])

    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["loss"], row["strength"], row["runs"]) for row in rows] == [
        ("before fine-tuning", 0.0, 2),
        ("log Laplacian variance", 0.0, 2),
        ("l1", 0.0, 4),
        ("scale_shift", 0.0, 4),
        ("l1", 1.0, 2),
        ("scale_shift", 1.0, 2),
    ]
    # The pictures differ by blur alone, which the variance of the Laplacian measures.
    assert rows[1]["within_scene_srcc"]["mean"] == pytest.approx(1)
    assert {path.name for path in tmp_path.glob("*.png")} == {"bias.png", "scores.png"}
    assert "| scale_shift − l1 |" in (tmp_path / "results.md").read_text()

    true = {entry.image: entry.score for entry in Manifest.load(tmp_path / "study.json").entries}
    for fold in sorted((tmp_path / "folds_1/random_split").glob("*/*")):
        train, test = Manifest.load(fold / "train.json"), Manifest.load(fold / "test.json")
        assert len(train) == len(test) == 32
        assert not {entry.scene for entry in train.entries} & {entry.scene for entry in test.entries}
        assert all(entry.score == true[entry.image] for entry in test.entries)
        moved = {entry.scene: [] for entry in train.entries}
        for entry in train.entries:
            moved[entry.scene].append(entry.score - true[entry.image])
        assert np.std([np.median(shifts) for shifts in moved.values()]) > 0.3

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/**/results.json")}
    assert len(before) == 12  # 2 losses × 2 folds × 2 seeds without bias, 2 × 2 with it
    main([str(argument) for argument in arguments])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/**/results.json")}
