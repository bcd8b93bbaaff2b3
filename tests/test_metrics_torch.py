from __future__ import annotations

import sys

import pytest
import torch

from sind_hf import SindImageProcessor, SindModel


def test_without_torchmetrics_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "sind_hf.metrics_torch", raising=False)
    with pytest.raises(ImportError, match=r"pip install \"sind-hf\[metrics\]\""):
        import sind_hf.metrics_torch  # noqa: F401


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 64, 80, generator=torch.Generator().manual_seed(0))


def test_it_is_the_mean_over_all_batches_since_the_reset(tiny_model: SindModel, images: torch.Tensor) -> None:
    pytest.importorskip("torchmetrics", reason='needs torchmetrics: pip install "sind-hf[metrics]"')
    from sind_hf.metrics_torch import ImageQuality

    tiny_model.image_processor = SindImageProcessor()
    scores = torch.tensor(tiny_model.score(images))
    metric = ImageQuality(tiny_model)
    metric.update(images[:3])
    metric.update(images[3:])
    torch.testing.assert_close(metric.compute(), scores.mean())
    metric.reset()
    metric.update(images[4:])
    torch.testing.assert_close(metric.compute(), scores[4])


def test_processes_with_unequal_batches_get_the_mean_over_all_images(
    tiny_model: SindModel, images: torch.Tensor
) -> None:
    pytest.importorskip("torchmetrics", reason='needs torchmetrics: pip install "sind-hf[metrics]"')
    from sind_hf.metrics_torch import ImageQuality

    tiny_model.image_processor = SindImageProcessor()
    scores = torch.tensor(tiny_model.score(images))
    metric = ImageQuality(
        tiny_model,
        distributed_available_fn=lambda: True,
        dist_sync_fn=lambda state, group=None: [state, scores[2:]],  # the second process saw the other images
    )
    metric.update(images[:2])
    torch.testing.assert_close(metric.compute(), scores.mean())
