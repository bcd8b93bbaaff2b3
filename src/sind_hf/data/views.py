"""Views of a dataset of images, which training and evaluation read.

`ViewDataset` makes views from a Hugging Face dataset with columns for the image, its score and its scene. Views are
uint8; the model normalizes them on its own device. Random crops depend on (seed, epoch, position in the epoch), which
every draw of the batch samplers carries. So an image that is drawn twice is cropped twice, and neither the number of
workers nor an interruption changes a crop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import ClassLabel, Dataset, Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from sind_hf.data.prepared.images import PreparedImages
from sind_hf.data.sampling import Draw
from sind_hf.files import counted
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, ViewMode, ViewPlan, plan_views


class ViewDataset(TorchDataset):
    """Views, score and scene of every image of a Hugging Face dataset.

    Args:
        dataset: Dataset with one image per row; the image column is an `Image` feature or contains paths. If it also
            has prepared images (`load_prepared`), views are cut from those.
        processor: Image processor, which decides about the size of the views and the resizing.
        mode: `"train"`, `"center"` or `"nine"`.
        seed: Seed of the random crops of `"train"`.
        image_column: Name of the image column.
        score_column: Name of the score column (higher is better), or None for images without scores.
        scene_column: Name of the scene column (`ClassLabel`, integers or strings), or None.
        with_rows: Whether samples contain the number of their `row`, so that messages can name their images.

    Raises:
        ValueError: If a column is missing, a score is missing or not finite, or prepared images have another size
            than the processor's views; the message says where.
    """

    def __init__(
        self,
        dataset: Dataset,
        processor: SindImageProcessor,
        mode: ViewMode,
        *,
        seed: int = 0,
        image_column: str = "image",
        score_column: str | None = "score",
        scene_column: str | None = "scene",
        with_rows: bool = False,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise ValueError(
                f"Expected a datasets.Dataset, got {type(dataset).__name__}: build a dataset from your images."
            )
        self.processor = processor
        self.mode = mode
        self.seed = seed
        self.with_rows = with_rows
        # A transform (`set_transform`) may change the image, but not the scores and scenes.
        self._transformed = dataset if dataset.format["type"] == "custom" else None
        dataset = dataset.with_format(None)
        _require_column(dataset, "image", image_column)
        self.scores: npt.NDArray[np.float64] | None = None
        if score_column is not None:
            _require_column(dataset, "score", score_column)
            self.scores = _read_scores(dataset, score_column)
        self.scene_names: list[str] | None = None
        self.scenes: npt.NDArray[np.int64] | None = None
        if scene_column is not None and scene_column in dataset.column_names:
            self.scene_names, self.scenes = _read_scenes(dataset, scene_column)
        images = dataset.select_columns([image_column])
        if isinstance(images.features[image_column], Image):
            # Not decoded here: our loader decides about orientation, transparency and errors.
            images = images.cast_column(image_column, Image(decode=False))
        self._images = images
        self._column = image_column
        self._prepared: PreparedImages | None = None
        if PreparedImages.are_in(dataset):
            self._prepared = PreparedImages(dataset, image_column)
            self._prepared.require(processor)
            if self._transformed is not None:
                raise ValueError(
                    "The dataset has a transform (set_transform), but its images are prepared already: call "
                    "reset_format() on it, or train from the images themselves."
                )

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """Return the path of image `index`, or its row if it has none, for messages."""
        source = self._images[index][self._column]
        path = source.get("path") if isinstance(source, dict) else source
        return path if isinstance(path, str) and path else f"row {index}"

    def plan(self, draw: Draw) -> ViewPlan:
        """Return the position of the random views of one draw, for data that must be cut or flipped like them.

        Raises:
            ValueError: If the images are not prepared, because their sizes are unknown until they are decoded.
        """
        if self._prepared is None:
            raise ValueError("Only views of prepared images can be planned: prepare the dataset first.")
        image = self._prepared[draw.index]
        (plan,) = plan_views("train", image.local_image.shape[:2], image.view_size, self._generator(draw))
        return plan

    def _generator(self, draw: Draw) -> np.random.Generator:
        return np.random.default_rng([self.seed, draw.epoch, draw.position])

    def _source(self, index: int) -> Any:
        """Return the source of the views of image `index`: a path, bytes, or a transformed image."""
        if self._transformed is None:
            source = self._images[index][self._column]
            return {"path": source} if isinstance(source, str) else source  # read as a file, never as a URL
        row = self._transformed[index]
        if self._column not in row:
            raise ValueError(
                f"The dataset's transform (set_transform) returns no column {self._column!r}: let it return the "
                "image, or call reset_format() on the dataset."
            )
        return row[self._column]

    def __getitem__(self, key: Draw | int) -> dict[str, Tensor]:
        """Return the views of one image.

        Args:
            key: `Draw` of a batch sampler, or an index for views that are not random.

        Returns:
            `pixel_values` and `local_pixel_values`, uint8, (3, s, s), or (9, 3, s, s) in mode `"nine"`; `labels`, the
            score, float64, if the dataset has scores; `scene_ids`, int64, 0 for every image if it has no scenes;
            `row`, with `with_rows`.

        Raises:
            ImageError: If the image cannot be read; the message names it.
            ValueError: If an index is given for random views.
        """
        index = key.index if isinstance(key, Draw) else int(key)
        if self.mode == "train" and not isinstance(key, Draw):
            raise ValueError("Random views need a Draw: iterate with a batch sampler of sind_hf.data.sampling.")
        generator = self._generator(key) if isinstance(key, Draw) else None
        if self._prepared is not None:
            views = self._prepared[index].make_views(self.mode, generator)
        else:
            try:
                views = self.processor.make_views(self._source(index), self.mode, generator)
            except ImageError as error:
                raise ImageError(f"row {index} of the dataset: {error}") from error
        global_views, local_views = (torch.from_numpy(view if self.mode == "nine" else view[0]) for view in views)
        sample = {
            "pixel_values": global_views,
            "local_pixel_values": local_views,
            "scene_ids": torch.tensor(0 if self.scenes is None else self.scenes[index]),
        }
        if self.scores is not None:
            sample["labels"] = torch.tensor(self.scores[index], dtype=torch.float64)
        return sample | ({"row": torch.tensor(index)} if self.with_rows else {})


def _require_column(dataset: Dataset, role: str, name: str) -> None:
    if name not in dataset.column_names:
        raise ValueError(
            f"The dataset has no {role} column {name!r}; it has {', '.join(map(repr, dataset.column_names))}. "
            f"Rename one, or set {role}_column."
        )


def _read_scores(dataset: Dataset, column: str) -> npt.NDArray[np.float64]:
    try:
        scores = np.asarray(dataset[column][:], dtype=np.float64)
    except (TypeError, ValueError):
        scores = np.empty((0, 0))
    if scores.ndim != 1:
        raise ValueError(f"The score column {column!r} does not hold one number per image.")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ValueError(
            f"The score column {column!r} has no finite number for {counted(len(bad), 'image')}, first in row "
            f"{bad[0]}: leave them out."
        )
    return scores


def _read_scenes(dataset: Dataset, column: str) -> tuple[list[str], npt.NDArray[np.int64]]:
    values, feature = dataset[column][:], dataset.features[column]
    classes = isinstance(feature, ClassLabel)
    missing = [row for row, value in enumerate(values) if value is None or (classes and value == -1)]
    if missing:
        raise ValueError(
            f"The scene column {column!r} is empty for {counted(len(missing), 'image')}, first in row {missing[0]}: "
            "name their scenes, or remove the column and train with scene_sampling=0."
        )
    if np.ndim(values) != 1:
        raise ValueError(f"The scene column {column!r} does not hold one scene per image.")
    names, ids = np.unique(np.asarray(values), return_inverse=True)
    labels = [feature.int2str(int(name)) if classes else str(name) for name in names]
    return labels, ids.astype(np.int64)
