"""Mean image quality as a metric of torchmetrics: for generated, restored or compressed images, without references."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sind_hf.checkpoints import load
from sind_hf.configuration_sind import BUNDLED
from sind_hf.onnx.model import ScoringModel

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ImportError('sind_hf.metrics_torch needs torchmetrics: pip install "sind-hf[metrics]"') from error


class ImageQuality(Metric):
    """Mean SIND score of all images since the last `reset`; higher is better.

    In distributed runs `compute` returns the mean over the images of all processes. The scores carry no gradients;
    `sind_hf.differentiable_views` is the way to a loss.

    Args:
        model: Name of a checkpoint, see `sind_hf.load`, or a loaded model. It is not trained.
        views: `"center"` or `"nine"`. Default: the checkpoint's own setting.
        batch_size: Images per forward pass.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no such checkpoint.

    Example:
        >>> import torch
        >>> from sind_hf.metrics_torch import ImageQuality
        >>> metric = ImageQuality()
        >>> metric.update(torch.rand(2, 3, 240, 320))
        >>> metric.compute().shape
        torch.Size([])
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    scores: list[Tensor]

    def __init__(
        self, model: str | ScoringModel = BUNDLED, *, views: str | None = None, batch_size: int = 8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(model, str):
            model = load(model)
            if isinstance(model, torch.nn.Module):
                model.requires_grad_(False)
        self.model, self.views, self.batch_size = model, views, batch_size
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, images: Any) -> None:
        """Score more images.

        Args:
            images: (B, 3, H, W), floating point in [0, 1] or uint8; or whatever else `SindModel.score` takes.

        Raises:
            ValueError: If an image cannot be read.
        """
        scores = self.model.score(images, batch_size=self.batch_size, views=self.views)
        self.scores.append(torch.tensor(scores, device=self.device))

    def compute(self) -> Tensor:
        """Return the mean score, a float32 scalar; NaN if there were no images."""
        if len(self.scores) == 0:  # a list, or one tensor after the processes have exchanged their scores
            return torch.tensor(torch.nan, device=self.device)
        return dim_zero_cat(self.scores).mean()
