"""Training on distorted crops: three comparisons in every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor, nn

from sind_hf.data.sampling import Draw
from sind_hf.data.views import ViewDataset
from sind_hf.image_processing_sind import ViewMode
from sind_hf.losses import by_scene
from sind_hf.modeling_sind import SindOutput
from sind_hf.training.trainer import SindTrainer


class FragmentViews(ViewDataset):
    """Training views that carry, besides the score of the picture, a score for each of its fragments.

    Args:
        *args: Of `ViewDataset`; the pictures are prepared.
        fragments: (7, 7) scores by picture, top left first.
        **kwargs: Of `ViewDataset`.
    """

    def __init__(self, *args: Any, fragments: dict[str, npt.NDArray[np.float32]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fragments = np.stack([fragments[self.image_name(index)] for index in range(len(self))])

    def __getitem__(self, key: Draw | int) -> dict[str, Tensor]:
        """As `ViewDataset`, with `fragment_labels`, float32 (7, 7), flipped where the local view is."""
        sample = super().__getitem__(key)
        if isinstance(key, Draw):
            labels = self._fragments[key.index]
            flipped = labels[:, ::-1] if self.plan(key).flip_local else labels
            sample["fragment_labels"] = torch.from_numpy(flipped.copy())
        return sample


class PretrainingTrainer(SindTrainer):
    """Trains on crops that are scored against their originals, see `sind_hf.pretraining.crops`.

    The loss `args.loss_type` compares three things, with equal weight: the versions of one photograph with each other
    (`scene_sampling` photographs in a batch), which takes the content out; all pictures of the batch, which is what a
    score without a reference needs in the end; and all their fragments, 49 times as many, by the quality map, which is
    what makes little data go far.

    Args:
        *args: Of `SindTrainer`.
        fragments: (7, 7) scores by picture, as `label_crops` returns them.
        **kwargs: Of `SindTrainer`.
    """

    def __init__(self, *args: Any, fragments: dict[str, npt.NDArray[np.float32]], **kwargs: Any) -> None:
        self._fragments = fragments
        super().__init__(*args, **kwargs)

    def _views(self, dataset: Dataset, mode: ViewMode) -> ViewDataset:
        if mode != "train":
            return super()._views(dataset, mode)
        return FragmentViews(dataset, fragments=self._fragments, **self._view_options(mode))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, SindOutput]:
        """Score the batch and its fragments, and compare within photographs, across them, and between fragments."""
        if "fragment_labels" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(inputs["pixel_values"], inputs["local_pixel_values"], output_quality_map=True)
        quality, labels, kind = outputs["quality"], inputs["labels"], self.args.loss_type
        loss = torch.stack(
            [
                by_scene(quality, labels, inputs["scene_ids"], kind),
                by_scene(quality, labels, None, kind),
                by_scene(outputs["quality_map"], inputs["fragment_labels"], None, kind),
            ]
        ).mean()
        self._require_number(loss, quality, inputs)
        return (loss, outputs) if return_outputs else loss
