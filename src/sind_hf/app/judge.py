"""What the page says about pictures, as values: the work behind every button."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sind_hf.app.reference import ReferenceScores
from sind_hf.app.uploads import read_picture
from sind_hf.checkpoints import load_scorer
from sind_hf.configuration_sind import resolve_checkpoint
from sind_hf.image_processing_sind import ImageError, SindImageProcessor
from sind_hf.onnx.model import ScoringModel, is_onnx
from sind_hf.scoring.scorer import score_images

CHUNK = 4  # pictures in memory at once
Source = str | os.PathLike[str] | tuple[str, Image.Image]


@dataclass(frozen=True)
class Verdict:
    """What is known about one picture.

    Attributes:
        name: Of the file, without its folder.
        score: Higher is better; None when the picture could not be used.
        error: Why there is no score, in words.
        percentile: Share of the reference pictures with a lower score, in percent; None without a reference.
        picture: RGB, made smaller.
        quality_map: (7, 7): by how many points of the score each part is above or below the mean of its picture; None
            where the model makes none. Were all parts as the one of +2, the score would be 2 higher.
    """

    name: str
    score: float | None = None
    error: str | None = None
    percentile: float | None = None
    picture: Image.Image | None = None
    quality_map: npt.NDArray[np.floating] | None = None


class Judge:
    """Scores images for the page; several threads may ask, and one at a time goes through the model.

    Args:
        model: On its device, in evaluation mode.
        processor: Of the same checkpoint.
        name: Of the model, for the page.
        views: `"center"` or `"nine"`; default: the processor's own.
        reference: Scores of the same model, and the same views, that percentiles refer to.
    """

    def __init__(
        self,
        model: ScoringModel,
        processor: SindImageProcessor,
        *,
        name: str = "SIND",
        views: Literal["center", "nine"] | None = None,
        reference: ReferenceScores | None = None,
    ) -> None:
        self.model, self.processor, self.views = model, processor, views or processor.views
        self.name, self.reference = name, reference
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
        """Load what scores, and the reference named or lying beside it.

        Args:
            model: Folder, Hub repository, or exported file (`.onnx`).
            name: Of the model, for the page; default: the repository, the file, or the last two names of the folder's
                path.
            reference: File of scores; default: `reference_scores.csv` of the checkpoint, where it has one.
            views: `"center"` or `"nine"`; default: the processor's own.
            device: See `load_scorer`.

        Raises:
            ValueError: When the checkpoint or the reference cannot be used.
        """
        model = str(resolve_checkpoint(model))
        scores = ReferenceScores.load(reference) if reference is not None else ReferenceScores.of_checkpoint(model)
        network, processor = load_scorer(model, device=device)
        # Many checkpoints lie in a folder called "model"; more than two names would show how this machine is set up.
        if name is None:
            name = "/".join(Path(model).resolve().parts[-2:]) if Path(model).is_dir() else model
            name = Path(model).name if is_onnx(model) else name
        return cls(network, processor, name=name, views=views, reference=scores)

    def verdicts(
        self, sources: Sequence[Source], side: int = 1024, progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Verdict]:
        """Judge pictures one after the other, in order; one that cannot be used says why and stops no other.

        Args:
            sources: Files, or pictures with a name.
            side: Longest side of the pictures in the verdicts, in pixels.
            progress: Called with (pictures done, pictures in all).
        """
        for start in range(0, len(sources), CHUNK):
            yield from self._chunk(sources[start : start + CHUNK], side)
            if progress is not None:
                progress(min(start + CHUNK, len(sources)), len(sources))

    def _chunk(self, sources: Sequence[Source], side: int) -> list[Verdict]:
        found: list[Verdict | Image.Image] = []
        names = [source[0] if isinstance(source, tuple) else Path(source).name for source in sources]
        for name, source in zip(names, sources, strict=True):
            try:
                found.append(source[1] if isinstance(source, tuple) else read_picture(source))
            except ImageError as error:
                found.append(Verdict(name, error=str(error)))
        pictures = [each for each in found if isinstance(each, Image.Image)]
        with self._turn:
            rows = list(
                score_images(
                    self.model,
                    self.processor,
                    pictures,
                    views=self.views,
                    # Nine pairs of views of one image are a batch of their own.
                    batch_size=CHUNK if self.views == "center" else 1,
                    quality_maps=self.makes_maps,
                )
            )
        scored = iter(rows)
        verdicts = []
        for name, each in zip(names, found, strict=True):
            if isinstance(each, Verdict):
                verdicts.append(each)
                continue
            row = next(scored)
            if row.score is None:
                verdicts.append(Verdict(name, error=f"{name}: the model gave no finite score"))
                continue
            small = each.copy()
            small.thumbnail((side, side))
            verdicts.append(
                Verdict(
                    name,
                    row.score,
                    percentile=self.reference.percentile(row.score) if self.reference else None,
                    picture=small,
                    quality_map=None if row.quality_map is None else self._in_points(row.quality_map),
                )
            )
        return verdicts

    def _in_points(self, quality_map: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """Turn what parts add to the raw score into points of the score above or below the picture's mean."""
        return self.model.config.score_scale * (quality_map - quality_map.mean())
