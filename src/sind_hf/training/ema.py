"""Moving average of the weights, which evaluation and saving use (paper: EMA, decay 0.99)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Moving average of a model's weights: `average += (1 - d)·(weight - average)` after every optimizer step.

    The decay rises to its full value, `d = min(decay, (1 + n) / (10 + n))` at the n-th update (n from 1), so that the
    first weights are soon forgotten. Buffers (BatchNorm statistics) are averages already and are copied. The average
    has the dtype of the weights: train float32 weights, with autocast for speed.

    Args:
        model: Model to follow, without the wrapper of distributed training.
        decay: Share of the old average that is kept, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Set the average to the model's current state."""
        self._average = {name: value.detach().clone() for name, value in _tensors(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, n: int) -> None:
        """Follow the model after its n-th optimizer step (n from 1)."""
        keep = min(self.decay, (1 + n) / (10 + n))
        averages, weights = [], []
        parameters = dict(model.named_parameters())
        for name, value in _tensors(model):
            if name in parameters and value.is_floating_point():
                averages.append(self._average[name])
                weights.append(value.detach())
            else:
                self._average[name].copy_(value)
        torch._foreach_lerp_(averages, weights, 1 - keep)

    @contextmanager
    def averaged(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside a `with` block, and then its own weights back, bit for bit."""
        own = {name: value.detach().clone() for name, value in _tensors(model)}
        self.copy_to(model)
        try:
            yield
        finally:
            _write(model, own)

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights with the average."""
        _write(model, self._average)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


@torch.no_grad()
def _write(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in _tensors(model):
        value.copy_(values[name])
