"""Make a convolutional backbone faster for scoring, without changing its scores."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sind_hf.modeling_sind import SindModel

_TOLERANCE = 1e-4  # of the largest feature; float32 rounds to about 1e-6
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)


@torch.no_grad()
def fuse(model: SindModel) -> SindModel:
    """Fold what evaluation keeps constant into the convolutions of a float32 model, in place.

    Every BatchNorm becomes part of the convolution before it, activations overwrite their input, and squeeze-excite
    gates that are 1 whatever they see are skipped. The features of one random view are compared before and after; if
    they differ by more than rounding, the backbone stays as it was. Backbones without BatchNorm stay as they are.

    A fused model can score and return gradients of pixels, but it cannot be trained or saved any more.

    Args:
        model: Model in evaluation mode.

    Returns:
        The same model.
    """
    backbone = model.vision_model
    if backbone.dtype != torch.float32 or not any(_pairs(module) for module in backbone.modules()):
        return model
    side = int(model.config.view_size or 0)
    view = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(model.device)
    fused = copy.deepcopy(backbone)
    _fuse_modules(fused)
    if model.wants_channels_last:
        fused.to(memory_format=torch.channels_last)  # else oneDNN reorders the weights in every call
    expected, actual = (_features(network, view, model) for network in (backbone, fused))
    if expected.shape == actual.shape and (actual - expected).abs().max() <= _TOLERANCE * expected.abs().max():
        model.vision_model = fused
        model.is_fused = True
    return model


def _features(backbone: nn.Module, view: Tensor, model: SindModel) -> Tensor:
    output = backbone(pixel_values=view, **model.backbone_options)
    return torch.cat([value.flatten() for value in output.values() if isinstance(value, Tensor)])


def _fuse_modules(backbone: nn.Module) -> None:
    for module in list(backbone.modules()):
        for convolution, norm in _pairs(module):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, fused)
            setattr(module, norm, nn.Identity())
        for name, child in module.named_children():
            if isinstance(child, _ACTIVATIONS):
                child.inplace = True
            elif _is_open_gate(child):
                setattr(module, name, nn.Identity())
    backbone.requires_grad_(False)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return the names of the children that are a convolution and the BatchNorm right after it."""
    children = list(module.named_children())
    return [
        (first, second)
        for (first, convolution), (second, norm) in zip(children, children[1:], strict=False)
        if isinstance(convolution, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.num_features == convolution.out_channels
    ]


def _is_open_gate(module: nn.Module) -> bool:
    """Tell whether this is a squeeze-excite layer of EfficientNet that multiplies everything by 1."""
    if type(module).__name__ != "EfficientNetSqueezeExciteLayer":
        return False
    expand: Any = module.get_submodule("expand")
    return not expand.weight.any() and bool((expand.bias.sigmoid() == 1).all())
