"""Views of images, kept as uint8 arrays: a training sample is a slice of a memory-mapped file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sind_hf.image_processing_sind import cut_views, plan_views, resize_images

Pixels = npt.NDArray[np.uint8]


def cut(
    image: Image.Image, view_size: int, fragments: int, rng: np.random.Generator, *, centered: bool = True
) -> tuple[Pixels, Pixels]:
    """Return what the views of an image are drawn from.

    Args:
        image: RGB image.
        view_size: Side s of the views in pixels.
        fragments: Number of local views with fragments at random places.
        rng: Source of these places.
        centered: Whether the local view with centered fragments comes first.

    Returns:
        The resized image, (3, 8s/7, 8s/7), and the local views, (n, 3, s, s).
    """
    whole, resized = resize_images(image, view_size)
    size = (resized.shape[0], resized.shape[1])
    plans = plan_views("center", size, view_size) if centered else []
    plans += [plan_views("train", size, view_size, rng)[0] for _ in range(fragments)]
    return np.ascontiguousarray(whole.transpose(2, 0, 1)), cut_views(whole, resized, plans, view_size)[1]


class Views:
    """Images as what `cut` returns of each, with a label per image.

    Args:
        whole: Resized images.
        local: Local views of each; the first one stands for the image in tests.
        labels: Label of each, higher is better.
    """

    def __init__(self, whole: Sequence[Pixels], local: Sequence[Pixels], labels: npt.NDArray[np.float64]) -> None:
        self.whole, self.local, self.labels = whole, local, labels

    def __len__(self) -> int:
        return len(self.labels)

    def drawn(self, indices: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return global and local views at random places, each flipped half of the time: uint8 (n, 3, s, s)."""
        pairs = []
        for index in indices:
            whole, local = self.whole[index], self.local[index]
            top, left = rng.integers(0, whole.shape[-1] - local.shape[-1] + 1, 2)
            pair = [_crop(whole, top, left, local.shape[-1]), local[int(rng.integers(len(local)))]]
            pairs.append(
                [view[..., ::-1] if flip else view for view, flip in zip(pair, rng.random(2) < 0.5, strict=True)]
            )
        return _stacked(pairs)

    def centered(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return centered global views and first local views: uint8 (n, 3, s, s)."""
        pairs = []
        for index in indices:
            whole, local = self.whole[index], self.local[index]
            margin = (whole.shape[-1] - local.shape[-1]) // 2
            pairs.append([_crop(whole, margin, margin, local.shape[-1]), local[0]])
        return _stacked(pairs)


def _crop(whole: Pixels, top: int, left: int, size: int) -> Pixels:
    return whole[:, top : top + size, left : left + size]


def _stacked(pairs: Sequence[Sequence[Pixels]]) -> tuple[Tensor, Tensor]:
    whole, local = (torch.from_numpy(np.stack(views)) for views in zip(*pairs, strict=True))
    return whole, local
