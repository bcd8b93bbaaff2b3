"""A head that follows opinions, over a backbone that stays as it is: ridge regression on its tokens.

A few hundred opinions say little about pictures unlike theirs. Fitted so, they turn the head only as far as they must,
which on scenes that were left out did better than training all weights with them (docs/results.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sind_hf.data.manifest import Manifest
from sind_hf.data.prepared import load_prepared
from sind_hf.data.prepared_pictures import PreparedPictures
from sind_hf.image_processing_sind import SindImageProcessor, ViewMode
from sind_hf.modeling_sind import SindModel

Array = npt.NDArray[np.float64]
#: Weight of the ridge, for each picture with an opinion.
STRENGTH = 5.0
#: Weight of steps of distortion on which the score does not fall by `FALL`, beside that of the opinions.
STEP_WEIGHT = 100.0
#: The least fall that is asked, in units of the opinions.
FALL = 0.05
_ROUNDS = 50
_BATCH = 16


@dataclass(frozen=True)
class Head:
    """A linear head, `score = embedding · weight + bias`.

    Attributes:
        weight: (d,), of the class token's part and the patch tokens' part.
        bias: Score of an embedding of zeros.
    """

    weight: Array
    bias: float

    def __call__(self, embeddings: Array) -> Array:
        """Score embeddings, (n, d) to (n,)."""
        return embeddings @ self.weight + self.bias

    @classmethod
    def of(cls, model: SindModel) -> Head:
        """Return the head of a model, its calibration included."""
        head, config = model.quality_head, model.config
        weight, bias = (part.detach().double().cpu().numpy() for part in (head.weight[0], head.bias[0]))
        return cls(config.score_scale * weight, float(config.score_scale * bias + config.score_shift))

    def put_into(self, model: SindModel) -> None:
        """Give a model this head, and no calibration besides."""
        with torch.no_grad():
            model.quality_head.weight.copy_(torch.from_numpy(self.weight)[None])
            model.quality_head.bias.fill_(self.bias)
        model.config.score_scale, model.config.score_shift = 1.0, 0.0


@torch.inference_mode()
def embed(
    model: SindModel,
    processor: SindImageProcessor,
    manifest: Manifest,
    prepared: str | os.PathLike[str],
    views: ViewMode | None = None,
) -> Array:
    """Return what the head reads of every picture: (pictures, d), averaged over its views.

    Args:
        model: In evaluation mode.
        processor: Of the same checkpoint.
        manifest: Pictures.
        prepared: Folder of prepared data that has them.
        views: Default: the processor's own.
    """
    pictures = PreparedPictures(load_prepared(prepared, manifest))
    pictures.require(processor)
    found = []
    for first in range(0, len(pictures), _BATCH):
        pairs = [picture.make_views(views or processor.views) for picture in pictures[first : first + _BATCH]]
        both = (torch.from_numpy(np.stack(each)).to(model.device) for each in zip(*pairs, strict=True))
        output = model(*both)
        parts = [part for part in (output.global_embeds, output.local_embeds) if part is not None]
        found.append(torch.cat(parts, dim=-1).double().cpu().numpy())
    return np.concatenate(found)


def fit_head(
    start: Head,
    embeddings: Array,
    opinions: Array,
    spread: Array,
    strength: float = STRENGTH,
    steps: Array | None = None,
) -> Head:
    """Turn a head towards opinions, or towards scores of another kind.

    The scores of `start` are put on the scale of the opinions by a straight line; what is left of the opinions is
    then explained by ridge regression, which keeps the change of the weights small: `min_d |r - E·d|² + n · strength
    · |spread · d|²` over the centred embeddings E and rests r. With `steps`, the opinions do not undo what is known
    of distortions: `n · STEP_WEIGHT` times the mean of `max(0, step · weight + FALL)²` is added, in Newton's steps.

    Args:
        start: Head to stay close to.
        embeddings: (n, d) of the rated pictures.
        opinions: (n,), higher better.
        spread: (d,), standard deviation of the embedding over pictures of all kinds: a change is measured by what it
            does to those.
        strength: Of the ridge; large: only the scale follows the opinions.
        steps: (m, d), by how much embeddings change where a picture becomes worse, which the score should follow.

    Raises:
        ValueError: When the scores of `start` do not rise with the opinions.
    """
    scores = start(embeddings)
    slope, shift = np.polyfit(scores, opinions, 1)
    if slope <= 0:
        raise ValueError(f"The scores fall as the opinions rise (slope {slope:.3g}): there is nothing to start from.")
    rest = opinions - (slope * scores + shift)
    centre = embeddings.mean(0)
    centred = embeddings - centre
    curvature = centred.T @ centred + len(opinions) * strength * np.diag(np.maximum(spread, 1e-6) ** 2)
    change = np.linalg.solve(curvature, centred.T @ rest)
    if steps is not None:
        share = len(opinions) * STEP_WEIGHT / len(steps)
        lacking, before = slope * (steps @ start.weight) + FALL, None
        for _ in range(_ROUNDS):
            counted = lacking + steps @ change > 0
            if before is not None and np.array_equal(counted, before):
                break
            some, before = steps[counted], counted
            target = centred.T @ rest - share * some.T @ lacking[counted]
            change = np.linalg.solve(curvature + share * some.T @ some, target)
    return Head(slope * start.weight + change, float(slope * start.bias + shift - centre @ change))
