"""A protocol on two processes, as `accelerate launch` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_sets import make_config, make_set, save_tiny_clip
from sind_hf.checkpoints import load_checkpoint
from sind_hf.experiments.evaluation import evaluate_manifest
from sind_hf.experiments.protocols import build_folds
from sind_hf.experiments.records import load_records, read_scores

pytestmark = pytest.mark.slow


def launch(*arguments):
    tests = Path(__file__).parents[1]
    paths = [str(tests.parent / "src"), str(tests), os.environ.get("PYTHONPATH", "")]
    # With --cpu accelerate starts several processes through MPI alone; the configuration says use_cpu.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    # What trainings in this process left behind (fp16 of another test, say) must not reach these.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    done = subprocess.run(
        [*launcher, "-m", "helpers.two_process_experiment", *map(str, arguments)],
        env=inherited | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_two_processes_share_the_work_and_agree_with_one(tmp_path):
    manifest = make_set(tmp_path / "images", "spaq", (0, 1), per_scene=7)  # odd: no equal shares
    (tmp_path / "json" / "spaq").mkdir(parents=True)
    manifest.save(tmp_path / "json" / "spaq" / "all.json")
    save_tiny_clip(tmp_path / "clip")
    config = make_config(
        tmp_path / "run",
        tmp_path / "images",
        data={"json_dir": str(tmp_path / "json"), "train": ["spaq"]},
        training={
            "eval_views": "nine",
            "per_device_eval_batch_size": 2,
            "scene_sampling": 1,
            "calibrate": False,  # its scale would magnify the rounding of float32
            "disable_tqdm": True,
        },
        experiment={"protocol": "leave-one-out", "evaluate_every": 0},
        model={"vision_config": None, "backbone": str(tmp_path / "clip")},
    )
    config.save(tmp_path / "config.yaml")
    launch(tmp_path / "config.yaml", tmp_path)

    first, second = (json.loads((tmp_path / f"process{number}.json").read_text()) for number in (0, 1))
    folds = build_folds(config.data, config.experiment)
    assert first["folds"] == second["folds"] == [fold.name for fold in folds]
    assert first["same"] and second["same"]
    assert first["refused"] == second["refused"] and "training.learning_rate" in first["refused"]
    # Each scored about half, together all; what fills up the last round is thrown away again.
    everything = {Path(entry.image).name for entry in manifest.entries}
    assert set(first["scored"]) | set(second["scored"]) == everything
    assert max(Counter(first["scored"]).values()) == 1 and len(first["scored"]) < len(everything)
    assert len(first["scored"]) + len(second["scored"]) <= len(everything) + 2 * len(folds)

    for record, fold in zip(load_records(tmp_path / "run"), folds, strict=True):
        assert record["processes"] == 2
        folder = tmp_path / "run" / fold.name
        scores = read_scores(folder / "scores_spaq.csv")
        assert scores.images == [entry.image for entry in fold.tests["spaq"].entries]
        model, processor = load_checkpoint(str(folder), device="cpu")
        alone = evaluate_manifest(model, processor, fold.tests["spaq"], tmp_path / "images", batch_size=2)
        assert np.ptp(alone.predictions) > 1e-4
        np.testing.assert_allclose(scores.predictions, alone.predictions, rtol=0, atol=1e-6)
        # The correlations of scores so close together would show their rounding, so those of the file are compared.
        metrics, report = record["metrics"]["spaq"], scores.report()
        for name in ("srcc", "plcc", "krcc"):
            assert metrics[name] == pytest.approx(report[name], abs=1e-6)
        # These scores are not calibrated, so the error is what the best rising line leaves.
        left = np.std(scores.targets) * np.sqrt(1 - max(report["plcc"], 0) ** 2)
        assert metrics["rmse"] == pytest.approx(left, abs=1e-4)
