"""One scoring job: pictures in, a file of scores and quality maps out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sind_hf.data.worker_deaths import worker_deaths_named
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, ViewMode, load_image
from sind_hf.output_lock import sole_use
from sind_hf.scoring.onnx_model import OnnxSindModel, ScoringModel
from sind_hf.scoring.quality_maps import save_overlay
from sind_hf.scoring.results import ScoreFile
from sind_hf.scoring.scorer import ScoredImage, score_images
from sind_hf.scoring.sources import list_images

Progress = Callable[[int, int], None]


def run_job(
    model: ScoringModel,
    processor: SindImageProcessor,
    paths: Sequence[str | os.PathLike[str]],
    *,
    views: ViewMode = "center",
    batch_size: int = 16,
    workers: int = 0,
    output: str | os.PathLike[str] | None = None,
    quality_maps: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Iterator[ScoredImage]:
    """Score the pictures that `paths` stand for, keep the results, and yield them as they come.

    Args:
        model: See `score_images`, as `processor`, `views`, `batch_size` and `workers`.
        processor: Of the same checkpoint.
        paths: Files, folders, lists; see `list_images`. A picture named twice is scored once.
        views: `"center"` or `"nine"`.
        batch_size: Pictures per forward pass.
        workers: Loader processes.
        output: CSV, JSON Lines or Parquet file for the scores; see `ScoreFile`.
        quality_maps: Folder for one overlay per picture.
        resume: Continue an interrupted job: yields only what was not done yet.
        progress: Called with (pictures done, pictures in all).

    Raises:
        ValueError: On unusable options, or when another job writes the same output; nothing has been scored then.
            Also when the disk is full or a loader process dies; the scores so far are kept then.
    """
    images = list(dict.fromkeys(list_images(paths)))
    if not images:
        raise ValueError("No pictures to score: the lists are empty.")
    folder = None if quality_maps is None else Path(quality_maps)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder}: cannot make this folder for quality maps ({error.strerror}).") from None
    with sole_use(output) if output is not None else nullcontext():
        settings = {"model": _identity(model), "views": views}
        file = None if output is None else ScoreFile(output, images, settings, resume=resume)
        remaining = images if file is None else file.remaining
        done = len(images) - len(remaining)
        kept = "nothing was kept" if file is None else f"the scores so far are in {file.part}, resume to go on"
        with worker_deaths_named(kept), file or nullcontext():
            for row in score_images(
                model,
                processor,
                remaining,
                views=views,
                batch_size=batch_size,
                workers=workers,
                quality_maps=folder is not None,
            ):
                if folder is not None and row.quality_map is not None:
                    row = _save_map(folder, row, row.quality_map)
                done += 1
                if file is not None:
                    file.write(row)
                    if done % batch_size == 0:
                        file.flush()
                if progress is not None:
                    progress(done, len(images))
                yield row


def _identity(model: ScoringModel) -> str:
    """Name a checkpoint: the same from any working directory, another one once it was trained again."""
    if isinstance(model, OnnxSindModel):
        named = weights = model.path
    else:
        named = Path(str(model.config._name_or_path))
        weights = named / "model.safetensors"
        if not weights.is_file():
            return str(model.config._name_or_path)
    return f"{named.resolve()} ({weights.stat().st_mtime_ns})"


def _save_map(folder: Path, row: ScoredImage, quality_map: npt.NDArray[np.float32]) -> ScoredImage:
    try:
        save_overlay(folder, row.image, load_image(row.image), quality_map)
    except ImageError as error:  # the file changed since it was scored
        return ScoredImage(row.image, error=str(error))
    return row
