"""Run the demo: from photographs to a fine-tuned, shareable checkpoint, in minutes on two CPU cores.

The graded set is synthetic: real photographs, artificial distortions, and made-up scores whose scale and shift differ
from scene to scene, as those of human opinions do. It shows that the method works, not how well it does on human
opinions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoModel, TrainerCallback

from sind_hf.data.synthetic import grade, packaged_photographs
from sind_hf.experiments.config import RunConfig, parse_config
from sind_hf.experiments.evaluation import evaluate_manifest
from sind_hf.experiments.plots import MapPanel, quality_map_sheet, require_matplotlib, scene_scatter
from sind_hf.experiments.records import read_scores
from sind_hf.experiments.runner import build_model, run_training
from sind_hf.files import write_json
from sind_hf.image_processing_sind import SindImageProcessor, load_image
from sind_hf.modeling_sind import SindModel
from sind_hf.scoring.job import run_job
from sind_hf.scoring.results import ScoreFile
from sind_hf.scoring.scorer import score_images

Stage = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]

HELD_OUT = ("cat", "coffee", "motorcycle", "rocket")
ALIGNED, PLAIN = LOSSES = ("plcc", "l1")
BEFORE = "before"
TEST = "graded_held_out"  # name of the held-out scenes in the record of a run
SHEET_SCENE = "motorcycle"
SHEET = {"clean": "clean", "blurred": "gaussian_blur-5", "noisy": "white_noise-5"}

# The values of configs/demo.yaml (a test compares them), for users who have the package without the repository.
DEMO: dict[str, dict[str, Any]] = {
    "model": {"checkpoint": "bundled", "freeze_backbone": True},
    "data": {
        "image_root": "demo_output/graded",
        "train": ["demo_output/graded/manifest.json"],
        "hold_out_scenes": list(HELD_OUT),
    },
    "training": {
        "output_dir": "demo_output/model",
        "loss_type": "plcc",
        "scene_sampling": 2,
        "per_device_train_batch_size": 24,
        "max_steps": 60,
        "warmup_steps": 5,
        "learning_rate": 0.015,
        "ema_decay": 0.9,
        "calibration_images": 80,
        "eval_views": "center",
        "eval_on_start": False,
        "per_device_eval_batch_size": 24,
        "dataloader_num_workers": 1,
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 0,
    },
    "experiment": {"name": "demo"},
}


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo on scenes that were not trained on.

    Attributes:
        within_scene: Mean SRCC and PLCC within the held-out scenes: `before` training, and after training with `l1`
            (no alignment) and with `plcc` (aligned within scenes).
        model_dir: Folder of the aligned checkpoint.
        scores: CSV file with its scores of the held-out images.
        scatter: Figure of predicted against true scores.
        sheet: Figure of quality maps.
        images: Number of images in the graded set.
        held_out: Number of images of the held-out scenes.
        seconds: Duration.
    """

    within_scene: dict[str, dict[str, float]]
    model_dir: Path
    scores: Path
    scatter: Path
    sheet: Path
    images: int
    held_out: int
    seconds: float


def demo_config(output: Path, loss: str) -> RunConfig:
    """Return the configuration of one of the demo's two trainings."""
    graded = output / "graded"
    source = {group: dict(values) for group, values in DEMO.items()}
    source["data"] |= {"image_root": str(graded), "train": [str(graded / "manifest.json")]}
    folder = "model" if loss == ALIGNED else f"model_{loss}"
    source["training"] |= {"output_dir": str(output / folder), "loss_type": loss, "disable_tqdm": True}
    source["training"]["eval_on_start"] = False  # the demo tests the untrained model itself
    source["experiment"] = {"name": f"demo, {loss}"}
    return parse_config(source, "demo")


def run_demo(
    output: Path, stage: Stage, callback: Callable[[Callable[[int, int | None], None]], TrainerCallback]
) -> DemoResult:
    """Run the demo.

    Args:
        output: Folder of all results. A graded set in it is used again; the trainings start anew.
        stage: Shows the progress of a stage: `with stage("…") as update: update(done, total)`.
        callback: Makes a Trainer callback, which reports to an `update`.

    Raises:
        ValueError: If an extra is not installed, or `output` contains something else.
    """
    require_matplotlib()
    started = time.time()
    output.mkdir(parents=True, exist_ok=True)
    graded = output / "graded"
    with stage("making the graded set") as update:
        manifest = grade(packaged_photographs(), graded, crops=1, progress=update)
    held_out = manifest.filter(lambda entry: entry.scene in HELD_OUT)

    config = demo_config(output, ALIGNED)
    start, processor = build_model(config.model, config.training.loss_type, config.training.seed)
    with stage("testing the bundled checkpoint") as update:
        before = evaluate_manifest(
            start.eval(), processor, held_out, graded, views="center", batch_size=24, workers=1, progress=update
        )
    within = {BEFORE: {name: float(before.report["within_scene"][name]) for name in ("srcc", "plcc")}}
    tested = {}
    for loss in LOSSES:
        config = demo_config(output, loss)
        with stage(f"training with {loss}") as update:
            record = run_training(config, resume=True, callbacks=[callback(update)])  # no checkpoint is saved
        found = record["metrics"][TEST]
        within[loss] = {name: found[f"within_scene_{name}"] for name in ("srcc", "plcc")}
        tested[loss] = read_scores(Path(str(config.training.output_dir)) / f"scores_{TEST}.csv")

    model_dir = output / "model"
    model, processor = AutoModel.from_pretrained(model_dir).eval(), AutoImageProcessor.from_pretrained(model_dir)
    scores = output / "held_out_scores.csv"
    ScoreFile(scores, {}).part.unlink(missing_ok=True)  # left by an earlier model
    images = [str(graded / entry.image) for entry in held_out.entries]
    with stage("scoring the unseen scenes") as update:
        for row in run_job(model, processor, images, batch_size=8, output=scores, progress=update):
            if row.error:
                raise ValueError(row.error)

    scatter, sheet = output / "scores_by_scene.png", output / "quality_maps.png"
    truth = tested[ALIGNED]
    panels = {
        f"{loss}: mean SRCC within scenes {within[loss]['srcc']:.2f}": tested[loss].predictions for loss in LOSSES
    }
    scene_scatter(
        scatter,
        truth.targets,
        panels,
        truth.scenes,
        truth_label="synthetic score",
        title="Scenes that neither training saw: one line per scene, rising lines are good",
    )
    maps = _map_panels(model, processor, graded)
    quality_map_sheet(sheet, maps, title="Where the score comes from (a scene that the training never saw)")
    seconds = round(time.time() - started, 1)
    write_json(output / "results.json", {"within_scene": within, "seconds": seconds})
    return DemoResult(within, model_dir, scores, scatter, sheet, len(manifest), len(held_out), seconds)


def _map_panels(model: SindModel, processor: SindImageProcessor, graded: Path) -> list[MapPanel]:
    paths = [graded / "images" / SHEET_SCENE / f"0-{name}.png" for name in SHEET.values()]
    panels = []
    for title, path, row in zip(SHEET, paths, score_images(model, processor, paths, quality_maps=True), strict=True):
        if row.score is None or row.quality_map is None:
            raise ValueError(f"{path}: {row.error}")
        panels.append(MapPanel(f"{title}: {row.score:.2f}", load_image(path), row.quality_map))
    return panels
