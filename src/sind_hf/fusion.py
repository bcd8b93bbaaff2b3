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

    Every BatchNorm becomes part of the convolution before it, and zero padding part of the convolution after it.
    Activations overwrite their input, and squeeze-excite gates that are 1 whatever they see are skipped. The features
    of one random view are compared before and after; if they differ by more than rounding, the backbone stays as it
    was. Backbones without BatchNorm stay as they are.

    A fused model can score and return gradients of pixels, but it cannot be trained or saved any more.

    Args:
        model: Model in evaluation mode.

    Returns:
        The same model.
    """
    backbone = model.vision_model
    if backbone.dtype != torch.float32 or not any(_normalized(module) for module in backbone.modules()):
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
        for convolution, norm in _normalized(module):
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
        for padding, convolution in _neighbors(module, nn.ZeroPad2d, nn.Conv2d):
            if getattr(module, convolution).padding == "valid":
                _pad_inside(getattr(module, padding), getattr(module, convolution))
                setattr(module, padding, nn.Identity())
        for name, child in module.named_children():
            if isinstance(child, _ACTIVATIONS):
                child.inplace = True
            elif _is_open_gate(child):
                setattr(module, name, nn.Identity())
    backbone.requires_grad_(False)


def _neighbors(module: nn.Module, first: type, second: type) -> list[tuple[str, str]]:
    """Return the names of children of these types that follow each other."""
    children = list(module.named_children())
    return [
        (name, next_name)
        for (name, child), (next_name, next_child) in zip(children, children[1:], strict=False)
        if isinstance(child, first) and isinstance(next_child, second)
    ]


def _normalized(module: nn.Module) -> list[tuple[str, str]]:
    """Return the names of the children that are a convolution and the BatchNorm of its output."""
    return [
        (convolution, norm)
        for convolution, norm in _neighbors(module, nn.Conv2d, nn.BatchNorm2d)
        if getattr(module, convolution).out_channels == getattr(module, norm).num_features
    ]


def _pad_inside(padding: nn.ZeroPad2d, convolution: nn.Conv2d) -> None:
    """Let a convolution pad its input itself, which saves a copy of it.

    A convolution pads both sides alike. Where less is wanted before the image than after it, the kernel begins with
    zeros.
    """
    left, right, top, bottom = padding.padding
    convolution.padding = (max(top, bottom), max(left, right))
    zeros = (convolution.padding[1] - left, 0, convolution.padding[0] - top, 0)
    convolution.weight = nn.Parameter(nn.functional.pad(convolution.weight, zeros))


def _is_open_gate(module: nn.Module) -> bool:
    """Tell whether this is a squeeze-excite layer of EfficientNet that multiplies everything by 1."""
    if type(module).__name__ != "EfficientNetSqueezeExciteLayer":
        return False
    expand: Any = module.get_submodule("expand")
    return not expand.weight.any() and bool((expand.bias.sigmoid() == 1).all())
