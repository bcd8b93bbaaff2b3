"""Training on distorted crops: three comparisons in every batch, and the order of the levels of a ladder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn

from sind_hf.data.sampling import Draw
from sind_hf.data.views import ViewDataset
from sind_hf.image_processing_sind import ViewMode
from sind_hf.losses import FLOOR, by_scene
from sind_hf.modeling_sind import SindOutput
from sind_hf.training.trainer import SindTrainer

#: A level's score is to be lower than that of the level before by this share of the difference between their labels.
MARGIN = 0.5
#: And at least by this much: at the end of a ladder labels, being ranks, hardly differ.
LEAST_FALL = 0.1


class FragmentViews(ViewDataset):
    """Training views that carry, besides the score of the picture, a score for each of its fragments.

    Args:
        *args: Of `ViewDataset`; the pictures are prepared.
        fragments: (7, 7) scores by picture, top left first.
        ladders: Pictures of which the whole scene is a ladder.
        **kwargs: Of `ViewDataset`.
    """

    def __init__(
        self,
        *args: Any,
        fragments: dict[str, npt.NDArray[np.float32]],
        ladders: Collection[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        names = [self.image_name(index) for index in range(len(self))]
        self._fragments = np.stack([fragments[name] for name in names])
        self._in_ladder = np.array([name in ladders for name in names])

    def __getitem__(self, key: Draw | int) -> dict[str, Tensor]:
        """As `ViewDataset`, with `fragment_labels`, float32 (7, 7), flipped with the local view, and `in_ladder`."""
        sample = super().__getitem__(key)
        if isinstance(key, Draw):
            sample["in_ladder"] = torch.tensor(bool(self._in_ladder[key.index]))
            labels = self._fragments[key.index]
            flipped = labels[:, ::-1] if self.plan(key).flip_local else labels
            sample["fragment_labels"] = torch.from_numpy(flipped.copy())
        return sample


class PretrainingTrainer(SindTrainer):
    """Trains on crops that are scored against their originals, see `sind_hf.pretraining.crops`.

    The loss `args.loss_type` compares three things, with equal weight: the versions of one photograph with each other
    (`scene_sampling` photographs in a batch), which takes the content out; all pictures of the batch, which is what a
    score without a reference needs in the end; and all their fragments, 49 times as many, by the quality map, which is
    what makes little data go far. With `order`, `order · order_loss` of the ladders in the batch is added.

    Args:
        *args: Of `SindTrainer`.
        fragments: (7, 7) scores by picture, as `label_crops` returns them.
        ladders: Pictures of which the whole scene is a ladder.
        order: Weight of the order of their levels.
        **kwargs: Of `SindTrainer`.
    """

    def __init__(
        self,
        *args: Any,
        fragments: dict[str, npt.NDArray[np.float32]],
        ladders: Collection[str] = (),
        order: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self._fragments = fragments
        self._ladders = frozenset(ladders)
        self._order = order
        super().__init__(*args, **kwargs)

    def _views(self, dataset: Dataset, mode: ViewMode) -> ViewDataset:
        if mode != "train":
            return super()._views(dataset, mode)
        return FragmentViews(dataset, fragments=self._fragments, ladders=self._ladders, **self._view_options(mode))

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
        if self._order:
            loss = loss + self._order * order_loss(quality, labels, inputs["scene_ids"], inputs["in_ladder"])
        self._require_number(loss, quality, inputs)
        return (loss, outputs) if return_outputs else loss


def order_loss(quality: Tensor, labels: Tensor, scene_ids: Tensor, in_ladder: Tensor) -> Tensor:
    """Ask that the score falls from each level of a ladder to the next.

    Of neighbours by label in one ladder, i above j, the mean of `max(0, m - (q_i - q_j))`, where the margin m is
    `max(MARGIN · (y_i - y_j), LEAST_FALL)`, with scores q and labels y in units of their deviation over the batch. The
    correlation of a ladder's scores with its labels hardly minds one step the wrong way; this does.

    Args:
        quality: Scores, (n,) or (n, 1).
        labels: (n,), higher better.
        scene_ids: Ladder of each picture, (n,).
        in_ladder: (n,), bool; the others do not count.

    Returns:
        A float32 scalar; 0 where no ladder has two different labels.
    """
    with torch.autocast(quality.device.type, enabled=False):
        scores, labels = quality.reshape(-1).float(), labels.reshape(-1).float()
        scores, labels = (x / x.std(correction=0).clamp_min(FLOOR) for x in (scores, labels))
        lacking = []
        for scene in scene_ids[in_ladder].unique():
            members = (in_ladder & (scene_ids == scene)).nonzero()[:, 0]
            members = members[labels[members].argsort()]
            steps, asked = scores[members].diff(), labels[members].diff()
            lacking.append(F.relu((MARGIN * asked).clamp_min(LEAST_FALL) - steps)[asked > 0])
        short = torch.cat([scores.new_zeros(0), *lacking])
        return short.mean() if len(short) else scores.sum() * 0
