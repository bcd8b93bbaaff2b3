"""Ladders: one photograph with one kind of distortion at rising levels. A good score falls with every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sind_hf.data.graded import keyed_generator
from sind_hf.image_processing_sind import SindImageProcessor, ViewMode, load_image
from sind_hf.modeling_sind import SindModel
from sind_hf.pretraining.distortions import DISTORTIONS
from sind_hf.scoring.scorer import score_images

LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)


@dataclass(frozen=True)
class LadderResult:
    """How a model scores the ladders of one kind of distortion.

    Attributes:
        kind: Of distortion.
        ladders: Number of photographs.
        monotone: Share of the ladders whose score falls with every step.
        steps: Share of all steps on which it falls.
        scores: Mean score by level.
    """

    kind: str
    ladders: int
    monotone: float
    steps: float
    scores: tuple[float, ...]


def ladder(photograph: Image.Image, kind: str, *key: str | int, levels: Sequence[float] = LEVELS) -> list[Image.Image]:
    """Distort a photograph at rising levels; what is random is drawn alike for all of them.

    Args:
        photograph: RGB.
        kind: A key of `DISTORTIONS`.
        *key: Of the random draws.
        levels: 0 stands for the photograph as it is.
    """
    return [
        DISTORTIONS[kind](photograph, level, keyed_generator("ladder", kind, *key)) if level else photograph
        for level in levels
    ]


def score_ladders(
    model: SindModel,
    processor: SindImageProcessor,
    photographs: Mapping[str, Path],
    kinds: Sequence[str],
    *,
    longest: int = 768,
    views: ViewMode | None = None,
) -> list[LadderResult]:
    """Score the ladders of photographs that the model never saw.

    Args:
        model: In evaluation mode.
        processor: Of the same checkpoint.
        photographs: Files by name.
        kinds: Of distortion.
        longest: Photographs are reduced to this many pixels on their long side first, which saves time.
        views: Of the scoring; default: the processor's own.
    """
    pictures = {}
    for name, path in photographs.items():
        picture = load_image(path)
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        pictures[name] = picture
    results = []
    for kind in kinds:
        scores = []
        for name, picture in pictures.items():
            rungs = ladder(picture, kind, name)
            scores.append(
                [row.score for row in score_images(model, processor, rungs, views=views, batch_size=len(rungs))]
            )
        table = np.array(scores, np.float64)
        falls = np.diff(table, axis=1) < 0
        results.append(
            LadderResult(
                kind,
                len(table),
                float(falls.all(1).mean()),
                float(falls.mean()),
                tuple(table.mean(0).round(4).tolist()),
            )
        )
    return results
