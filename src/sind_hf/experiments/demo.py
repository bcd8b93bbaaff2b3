"""The demonstration: everything from photographs to a scored, shareable checkpoint, in minutes on two CPU cores.

The graded set is synthetic: real photographs, artificial distortions, made-up scores whose scale and shift differ from
scene to scene, as those of human opinions do. It shows that the method works, not how well it does on human opinions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoModel, TrainerCallback

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.synthetic.graded import grade, packaged_photographs
from sind_hf.experiments.config import RunConfig, parse_config
from sind_hf.experiments.evaluation import Evaluation, evaluate_manifest
from sind_hf.experiments.plots import MapPanel, quality_map_sheet, require_matplotlib, scene_scatter
from sind_hf.experiments.runner import build_model, run_training
from sind_hf.files import write_json
from sind_hf.image_processing_sind import SindImageProcessor, load_image
from sind_hf.modeling_sind import SindModel
from sind_hf.scoring.job import run_job
from sind_hf.scoring.results import ScoreFile
from sind_hf.scoring.scorer import score_images

Stage = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]

HELD_OUT = ("cat", "coffee", "motorcycle", "rocket")
LOSSES = ("scale_shift", "l1")
SHEET_SCENE = "motorcycle"
SHEET = {"clean": "clean", "blurred": "gaussian_blur-5", "noisy": "white_noise-5"}

# The same values as configs/demo.yaml (a test compares them), for those who have the package without the repository.
DEMO: dict[str, dict[str, Any]] = {
    "model": {
        "vision_config": {
            "model_type": "resnet",
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128],
            "depths": [1, 1, 1],
            "layer_type": "basic",
        },
        "view_size": 112,
    },
    "data": {
        "image_root": "demo_output/graded",
        "train": ["demo_output/graded/manifest.json"],
        "hold_out_scenes": list(HELD_OUT),
    },
    "training": {
        "output_dir": "demo_output/model",
        "loss_type": "scale_shift",
        "scene_sampling": 4,
        "per_device_train_batch_size": 32,
        "max_steps": 160,
        "warmup_steps": 20,
        "learning_rate": 0.004,
        "ema_decay": 0.9,
        "eval_views": "center",
        "per_device_eval_batch_size": 32,
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
    """What the demonstration found, on scenes that no model was trained on.

    Attributes:
        within_scene: Mean SRCC and PLCC within the held-out scenes, by model: untrained, scale_shift, l1.
        model_dir: The checkpoint.
        scores: CSV of the held-out pictures' scores, nine views.
        scatter: Figure of scores against truth.
        sheet: Figure of quality maps.
        pictures: Number of pictures in the graded set.
        held_out: Number of pictures of held-out scenes.
        seconds: Duration.
    """

    within_scene: dict[str, dict[str, float]]
    model_dir: Path
    scores: Path
    scatter: Path
    sheet: Path
    pictures: int
    held_out: int
    seconds: float


def demo_config(output: Path, loss: str) -> RunConfig:
    """Return the configuration of one of the demonstration's two trainings."""
    graded = output / "graded"
    source = {group: dict(values) for group, values in DEMO.items()}
    source["data"] |= {"image_root": str(graded), "train": [str(graded / "manifest.json")]}
    folder = "model" if loss == LOSSES[0] else f"model_{loss}"
    source["training"] |= {"output_dir": str(output / folder), "loss_type": loss, "disable_tqdm": True}
    source["training"]["eval_on_start"] = False  # the demonstration tests the untrained model itself
    source["experiment"] = {"name": f"demo, {loss}"}
    return parse_config(source, "demo")


def run_demo(
    output: Path, stage: Stage, callback: Callable[[Callable[[int, int | None], None]], TrainerCallback]
) -> DemoResult:
    """Run the demonstration.

    Args:
        output: Folder for everything that is made; the graded set in it is used again, what was trained is made anew.
        stage: Shows a named stage's progress: `with stage("…") as update: update(done, total)`.
        callback: Makes a Trainer callback that reports to an `update`.

    Raises:
        ValueError: When an extra is not installed, or `output` holds something else.
    """
    require_matplotlib()
    started = time.time()
    output.mkdir(parents=True, exist_ok=True)
    graded = output / "graded"
    with stage("making the graded set") as update:
        manifest = grade(packaged_photographs(), graded, progress=update)
    held_out = manifest.filter(lambda entry: entry.scene in HELD_OUT)

    config = demo_config(output, LOSSES[0])
    untrained, processor = build_model(config.model, config.training.loss_type, config.training.seed)
    evaluations = {"untrained": _evaluate(untrained.eval(), processor, held_out, graded, stage, "untrained")}
    for loss in LOSSES:
        config = demo_config(output, loss)
        with stage(f"training with {loss}") as update:
            run_training(config, resume=True, callbacks=[callback(update)])  # it saves no checkpoint: begins anew
        model, processor = _load(Path(str(config.training.output_dir)))
        evaluations[loss] = _evaluate(model, processor, held_out, graded, stage, loss)

    model_dir = output / "model"
    model, processor = _load(model_dir)
    scores = output / "held_out_scores.csv"
    ScoreFile(scores, {}).part.unlink(missing_ok=True)  # by a model that is no more
    pictures = [str(graded / entry.image) for entry in held_out.entries]
    with stage("scoring with nine views") as update:
        for row in run_job(model, processor, pictures, views="nine", batch_size=8, output=scores, progress=update):
            if row.error:
                raise ValueError(row.error)

    scatter, sheet = output / "scores_by_scene.png", output / "quality_maps.png"
    truth = evaluations["l1"].targets
    scene_scatter(
        scatter,
        truth,
        {_panel_title(loss, evaluations[loss]): evaluations[loss].predictions for loss in LOSSES},
        evaluations["l1"].scenes,
        truth_label="synthetic score",
        title="Scenes that neither model saw: one line per scene, rising lines are good",
    )
    panels = _map_panels(model, processor, graded)
    quality_map_sheet(sheet, panels, title="Where the score comes from (a scene that the model never saw)")
    within = {name: dict(evaluation.report["within_scene"]) for name, evaluation in evaluations.items()}
    result = DemoResult(
        within, model_dir, scores, scatter, sheet, len(manifest), len(held_out), round(time.time() - started, 1)
    )
    write_json(output / "results.json", {"within_scene": within, "seconds": result.seconds})
    return result


def _load(folder: Path) -> tuple[SindModel, SindImageProcessor]:
    return AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)


def _evaluate(
    model: SindModel, processor: SindImageProcessor, manifest: Manifest, root: Path, stage: Stage, name: str
) -> Evaluation:
    with stage(f"testing {name}") as update:
        return evaluate_manifest(
            model, processor, manifest, root, views="center", batch_size=32, workers=1, progress=update
        )


def _panel_title(loss: str, evaluation: Evaluation) -> str:
    return f"{loss}: mean SRCC within scenes {evaluation.report['within_scene']['srcc']:.2f}"


def _map_panels(model: SindModel, processor: SindImageProcessor, graded: Path) -> list[MapPanel]:
    paths = [graded / "images" / SHEET_SCENE / f"0-{name}.png" for name in SHEET.values()]
    panels = []
    for title, path, row in zip(SHEET, paths, score_images(model, processor, paths, quality_maps=True), strict=True):
        if row.score is None or row.quality_map is None:
            raise ValueError(f"{path}: {row.error}")
        panels.append(MapPanel(f"{title}: {row.score:.2f}", load_image(path), row.quality_map))
    return panels
