"""A fused model scores as before, faster; it can no longer be trained or saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sind_hf import SindConfig, SindModel, load
from sind_hf.checkpoints import load_checkpoint
from sind_hf.fusion import fuse

BACKBONES = {
    "resnet": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]},
    "mobilenet_v1": {"model_type": "mobilenet_v1", "depth_multiplier": 0.25},
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.35},
    "efficientnet": {
        "model_type": "efficientnet",
        "width_coefficient": 0.2,
        "depth_coefficient": 0.1,
        "hidden_dim": 256,
    },
    "regnet": {
        "model_type": "regnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "groups_width": 8,
    },
}
VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def make_model(vision: dict[str, object], view_size: int = 56) -> SindModel:
    """Return a random model whose BatchNorms have random statistics, weights and biases."""
    torch.manual_seed(0)
    if vision["model_type"] == "vit":
        vision = {**vision, "image_size": view_size, "patch_size": 8}
    model = SindModel(SindConfig(vision_config=dict(vision), view_size=view_size)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.running_mean, module.bias):
                nn.init.uniform_(tensor, -1, 1)
    return model


def quality_and_map(model: SindModel) -> torch.Tensor:
    views = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    output = model(views, views.flip(-1), output_quality_map=True)
    return torch.cat([output.quality, output.quality_map.flatten()]).detach()


@pytest.mark.parametrize("name", BACKBONES)
def test_scores_and_maps_stay_equal(name: str) -> None:
    model = make_model(BACKBONES[name])
    expected = quality_and_map(model)
    assert fuse(model) is model and model.is_fused
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(expected) == 100 and expected.std() > 0
    torch.testing.assert_close(quality_and_map(model), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_loading_to_score_fuses_the_bundled_checkpoint(image_files: list[Path]) -> None:
    plain, _ = load_checkpoint("bundled", device="cpu")
    model = load(device="cpu")
    assert model.is_fused and not plain.is_fused
    assert model.score(image_files) == pytest.approx(plain.score(image_files), abs=1e-5)
    gates = [module for module in model.modules() if type(module).__name__ == "EfficientNetSqueezeExciteLayer"]
    assert gates == []


def test_other_models_stay_as_they_are() -> None:
    assert not fuse(make_model(VIT)).is_fused
    half = make_model(BACKBONES["resnet"]).to(torch.bfloat16)
    assert not fuse(half).is_fused


def test_network_with_something_between_its_layers_is_not_fused() -> None:
    model = make_model(BACKBONES["resnet"])
    norm = model.vision_model.embedder.embedder.normalization
    norm.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    expected = quality_and_map(model)
    assert not fuse(model).is_fused
    assert torch.equal(quality_and_map(model), expected)


def test_fused_model_is_neither_trained_nor_saved(tmp_path: Path) -> None:
    model = fuse(make_model(BACKBONES["resnet"]))
    with pytest.raises(ValueError, match=r"cannot be trained: load the checkpoint with SindModel\.from_pretrained"):
        model.train()
    with pytest.raises(ValueError, match="cannot be saved"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists() and not model.training
    pixels = torch.rand(1, 3, 56, 56, requires_grad=True)
    model(pixels, pixels).quality.sum().backward()
    assert pixels.grad.abs().sum() > 0
