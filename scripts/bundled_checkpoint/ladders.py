"""Ladders: one photograph with one kind of distortion at rising levels. A good score falls with every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distortions import DISTORTIONS
from PIL import Image

from sind_hf.data.synthetic import keyed_generator
from sind_hf.image_processing_sind import SindImageProcessor, load_image
from sind_hf.modeling_sind import SindModel

LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
_BORDER = 0.3  # white on each side, as a share of the image's sides


@dataclass(frozen=True)
class LadderResult:
    """How a model scores the ladders of one kind of distortion.

    Attributes:
        kind: Kind of distortion.
        bordered: Whether the photographs are on a white sheet.
        ladders: Number of photographs.
        monotone: Share of the ladders whose score falls with every step.
        steps: Share of all steps on which the score falls.
        scores: Mean score at each level.
    """

    kind: str
    bordered: bool
    ladders: int
    monotone: float
    steps: float
    scores: tuple[float, ...]


def ladder(photograph: Image.Image, kind: str, key: str, *, bordered: bool = False) -> list[Image.Image]:
    """Distort a photograph at rising levels, from the photograph as it is.

    Args:
        photograph: RGB photograph.
        kind: Kind of distortion, a key of `DISTORTIONS`.
        key: Key of what is random, which is drawn alike for all levels.
        bordered: Whether to put the images on a white sheet.
    """
    rungs = [
        DISTORTIONS[kind](photograph, level, keyed_generator("ladder", kind, key)) if level else photograph
        for level in LEVELS
    ]
    return [_with_border(rung) for rung in rungs] if bordered else rungs


def _with_border(image: Image.Image) -> Image.Image:
    left, top = round(_BORDER * image.width), round(_BORDER * image.height)
    sheet = Image.new("RGB", (image.width + 2 * left, image.height + 2 * top), "white")
    sheet.paste(image, (left, top))
    return sheet


def score_ladders(
    model: SindModel,
    processor: SindImageProcessor,
    photographs: Mapping[str, Path],
    kinds: Sequence[str],
    *,
    longest: int = 512,
    bordered: bool = False,
) -> list[LadderResult]:
    """Score the ladders of photographs.

    Args:
        model: Model in evaluation mode.
        processor: Image processor of the same checkpoint.
        photographs: Files by name.
        kinds: Kinds of distortion.
        longest: Photographs are reduced to this many pixels on their long side first, which saves time.
        bordered: See `ladder`.
    """
    images = {}
    for name, path in photographs.items():
        images[name] = load_image(path)
        images[name].thumbnail((longest, longest), Image.Resampling.LANCZOS)
    results = []
    for kind in kinds:
        table = np.array(
            [
                model.score(ladder(image, kind, name, bordered=bordered), processor, batch_size=len(LEVELS))
                for name, image in images.items()
            ]
        )
        falls = np.diff(table, axis=1) < 0
        results.append(
            LadderResult(
                kind=kind,
                bordered=bordered,
                ladders=len(table),
                monotone=float(falls.all(1).mean()),
                steps=float(falls.mean()),
                scores=tuple(table.mean(0).round(2).tolist()),
            )
        )
    return results
