"""Score images of all kinds in the loop of the model, with their names and errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from sind_hf.data.prepared.images import PreparedPicture, PreparedPictures
from sind_hf.image_processing_sind import ImageError, ImageSource, SindImageProcessor, ViewMode
from sind_hf.onnx.model import ScoringModel
from sind_hf.scoring.images import LocatedImage


@dataclass(frozen=True)
class ScoredImage:
    """The result for one image: a score, or the reason why there is none.

    Attributes:
        image: Name of the image.
        score: Score of the image (higher is better); None when it could not be scored.
        error: What was wrong; None when the image was scored.
        quality_map: (7, 7) float32 when asked for: what each fragment adds to the raw score.
    """

    image: str
    score: float | None = None
    error: str | None = None
    quality_map: npt.NDArray[np.float32] | None = None


def score_images(
    model: ScoringModel,
    processor: SindImageProcessor,
    images: Sequence[ImageSource | PreparedPicture],
    *,
    views: ViewMode | None = None,
    batch_size: int = 16,
    workers: int = 0,
    quality_maps: bool = False,
) -> Iterator[ScoredImage]:
    """Score images batch by batch; yield results in input order, errors included.

    Args:
        model: Model on its device, in evaluation mode; or an exported one.
        processor: Image processor of the same checkpoint.
        images: Paths, or anything else that `load_image` takes; or the `PreparedPictures` of prepared data.
        views: `"center"`, or `"nine"` (nine times the work, steadier); default: the processor's own.
        batch_size: Images per forward pass.
        workers: Processes that load images ahead of the model; 0 loads in this one.
        quality_maps: Whether results carry maps.

    Raises:
        ValueError: When maps are asked of a variant without patch tokens, or images were prepared otherwise than
            the processor would.
    """
    if isinstance(images, PreparedPictures):
        images.require(processor)
    located = (LocatedImage(_name(image), image) for image in images)
    options = {"views": views, "batch_size": batch_size, "workers": workers, "quality_maps": quality_maps}
    yield from (row for _, row in score_stream(model, processor, located, **options))


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
        ValueError: When maps are asked of a variant without patch tokens.
    """
    make_views = partial(LocatedImage.make_views, processor=processor, mode=views or processor.views)
    options = {"batch_size": batch_size, "workers": workers, "quality_maps": quality_maps}
    for image, result in model.score_stream(images, make_views, **options):
        if isinstance(result, ImageError):
            yield image, ScoredImage(image.name, error=str(result))
            continue
        score, quality_map = result
        if not math.isfinite(score):
            yield image, ScoredImage(image.name, error=f"{image.name}: the model's score is {score}")
        else:
            found = None if quality_map is None else quality_map.numpy()
            yield image, ScoredImage(image.name, score, quality_map=found)


def _name(image: ImageSource | PreparedPicture) -> str:
    if isinstance(image, dict):
        return str(image.get("path") or "bytes")
    return str(image) if not isinstance(image, (bytes, np.ndarray, torch.Tensor)) else type(image).__name__
