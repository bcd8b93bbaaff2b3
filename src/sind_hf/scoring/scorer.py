"""Score a stream of pictures: worker processes make views ahead of the model, results come in input order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sind_hf.data.prepared_pictures import PreparedPicture, PreparedPictures
from sind_hf.image_processing_sind import ImageError, ImageSource, SindImageProcessor, ViewMode
from sind_hf.scoring.onnx_model import ScoringModel


@dataclass(frozen=True)
class ScoredImage:
    """The result for one picture: a score, or why there is none.

    Attributes:
        image: The picture, as it was named.
        score: Higher is better; None when the picture could not be scored.
        error: What was wrong, in words; None when it was scored.
        quality_map: (7, 7) float32 when asked for: what each fragment adds to the raw score.
    """

    image: str
    score: float | None = None
    error: str | None = None
    quality_map: npt.NDArray[np.float32] | None = None


class _Views(TorchDataset):
    """The views of each picture, or the words of the error: one bad picture must not stop the others."""

    def __init__(
        self, images: Sequence[ImageSource | PreparedPicture], processor: SindImageProcessor, mode: ViewMode
    ) -> None:
        self.images, self.processor, self.mode = images, processor, mode

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | str:
        image = self.images[index]
        try:
            if isinstance(image, PreparedPicture):
                global_views, local_views = image.make_views(self.mode)
            else:
                global_views, local_views = self.processor.make_views(image, self.mode)
        except ImageError as error:
            return str(error)
        return torch.from_numpy(global_views), torch.from_numpy(local_views)


def score_images(
    model: ScoringModel,
    processor: SindImageProcessor,
    images: Sequence[ImageSource | PreparedPicture],
    *,
    views: ViewMode = "center",
    batch_size: int = 16,
    workers: int = 0,
    quality_maps: bool = False,
) -> Iterator[ScoredImage]:
    """Score pictures one batch at a time; yields results in input order, errors included.

    Args:
        model: On its device, in evaluation mode; or an exported one.
        processor: Of the same checkpoint.
        images: Paths, or anything else that `load_image` takes; or the `PreparedPictures` of prepared data.
        views: `"center"`, or `"nine"` (nine times the work, steadier).
        batch_size: Pictures per forward pass.
        workers: Processes that load pictures ahead of the model; 0 loads in this one.
        quality_maps: Whether results carry maps.

    Raises:
        ValueError: When maps are asked of a variant without patch tokens, or pictures were prepared otherwise than
            the processor would.
    """
    if isinstance(images, PreparedPictures):
        images.require(processor)
    if quality_maps and model.config.local_branch != "patch":
        raise ValueError(f"No quality maps: this model's local_branch is {model.config.local_branch!r}, not 'patch'.")
    loader = DataLoader(
        _Views(images, processor, views), batch_size=batch_size, num_workers=workers, collate_fn=_collate
    )
    position = 0
    for good, global_views, local_views, errors in loader:
        scores, maps = _forward(model, global_views, local_views, quality_maps) if good else ([], None)
        results: list[ScoredImage | None] = [None] * (len(good) + len(errors))
        for row, slot in enumerate(good):
            name, score = _name(images[position + slot]), scores[row]
            if math.isfinite(score):
                results[slot] = ScoredImage(name, score, quality_map=None if maps is None else maps[row])
            else:
                results[slot] = ScoredImage(name, error=f"{name}: the model's score is {score}")
        for slot, error in errors:
            results[slot] = ScoredImage(_name(images[position + slot]), error=error)
        yield from (result for result in results if result is not None)
        position += len(results)


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
