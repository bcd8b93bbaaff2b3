"""The evaluation of a model on a manifest: scores, metrics, and the images that could not be scored."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sind_hf import metrics
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.prepared.folder import is_prepared
from sind_hf.distributed import worker_deaths_named
from sind_hf.image_processing_sind import SindImageProcessor, ViewMode
from sind_hf.onnx.model import ScoringModel
from sind_hf.scoring.scorer import score_stream
from sind_hf.scoring.sources import Files, prepared_files


@dataclass(frozen=True)
class Evaluation:
    """The result on one manifest; images that could not be scored are in `failures` only.

    Attributes:
        dataset: Name of the dataset.
        report: Metrics, see `sind_hf.metrics.report`.
        images: Paths, as in the manifest.
        predictions: Scores by the model.
        targets: Opinion scores; higher is better.
        scenes: Scene of each image.
        failures: One line for each image that could not be scored.
    """

    dataset: str
    report: dict[str, Any]
    images: list[str]
    predictions: list[float]
    targets: list[float]
    scenes: list[str]
    failures: list[str]


def evaluate_manifest(
    model: ScoringModel,
    processor: SindImageProcessor,
    manifest: Manifest,
    image_root: str | os.PathLike[str],
    *,
    views: ViewMode = "nine",
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score the images of a manifest and compare the scores with the opinion scores.

    Opinion scores where lower is better are turned around, so that correlations are positive for a good model.

    Args:
        model: Model on its device and in evaluation mode, or an exported model.
        processor: Image processor of the same checkpoint.
        manifest: Images and opinion scores.
        image_root: Folder of the images, or a prepared folder.
        views: `"nine"`, as published, or `"center"`.
        batch_size: Images per forward pass.
        workers: Number of loader processes.
        progress: Called with (images done, total).

    Raises:
        ValueError: If fewer than two images could be scored, or a loader process dies.
    """
    if is_prepared(image_root):
        images = prepared_files(os.fspath(image_root), manifest)
        images.require(processor)
    else:
        paths = [str(Path(image_root) / entry.image) for entry in manifest.entries]
        images = Files([(path, path) for path in paths])
    names, classes = manifest.scene_classes()
    oriented = manifest.oriented_scores()
    kept, predictions, failures = [], [], []
    results = score_stream(model, processor, images, views=views, batch_size=batch_size, workers=workers)
    with worker_deaths_named("and evaluate again"):
        for index, (_, row) in enumerate(results):
            if row.score is None:
                failures.append(str(row.error))
            else:
                kept.append(index)
                predictions.append(row.score)
            if progress is not None:
                progress(index + 1, images.total)
    if len(kept) < 2:
        reason = f" First: {failures[0]}" if failures else ""
        raise ValueError(f"{manifest.dataset}: fewer than two images could be scored.{reason}")
    entries = [manifest.entries[index] for index in kept]
    scenes = [names[classes[index]] for index in kept]
    targets = [oriented[index] for index in kept]
    references = [entry.reference for entry in entries]
    has_references = any(reference is not None for reference in references)
    report = metrics.report(predictions, targets, scene=scenes, reference=references if has_references else None)
    scored = [entry.image for entry in entries]
    return Evaluation(manifest.dataset, report, scored, predictions, targets, scenes, failures)
