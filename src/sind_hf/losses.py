"""Training losses: pure functions `(prediction, target) -> scalar`, and `by_scene`, which applies one per scene.

`prediction` and `target` are 1-D tensors of the same length n; higher is better. Every loss is a float32 scalar,
also under autocast. A scene with one image, constant scores or constant predictions gives a finite loss with finite
gradients: deviations of predictions are floored at `FLOOR` (the published epsilon of 1e-8 lets gradients reach 3e7
there).

The losses that align (`scale_shift`, `scale_shift_ls`, `plcc`) align the target in its own precision and without that
floor, and the pairwise losses compare it in its own precision: with a float64 target, opinion scores of 1e9 + 0…3 or
of the order of 1e-4 give the loss that 0…3 give. `l1`, `l2` and `huber` compare with the scores as they are.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-3  # smallest deviation that a distribution is divided by
EPSILON = 1e-8  # keeps the square roots of fidelity and kld differentiable at zero


def scale_shift(prediction: Tensor, target: Tensor) -> Tensor:
    """Scale-shift alignment, the loss of SIND: L1 between the two distributions after aligning both.

    `mean|(p - med p) / dev p - (y - med y) / dev y|` with the lower median `med` and `dev x = mean|x - med x|`.
    """
    return (_align(prediction) - _aligned_target(target)).abs().mean()


def scale_shift_ls(prediction: Tensor, target: Tensor) -> Tensor:
    """Alignment by least squares: L1 between `a·p + b` and the standardized target, a and b fitted to this batch.

    On standardized scores the fit is `a = correlation, b = 0`. Where a < 0 the fit would reward the reversed order,
    so the loss falls back to `plcc` there.
    """
    p, y = _standardize(prediction), _standardized_target(target)
    slope = (p * y).mean()  # the least-squares slope, since p has deviation 1
    # `where` on the slope, not on the losses: both branches are the same expression with slope 1 in plcc.
    return (torch.where(slope < 0, torch.ones_like(slope), slope) * p - y).abs().mean()


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, no alignment."""
    return F.l1_loss(prediction, target.to(prediction))


def l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, no alignment."""
    return F.mse_loss(prediction, target.to(prediction))


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 with its corner at an error of 1, no alignment."""
    return F.smooth_l1_loss(prediction, target.to(prediction))


