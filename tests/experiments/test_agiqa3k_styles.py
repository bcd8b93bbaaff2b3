"""Leave-one-style-out on AGIQA-3K, on a few images of the dataset itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sind_hf.data.readers.build import build
from sind_hf.experiments.config import load_config
from sind_hf.experiments.protocols import build_folds
from sind_hf.experiments.runner import run_experiment

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".." / "shared" / "data" / "agiqa3k"
CONFIG = ROOT / "configs" / "leave_one_out_agiqa3k_style.yaml"
STYLES = {"abstract style", "anime style", "baroque style", "other", "realistic style", "sci-fi style"}


@pytest.mark.filterwarnings("ignore::sind_hf.metrics.FitWarning")  # a few images are too few for curves
@pytest.mark.filterwarnings("ignore::sind_hf.metrics.ConstantInputWarning")
@pytest.mark.filterwarnings("ignore::sind_hf.calibration.CalibrationWarning")
@pytest.mark.skipif(not DATA.is_dir(), reason="needs AGIQA-3K in ../shared/data")
def test_a_style_is_tested_by_a_model_that_was_trained_on_the_others(tmp_path: Path) -> None:
    built = build("agiqa3k", DATA)
    (tmp_path / "agiqa3k").mkdir()
    built.manifest.save(tmp_path / "agiqa3k" / "all.json")
    overrides = [f"json_dir={tmp_path}", f"image_root={built.image_root}"]
    config = load_config(CONFIG, overrides)
    folds = build_folds(config.data, config.experiment)
    assert {entry.scene for fold in folds for entry in fold.tests["agiqa3k"].entries} == STYLES and len(folds) == 6
    assert sum(len(fold.tests["agiqa3k"]) for fold in folds) == len(built.manifest) == 2982

    by_style = {style: [entry for entry in built.manifest.entries if entry.scene == style] for style in sorted(STYLES)}
    few = [entry for entries in by_style.values() for entry in entries[:3]]
    replace(built.manifest, entries=few).save(tmp_path / "agiqa3k" / "all.json")
    short = ["max_steps=1", "warmup_epochs=0", "per_device_train_batch_size=4", "dataloader_num_workers=0"]
    short += ["calibration_images=4", "freeze_backbone=true", "use_cpu=true", f"output_dir={tmp_path / 'run'}"]
    (fold,) = [fold.name for fold in folds if fold.name.endswith("realistic style")]
    (record,) = run_experiment(load_config(CONFIG, [*overrides, *short, f"folds=[{fold}]"]))
    assert record["steps"] == 1 and record["trained_on"] == ["agiqa3k"]
    assert record["train_images"] == {"agiqa3k": 15} and record["test_images"] == {"agiqa3k": 3}
    assert list(record["tests"]["agiqa3k"]["by_scene"]) == ["realistic style"]
    assert (tmp_path / "run" / "report.md").is_file()
