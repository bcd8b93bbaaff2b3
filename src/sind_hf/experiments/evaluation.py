"""The evaluation of a model on a manifest, and the calibration of its checkpoint that is fitted on one."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sind_hf import metrics
from sind_hf.bundled import bundled_checkpoint
from sind_hf.calibration import Calibration, CalibrationWarning, fit_affine
from sind_hf.configuration_sind import SindConfig
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.prepared.folder import is_prepared
from sind_hf.distributed import worker_deaths_named
from sind_hf.files import write_json
from sind_hf.image_processing_sind import SindImageProcessor, ViewMode
from sind_hf.onnx.model import ScoringModel
from sind_hf.scoring.scorer import score_stream
from sind_hf.scoring.sources import Files, prepared_files


@dataclass(frozen=True)
class CheckpointCalibration:
    """The result of calibrating a checkpoint.

    Attributes:
        file: Path of the `config.json`.
        calibration: Line that maps raw scores; the identity if no rising line fits.
        score_range: Lowest and highest score of the declared scale; None if no range is declared.
        rmse: RMSE of the evaluation before and after; NaN if nothing was stored.
        reason: Reason why nothing was stored; None if the calibration was stored.
    """

    file: Path
    calibration: Calibration
    score_range: tuple[float, float] | None
    rmse: tuple[float, float]
    reason: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the folder contains the calibration."""
        return self.reason is None

    def summary(self) -> list[str]:
        """Return the result as lines for the terminal."""
        if self.reason is not None:
            return [f"not calibrated: {self.reason}; {self.file} stays as it was"]
        line = f"score = {self.calibration.scale:.6g} · raw {self.calibration.shift:+.6g}"
        if self.score_range is None:
            scale = "scores are on the scale of the manifest, which declares no range"
        else:
            scale = "scores are on the scale {:g} to {:g}".format(*self.score_range)
        before, after = self.rmse
        return [
            f"calibrated: {line}, stored in {self.file}; {scale}, and higher is better",
            f"RMSE on these images, which the line was fitted to: {before:.4f} before, {after:.4f} after",
        ]


def check_calibration(path: str, manifests: int) -> None:
    """Check before scoring that a calibration can be fitted and stored.

    Args:
        path: Checkpoint, as the user named it.
        manifests: Number of manifests.

    Raises:
        ValueError: If there is more than one manifest, or the checkpoint is not a writable folder.
    """
    if manifests != 1:
        raise ValueError(f"--calibrate takes exactly one --manifest, got {manifests}: scales differ between datasets.")
    folder = Path(path)
    if path == bundled_checkpoint():
        raise ValueError(
            f"--calibrate writes to the model's folder, and {path} is the package's own: copy it and name the copy."
        )
    if not folder.is_dir():
        if folder.exists() or path.startswith((".", os.sep, "~")) or path.count("/") != 1:
            raise ValueError(f"{path}: there is no such checkpoint folder.")
        raise ValueError(
            f"{path}: --calibrate writes to the model's folder, and this is a Hub repository: download it first, "
            f"hf download {path} --local-dir FOLDER, and name the folder."
        )
    try:
        # The superuser may write despite the mode, but whoever set the mode did not want that.
        if not folder.stat().st_mode & 0o222:
            raise PermissionError
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        raise ValueError(
            f"{path}: --calibrate writes to the model's folder, which is read-only: copy it and name the copy."
        ) from None


def calibrate_checkpoint(
    path: str | os.PathLike[str], config: SindConfig, evaluation: Evaluation, score_range: tuple[float, float] | None
) -> CheckpointCalibration:
    """Fit scale and shift to the opinion scores of an evaluation, and store them in the checkpoint's `config.json`.

    The file is replaced as a whole; only `score_scale`, `score_shift` and `score_range` change. If the raw scores do
    not rise with the opinion scores, it stays as it was, so that a dataset that the model cannot judge does not
    destroy an existing calibration.

    Args:
        path: Folder of the checkpoint.
        config: Configuration of the evaluated model. Its calibration is removed from the scores before the fit and
            replaced by the new one.
        evaluation: Scores and opinion scores; higher is better.
        score_range: Declared range of the opinion scores; higher is better.

    Raises:
        ValueError: If `config.json` cannot be read, or a value is not valid for a `SindConfig`.
        OSError: If the file cannot be written.
    """
    file = Path(path) / "config.json"
    raw = (np.asarray(evaluation.predictions, np.float64) - config.score_shift) / config.score_scale
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        calibration = fit_affine(raw, evaluation.targets)
    for warning in caught:
        if isinstance(warning.message, CalibrationWarning):
            nothing = (math.nan, math.nan)
            return CheckpointCalibration(file, calibration, score_range, nothing, warning.message.reason)
    values = {
        "score_scale": calibration.scale,
        "score_shift": calibration.shift,
        "score_range": None if score_range is None else list(score_range),
    }
    document = json.loads(file.read_text(encoding="utf-8")) | values
    for name, value in values.items():
        setattr(config, name, value)
    config.validate()
    write_json(file, document)
    targets = evaluation.targets
    rmse = metrics.rmse(evaluation.predictions, targets), metrics.rmse(calibration(raw), targets)
    return CheckpointCalibration(file, calibration, score_range, rmse)


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
    targets = manifest.oriented_scores()
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
    scenes = [names[classes[index]] for index in kept]
    references = [manifest.entries[index].reference for index in kept]
    report = metrics.report(
        predictions,
        [targets[index] for index in kept],
        scene=scenes,
        reference=references if any(reference is not None for reference in references) else None,
    )
    return Evaluation(
        dataset=manifest.dataset,
        report=report,
        images=[manifest.entries[index].image for index in kept],
        predictions=predictions,
        targets=[targets[index] for index in kept],
        scenes=scenes,
        failures=failures,
    )
