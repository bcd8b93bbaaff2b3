"""Faster ways to compute the same scores, and how far each may be from float32."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from sind_hf import SindConfig, SindImageProcessor, SindModel, score_images

# Of the spread of the scores of different images: bfloat16 keeps 8 bits of every activation.
BFLOAT16_TOLERANCE = 0.15
COMPILED_TOLERANCE = 1e-4  # on a scale of 0 to 100, as for ONNX: other orders of the same sums


def build(vision: dict[str, Any]) -> SindModel:
    torch.manual_seed(7)
    return SindModel(
        SindConfig(vision_config=vision, initializer_range=1.0, score_scale=10.0, score_shift=50.0)
    ).eval()


@pytest.fixture
def clip(tiny_clip_config: dict[str, Any]) -> SindModel:
    return build({**tiny_clip_config, "num_hidden_layers": 1})


@pytest.fixture
def resnet() -> SindModel:
    return build({"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 24], "depths": [1, 1]})


def scores(model: SindModel, images: list[str], batch_size: int = 5) -> np.ndarray:
    return np.array([row.score for row in score_images(model, SindImageProcessor(), images, batch_size=batch_size)])


@pytest.mark.parametrize("how", ["weights", "autocast"])
@pytest.mark.parametrize("backbone", ["clip", "resnet"])
def test_bfloat16(request: pytest.FixtureRequest, image_files: list[str], backbone: str, how: str) -> None:
    model = request.getfixturevalue(backbone)
    expected = scores(model, image_files)
    if how == "weights":
        found = scores(model.to(torch.bfloat16), image_files)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = scores(model, image_files)
    difference = np.abs(found - expected).max()
    assert 0 < difference <= BFLOAT16_TOLERANCE * np.ptp(expected)


@pytest.mark.slow
def test_torch_compile(clip: SindModel, image_files: list[str], compiler: None) -> None:
    expected = scores(clip, image_files)
    clip.compile()
    try:
        found = scores(clip, image_files)
    finally:
        torch._dynamo.reset()
    assert clip._compiled_call_impl is not None
    np.testing.assert_allclose(found, expected, rtol=0, atol=COMPILED_TOLERANCE)


@pytest.fixture
def compiler() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        pytest.skip("torch.compile on the CPU needs a C++ compiler")
