"""Score a stream of images: worker processes make views ahead of the model, and results keep the input order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

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


class _Views(TorchDataset):
    """The views of an image, or the message of the error: one bad image must not stop the others.

    Its keys are the images themselves, or their numbers in the list that it was made with.
    """

    def __init__(
        self, processor: SindImageProcessor, mode: ViewMode | None, images: Sequence[Any] | None = None
    ) -> None:
        self.processor, self.mode, self.images = processor, mode or processor.views, images

    def __getitem__(self, key: LocatedImage | int) -> tuple[torch.Tensor, torch.Tensor] | str:
        image: Any = key if self.images is None else self.images[key]  # type: ignore[index]
        try:
            if isinstance(image, LocatedImage):
                views = image.make_views(self.processor, self.mode)
            elif isinstance(image, PreparedPicture):
                views = image.make_views(self.mode)
            else:
                views = self.processor.make_views(image, self.mode)
        except ImageError as error:
            return str(error)
        return torch.from_numpy(views[0]), torch.from_numpy(views[1])


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
    dataset = _Views(processor, views, images)
    keys = ((_name(images[number]), number) for number in range(len(images)))
    yield from _score(model, dataset, keys, batch_size, workers, quality_maps)


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

    The stream is read in this process, a few batches ahead of the model. What it yields goes to the workers, which
    read, decode and cut. It should therefore be quick and yield no pixels.

    Yields:
        Every image with its result, in the order of the stream.

    Raises:
        ValueError: When maps are asked of a variant without patch tokens.
    """
    handed_out: deque[LocatedImage] = deque()

    def keys() -> Iterator[tuple[str, LocatedImage]]:
        for image in images:
            handed_out.append(image)
            yield image.name, image

    for row in _score(model, _Views(processor, views), keys(), batch_size, workers, quality_maps):
        yield handed_out.popleft(), row


def _score(
    model: ScoringModel,
    dataset: _Views,
    keys: Iterable[tuple[str, Any]],
    batch_size: int,
    workers: int,
    quality_maps: bool,
) -> Iterator[ScoredImage]:
    """Score what `dataset` has under a stream of (name, key)."""
    if quality_maps and model.config.local_branch != "patch":
        raise ValueError(f"No quality maps: this model's local_branch is {model.config.local_branch!r}, not 'patch'.")
    waiting: deque[list[str]] = deque()  # the names of every batch that was handed to the loaders

    def batches() -> Iterator[list[Any]]:
        stream = iter(keys)
        while batch := list(islice(stream, batch_size)):
            waiting.append([name for name, _ in batch])
            yield [key for _, key in batch]

    # The loader takes keys from its sampler only as fast as results are fetched: memory does not grow with the stream.
    loader = DataLoader(dataset, batch_sampler=batches(), num_workers=workers, collate_fn=_collate)
    for good, global_views, local_views, errors in loader:
        names = waiting.popleft()
        scores, maps = _forward(model, global_views, local_views, quality_maps) if good else ([], None)
        results: list[ScoredImage | None] = [None] * len(names)
        for row, slot in enumerate(good):
            name, score = names[slot], scores[row]
            if math.isfinite(score):
                results[slot] = ScoredImage(name, score, quality_map=None if maps is None else maps[row])
            else:
                results[slot] = ScoredImage(name, error=f"{name}: the model's score is {score}")
        for slot, error in errors:
            results[slot] = ScoredImage(names[slot], error=error)
        yield from (result for result in results if result is not None)


@torch.inference_mode()
def _forward(
    model: ScoringModel, global_views: torch.Tensor, local_views: torch.Tensor, quality_maps: bool
) -> tuple[list[float], npt.NDArray[np.float32] | None]:
    output: Any = model(global_views.to(model.device), local_views.to(model.device), output_quality_map=quality_maps)
    return output.quality.tolist(), output.quality_map.cpu().numpy() if quality_maps else None


def _collate(samples: list[Any]) -> tuple[list[int], torch.Tensor | None, torch.Tensor | None, list[tuple[int, str]]]:
    good = [slot for slot, sample in enumerate(samples) if not isinstance(sample, str)]
    errors = [(slot, sample) for slot, sample in enumerate(samples) if isinstance(sample, str)]
    if not good:
        return good, None, None, errors
    global_views, local_views = (torch.stack([samples[slot][view] for slot in good]) for view in (0, 1))
    return good, global_views, local_views, errors


def _name(image: ImageSource | PreparedPicture) -> str:
    if isinstance(image, dict):
        return str(image.get("path") or "bytes")
    return str(image) if not isinstance(image, (bytes, np.ndarray, torch.Tensor)) else type(image).__name__
