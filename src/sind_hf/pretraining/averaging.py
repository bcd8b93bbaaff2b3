"""The mean of several checkpoints of one network, with BatchNorm statistics of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sind_hf.data.manifest import Manifest
from sind_hf.data.prepared import load_prepared
from sind_hf.data.prepared_pictures import PreparedPictures
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.scoring.checkpoints import load_checkpoint

#: One picture of so many is enough for the statistics.
_EVERY = 8
_BATCH = 64


def average_checkpoints(
    folders: Sequence[Path], pictures: Sequence[Manifest], prepared: str | os.PathLike[str]
) -> tuple[SindModel, SindImageProcessor]:
    """Average the weights of checkpoints that went on from one another.

    As they lie close together their mean is better on other photographs than each of them (Wortsman et al., Model
    soups, ICML 2022). What passes through its layers is not the mean of what passed through theirs, though, so
    BatchNorm's statistics are measured anew (Izmailov et al., Averaging weights leads to wider optima and better
    generalization, UAI 2018).

    Args:
        folders: Of the checkpoints.
        pictures: What they were trained with, for the statistics.
        prepared: Folder of prepared data that has them.

    Returns:
        The mean, in evaluation mode, and the image processor of the last.
    """
    loaded = [load_checkpoint(str(folder), device="cpu") for folder in folders]
    states = [each.state_dict() for each, _ in loaded]
    model, processor = loaded[-1]
    means = {
        name: torch.stack([state[name] for state in states]).mean(0)
        for name, last in states[-1].items()
        if last.is_floating_point()
    }
    model.load_state_dict(means, strict=False)
    update_bn(_batches(pictures, prepared, processor), _OfPairs(model))
    return model.eval(), processor


class _OfPairs(nn.Module):
    """A model as `update_bn` calls it: with one tensor, here (n, 2, 3, s, s), of pairs of views."""

    def __init__(self, model: SindModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pairs: Tensor) -> None:
        self.model(*pairs.unbind(1))


def _batches(
    manifests: Sequence[Manifest], prepared: str | os.PathLike[str], processor: SindImageProcessor
) -> Iterator[Tensor]:
    """Full batches of pairs of views, of pictures from all manifests in random order."""
    rng = np.random.default_rng(0)
    sets = [PreparedPictures(load_prepared(prepared, manifest)) for manifest in manifests]
    for each in sets:
        each.require(processor)
    drawn = [(each, place) for each in sets for place in rng.choice(len(each), -(-len(each) // _EVERY), replace=False)]
    drawn = [drawn[place] for place in rng.permutation(len(drawn))]
    size = min(_BATCH, len(drawn))
    for first in range(0, len(drawn) - size + 1, size):
        views = [each[int(place)].make_views("center") for each, place in drawn[first : first + size]]
        yield torch.from_numpy(np.stack([np.stack(pair) for pair in views]))
