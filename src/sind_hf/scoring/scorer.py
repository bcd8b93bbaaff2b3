"""Score images of all kinds in the loop of the model, with their names and errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from sind_hf.data.prepared.images import PreparedImage, PreparedImages
from sind_hf.image_processing_sind import ImageError, ImageSource, SindImageProcessor, ViewMode
from sind_hf.onnx.model import ScoringModel
from sind_hf.scoring.images import LocatedImage


@dataclass(frozen=True)
class ScoredImage:
    """The result for one image: a score, or the reason why there is none.

    Attributes:
        image: Name of the image.
        score: Score of the image (higher is better); None if it could not be scored.
        error: Reason why there is no score; None if there is one.
        quality_map: (7, 7) float32, if maps were asked for: contribution of each fragment to the raw score.
    """

    image: str
    score: float | None = None
    error: str | None = None
    quality_map: npt.NDArray[np.float32] | None = None


def score_images(
    model: ScoringModel,
    processor: SindImageProcessor,
    images: Sequence[ImageSource | PreparedImage],
    *,
    views: ViewMode | None = None,
    batch_size: int = 16,
    workers: int = 0,
    quality_maps: bool = False,
) -> Iterator[ScoredImage]:
    """Score images batch by batch; yield results in input order, errors included.

    Args:
        model: Model on its device and in evaluation mode, or an exported model.
        processor: Image processor of the same checkpoint.
        images: Paths, or anything else that `load_image` takes; or the `PreparedImages` of prepared data.
        views: `"center"`, or `"nine"` (nine times the work, steadier); default: the processor's own.
        batch_size: Images per forward pass.
        workers: Processes that load images ahead of the model; 0 loads in this one.
        quality_maps: Whether results have maps.

    Raises:
        ValueError: If the model's variant makes no maps, or images were prepared for another processor.
    """
    if isinstance(images, PreparedImages):
        images.require(processor)
    located = (LocatedImage(_name(image), image) for image in images)
    results = score_stream(
        model, processor, located, views=views, batch_size=batch_size, workers=workers, quality_maps=quality_maps
    )
    yield from (row for _, row in results)


def score_stream(
    model: ScoringModel,
    processor: SindImageProcessor,
    images: Iterable[LocatedImage],
    *,
    views: ViewMode | None = None,
    batch_size: int = 16,
    workers: int = 0,
    quality_maps: bool = False,
) -> Iterator[tuple[LocatedImage, ScoredImage]]:
    """Score a stream of any length, as `score_images` does a list.

    What the stream yields goes to the workers, which read, decode and cut. It should therefore be quick and yield no
    pixels.

    Yields:
        Every image with its result, in the order of the stream.

    Raises:
        ValueError: If the model's variant makes no maps.
    """
    make_views = partial(LocatedImage.make_views, processor=processor, mode=views or processor.views)
    results = model.score_stream(images, make_views, batch_size=batch_size, workers=workers, quality_maps=quality_maps)
    for image, result in results:
        if isinstance(result, ImageError):
            yield image, ScoredImage(image.name, error=str(result))
            continue
        score, quality_map = result
        if not math.isfinite(score):
            yield image, ScoredImage(image.name, error=f"{image.name}: the model's score is {score}")
        else:
            found = None if quality_map is None else quality_map.numpy()
            yield image, ScoredImage(image.name, score, quality_map=found)


def _name(image: ImageSource | PreparedImage) -> str:
    if isinstance(image, dict):
        return str(image.get("path") or "bytes")
    return str(image) if not isinstance(image, (bytes, np.ndarray, torch.Tensor)) else type(image).__name__
