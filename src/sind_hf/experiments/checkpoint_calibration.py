"""The calibration of a checkpoint, fitted on an evaluation and stored in its `config.json`."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sind_hf import metrics
from sind_hf.bundled import bundled_checkpoint
from sind_hf.calibration import Calibration, CalibrationWarning, fit_affine
from sind_hf.configuration_sind import SindConfig
from sind_hf.experiments.evaluation import Evaluation
from sind_hf.files import write_json


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
