"""Scores of images as the pages show them: with a name, a percentile, a map and a small copy of the image."""

from __future__ import annotations

import filecmp
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sind_hf.app.reference import ReferenceScores
from sind_hf.app.uploads import MAX_PIXELS, read_image, small_copy
from sind_hf.bundled import bundled_checkpoint
from sind_hf.checkpoints import load_scorer
from sind_hf.configuration_sind import resolve_checkpoint
from sind_hf.image_processing_sind import ImageError, SindImageProcessor
from sind_hf.onnx.model import ScoringModel, is_onnx
from sind_hf.scoring.scorer import score_images

CHUNK = 4  # images that one request holds in memory at once; fewer if they are large
# Processor time that one request may spend on reading images. An upload of 200 MB needs less. Images that are made to
# be slow must not keep others waiting for long.
READING_SECONDS = 20.0
Source = str | os.PathLike[str] | tuple[str, Image.Image]


@dataclass(frozen=True)
class Verdict:
    """Result of one image."""

    name: str  # of the file, without its folder
    score: float | None = None  # higher is better; None when the image could not be used
    error: str | None = None  # reason why there is no score
    percentile: float | None = None  # share of the reference images with a lower score, in percent
    image: Image.Image | None = None  # small RGB copy
    # (7, 7): points of the score that each part is above or below the mean of its image; None where the model makes no
    # map. If all parts were like the one of +2, the score would be 2 higher.
    quality_map: npt.NDArray[np.floating] | None = None


class Judge:
    """Scores images for a page. Several threads may use it; one image at a time goes through the model.

    Args:
        model: Model on its device, in evaluation mode.
        processor: Image processor of the same checkpoint.
        name: Name of the model that the page shows.
        views: `"center"` or `"nine"`; default: the processor's own.
        reference: Scores by the same model, with the same views, that percentiles refer to.
        bundled: Whether the model is the bundled checkpoint, whose abilities the page can describe.
    """

    def __init__(
        self,
        model: ScoringModel,
        processor: SindImageProcessor,
        *,
        name: str = "SIND",
        views: Literal["center", "nine"] | None = None,
        reference: ReferenceScores | None = None,
        bundled: bool = False,
    ) -> None:
        self.model, self.processor, self.views = model, processor, views or processor.views
        self.name, self.reference, self.bundled = name, reference, bundled
        self._turn = Lock()
        self.makes_maps = model.config.local_branch == "patch"

    @classmethod
    def load(
        cls,
        model: str,
        *,
        name: str | None = None,
        reference: str | os.PathLike[str] | None = None,
        views: Literal["center", "nine"] | None = None,
        device: str | None = None,
    ) -> Judge:
        """Load a model and its reference scores.

        Args:
            model: Folder, Hub repository, or exported file (`.onnx`).
            name: Name of the model that the page shows; default: the repository, the file, or the last two names of
                the folder's path.
            reference: File of scores; default: the checkpoint's own, see `ReferenceScores.of_checkpoint`.
            views: `"center"` or `"nine"`; default: the processor's own.
            device: See `load_scorer`.

        Raises:
            ValueError: When the checkpoint or the reference cannot be used.
        """
        model = str(resolve_checkpoint(model))
        scores = None if reference is None else ReferenceScores.load(reference)
        network, processor = load_scorer(model, device=device)
        if scores is None:
            scores = ReferenceScores.of_checkpoint(model, views or processor.views)
        # Many checkpoints are in a folder called "model"; more than two names would show how this machine is set up.
        if name is None:
            name = "/".join(Path(model).resolve().parts[-2:]) if Path(model).is_dir() else model
            name = Path(model).name if is_onnx(model) else name
        return cls(network, processor, name=name, views=views, reference=scores, bundled=_is_bundled(model))

    def verdicts(
        self, sources: Sequence[Source], side: int = 1024, progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Verdict]:
        """Score images in order. The verdict of an image that cannot be used says why.

        Images that come after `READING_SECONDS` are not read.

        Args:
            sources: Files, or images with a name.
            side: Longest side of the images in the verdicts, in pixels.
            progress: Called with (images done, images in all).
        """
        read: list[tuple[str, Image.Image | str]] = []
        pixels, seconds = 0, 0.0
        for number, source in enumerate(sources, start=1):
            started = time.thread_time()
            name, image = _read(source) if seconds <= READING_SECONDS else _pass_over(source)
            seconds += time.thread_time() - started
            read.append((name, image))
            pixels += image.width * image.height if isinstance(image, Image.Image) else 0
            if len(read) < CHUNK and pixels < MAX_PIXELS and number < len(sources):
                continue
            judged = self._judge(read, side)
            read, pixels = [], 0
            yield from judged
            if progress is not None:
                progress(number, len(sources))

    def _judge(self, read: Sequence[tuple[str, Image.Image | str]], side: int) -> list[Verdict]:
        images = [image for _, image in read if isinstance(image, Image.Image)]
        # Nine pairs of views of one image are already a batch.
        batch_size = CHUNK if self.views == "center" else 1
        score = partial(score_images, self.model, self.processor, views=self.views, batch_size=batch_size)
        with self._turn:
            scored = iter(list(score(images, quality_maps=self.makes_maps)))
        verdicts = []
        for name, image in read:
            if isinstance(image, str):
                verdicts.append(Verdict(name, error=image))
                continue
            row = next(scored)
            if row.score is None:
                verdicts.append(Verdict(name, error=f"{name}: the model gave no finite score"))
                continue
            verdicts.append(
                Verdict(
                    name,
                    row.score,
                    percentile=self.reference.percentile(row.score) if self.reference else None,
                    image=small_copy(image, side),
                    quality_map=None if row.quality_map is None else self._in_points(row.quality_map),
                )
            )
        return verdicts

    def _in_points(self, quality_map: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """Turn what parts add to the raw score into points of the score above or below the mean of the image."""
        return self.model.config.score_scale * (quality_map - quality_map.mean())


def _read(source: Source) -> tuple[str, Image.Image | str]:
    """Return the name of an image, and the image or the reason why it cannot be used."""
    if isinstance(source, tuple):
        return source
    try:
        return Path(source).name, read_image(source)
    except ImageError as error:
        return Path(source).name, str(error)


def _pass_over(source: Source) -> tuple[str, str]:
    """Return the name of an image that is not read because the time is up, and what the visitor can do."""
    name = source[0] if isinstance(source, tuple) else Path(source).name
    return name, f"{name}: not scored: the images before it were too slow to read; add it again without them"


def _is_bundled(model: str) -> bool:
    """Return whether a folder holds the bundled checkpoint or a copy of it."""
    config = Path(model) / "config.json"
    return config.is_file() and filecmp.cmp(config, Path(bundled_checkpoint()) / "config.json", shallow=False)