def plcc(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the two standardized distributions (mean 0, population deviation 1)."""
    return (_standardize(prediction) - _standardized_target(target)).abs().mean()


def rank(prediction: Tensor, target: Tensor) -> Tensor:
    """Pairwise hinge on the order: `Σ relu((p_i - p_j)·sign(y_j - y_i)) / (n · (1 + largest term))`."""
    order = torch.sign(target[None] - target[:, None]).to(prediction)
    terms = F.relu((prediction[:, None] - prediction[None]) * order)
    return terms.sum() / (len(prediction) * (1 + terms.max()))


def fidelity(prediction: Tensor, target: Tensor) -> Tensor:
    """Fidelity between the predicted and the true probability that i beats j, mean over the pairs i < j.

    `P = Φ(p_i - p_j)` with the error function of the difference over √2, `G = 1[y_i > y_j]`, ½ on ties;
    `1 - √(P·G + 1e-8) - √((1-P)(1-G) + 1e-8)`. 0 if there is no pair.
    """
    i, j = _pairs(prediction)
    if len(i) == 0:
        return prediction.sum() * 0
    # The exact normal probability; its complement is evaluated as Φ(-x), which keeps precision in the tail.
    difference = (prediction[i] - prediction[j]) / math.sqrt(2)
    wins, loses = 0.5 * torch.erfc(-difference), 0.5 * torch.erfc(difference)
    truth = 0.5 * (torch.sign(target[i] - target[j]).to(prediction) + 1)
    return (1 - (wins * truth + EPSILON).sqrt() - (loses * (1 - truth) + EPSILON).sqrt()).mean()


def kld(prediction: Tensor, target: Tensor) -> Tensor:
    """Overlap of predicted and true preference, mean over the pairs i < j; 0 if there is no pair.

    `1 - Σ√(softmax(p_i, p_j) · (1[y_i ≥ y_j], 1[y_i ≤ y_j]) + 1e-8)`.
    """
    i, j = _pairs(prediction)
    if len(i) == 0:
        return prediction.sum() * 0
    predicted = torch.stack([prediction[i], prediction[j]], dim=-1).softmax(dim=-1)
    truth = torch.stack([target[i] >= target[j], target[i] <= target[j]], dim=-1).to(predicted.dtype)
    return (1 - (predicted * truth + EPSILON).sqrt().sum(dim=-1)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scale_shift": scale_shift,
    "scale_shift_ls": scale_shift_ls,
    "l1": l1,
    "l2": l2,
    "huber": huber,
    "plcc": plcc,
    "rank": rank,
    "fidelity": fidelity,
    "kld": kld,
    "plcc+rank": lambda prediction, target: plcc(prediction, target) + rank(prediction, target),
    "plcc+kld": lambda prediction, target: plcc(prediction, target) + kld(prediction, target),
}

#: Losses that compare predictions with the opinion scores in the unit of the scores.
UNALIGNED = ("l1", "l2", "huber")


def get_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss with this name.

    Raises:
        ValueError: If there is no such loss; the message lists the names.
    """
    if name not in LOSSES:
        close = difflib.get_close_matches(str(name), LOSSES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown loss {name!r}.{hint} Choose one of: {', '.join(LOSSES)}.")
    return LOSSES[name]


def by_scene(prediction: Tensor, target: Tensor, scene_ids: Tensor | None = None, name: str = "scale_shift") -> Tensor:
    """Apply a loss within each scene and average over the scenes present: the training objective (paper, alignment).

    Args:
        prediction: Scores, shape (n,) or (n, 1).
        target: Opinion scores of the same shape; higher is better. Float64 keeps scores apart that float32 rounds to
            one.
        scene_ids: Integer scene of each image, shape (n,). `None`: the whole batch is one scene.
        name: A key of `LOSSES`.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: If the name is unknown or the shapes differ.

    Example:
        >>> import torch
        >>> quality, scores = torch.tensor([0.1, 0.2, 7.0, 9.0]), torch.tensor([10.0, 20.0, 1.0, 2.0])
        >>> float(by_scene(quality, scores, torch.tensor([0, 0, 1, 1])))
        0.0
    """
    loss = get_loss(name)
    count = prediction.numel()
    if count == 0 or target.numel() != count or (scene_ids is not None and scene_ids.numel() != count):
        shapes = [tuple(x.shape) for x in (prediction, target, scene_ids) if x is not None]
        raise ValueError(f"prediction, target and scene_ids must hold one value per image, but have shapes {shapes}.")
    with torch.autocast(prediction.device.type, enabled=False):
        prediction, target = prediction.reshape(-1).float(), target.reshape(-1)
        target = target if target.dtype == torch.float64 else target.float()
        if scene_ids is None:
            return loss(prediction, target)
        scene_ids = scene_ids.reshape(-1)
        members = [scene_ids == scene for scene in scene_ids.unique()]
        return torch.stack([loss(prediction[m], target[m]) for m in members]).mean()


def _align(x: Tensor) -> Tensor:
    centered = x - x.median()  # torch's median is the lower one
    return centered / centered.abs().mean().clamp_min(FLOOR)


def _standardize(x: Tensor) -> Tensor:
    x = x - x.detach()[0]  # the mean of large, equal scores would leave a rounding error for the floor to magnify
    return (x - x.mean()) / x.var(correction=0).clamp_min(FLOOR**2).sqrt()


def _aligned_target(target: Tensor) -> Tensor:
    centered = _in_units_of_spread(target, target.median())
    return (centered / centered.abs().mean().clamp_min(EPSILON)).float()


def _standardized_target(target: Tensor) -> Tensor:
    x = _in_units_of_spread(target, target[0])
    x = x - x.mean()
    return (x / x.square().mean().sqrt().clamp_min(EPSILON)).float()


def _in_units_of_spread(target: Tensor, origin: Tensor) -> Tensor:
    """Return the differences from `origin`, the largest being 1; all 0 where they are only rounding errors."""
    differences = target - origin
    largest = differences.abs().max()
    rounding = 8 * torch.finfo(target.dtype).eps * target.abs().max()
    return torch.where(largest > rounding, differences / largest, 0)


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    return i, j
