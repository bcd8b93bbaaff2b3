"""The published networks written out once more, with the names that open_clip and torchvision give their parts.

Nothing here knows how `SindModel` names or computes things: a converted file must give the outputs of these modules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A residual block of CLIP: `ln_1`, `attn`, `ln_2`, `mlp.c_fc`, `mlp.c_proj`."""

    def __init__(self, width: int, heads: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, hidden))
        self.mlp.add_module("gelu", activation)
        self.mlp.add_module("c_proj", nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Visual(nn.Module):
    """The image half of CLIP; returns the projected class token and the normalised patch tokens."""

    def __init__(
        self,
        width: int,
        layers: int,
        projection: int,
        *,
        patch: int = 16,
        side: int = 224,
        heads: int | None = None,
        hidden: int | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width) * width**-0.5)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            Block(width, heads or width // 64, hidden or 4 * width, activation or QuickGELU()) for _ in range(layers)
        )
        self.proj = nn.Parameter(torch.randn(width, projection) * width**-0.5)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        x = self.ln_post(x)
        return x[:, 0] @ self.proj, x[:, 1:]


class PublishedClip(nn.Module):
    """The published SIND on a CLIP, with a text half of a few numbers: `patch`, `class` or `none`."""

    def __init__(self, variant: str, width: int, layers: int, projection: int, **options: Any) -> None:
        super().__init__()
        self.variant = variant
        self.clip_model = nn.Module()
        self.clip_model.visual = Visual(width, layers, projection, **options)
        self.clip_model.transformer = nn.Module()
        self.clip_model.transformer.resblocks = nn.ModuleList([Block(8, 2, 16, QuickGELU())])
        self.clip_model.token_embedding = nn.Embedding(10, 8)
        self.clip_model.ln_final = nn.LayerNorm(8)
        self.clip_model.positional_embedding = nn.Parameter(torch.zeros(4, 8))
        self.clip_model.text_projection = nn.Parameter(torch.zeros(8, projection))
        self.clip_model.logit_scale = nn.Parameter(torch.ones([]))
        if variant == "none":
            self.head: nn.Module = nn.Linear(projection, 1)
        else:
            self.head = nn.Module()
            self.head.quality_predictor = nn.Sequential(
                nn.Linear(projection + (width if variant == "patch" else projection), 1)
            )

    def forward(self, global_view: Tensor, local_view: Tensor) -> Tensor:
        g, _ = self.clip_model.visual(global_view)
        if self.variant == "none":
            return self.head(g).squeeze(-1)
        local, tokens = self.clip_model.visual(local_view)
        other = tokens.mean(1) if self.variant == "patch" else local
        return self.head.quality_predictor(torch.cat([g, other], dim=-1)).squeeze(-1)


class Residual(nn.Module):
    """A block of torchvision's ResNet, of three convolutions, or of two."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        sizes = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)] if bottleneck else []
        sizes = sizes or [(inputs, width, 3), (width, width, 3)]
        self.count = len(sizes)
        strided = 1 if bottleneck else 0
        for number, (before, after, kernel) in enumerate(sizes):
            step = stride if number == strided else 1
            convolution = nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{number + 1}", convolution)
            self.add_module(f"bn{number + 1}", nn.BatchNorm2d(after))
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            if number < self.count:
                x = x.relu()
        return (x + shortcut).relu()


class PublishedResNet(nn.Module):
    """The published SimpleClip on a ResNet: torchvision's children in a Sequential, and a linear head."""

    def __init__(
        self, depths: Sequence[int] = (3, 4, 6, 3), *, width: int = 64, bottleneck: bool = True, stem: int = 64
    ) -> None:
        super().__init__()
        stages, inputs = [], stem
        for number, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if number and not index else 1
                blocks.append(Residual(inputs, width << number, stride, bottleneck))
                inputs = (width << number) * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*blocks))
        self.clip_model = nn.Sequential(
            nn.Conv2d(3, stem, 7, 2, 3, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            *stages,
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(inputs, 1)

    def forward(self, global_view: Tensor, local_view: Tensor) -> Tensor:
        return self.head(self.clip_model(global_view).flatten(1)).squeeze(-1)


def with_random_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every BatchNorm running statistics, scale and shift of its own: fresh ones would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.uniform_(0.6, 1.2, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def views(count: int, seed: int = 0, side: int = 224) -> tuple[Tensor, Tensor]:
    """Normalised random views, global and local."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn((2, count, 3, side, side), generator=generator)
    return first, second


def as_open_clip(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The CLIP of a published file as open_clip would save it."""
    return {
        key.removeprefix("clip_model."): value for key, value in published.items() if key.startswith("clip_model.")
    }


def as_timm(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image half of CLIP as timm's `vit_*_clip_*` would save it."""
    swaps = (
        (r"^conv1\.", "patch_embed.proj."),
        (r"^transformer\.resblocks\.", "blocks."),
        (r"^ln_pre\.", "norm_pre."),
        (r"^ln_post\.", "norm."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.attn\.in_proj_", ".attn.qkv."),
        (r"\.attn\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.c_fc\.", ".mlp.fc1."),
        (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    )
    found: dict[str, Tensor] = {}
    for key, value in published.items():
        name = key.removeprefix("clip_model.visual.")
        if name == key:
            continue
        if name == "proj":
            found |= {"head.weight": value.T.contiguous(), "head.bias": torch.zeros(value.shape[1])}
        elif name == "class_embedding":
            found["cls_token"] = value[None, None]
        elif name == "positional_embedding":
            found["pos_embed"] = value[None]
        else:
            for pattern, replacement in swaps:
                name = re.sub(pattern, replacement, name)
            found[name] = value
    return found


def set_by_sine(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values that no version of a random generator can change, for the keys and shapes of a published file."""
    made = {}
    for number, (key, value) in enumerate(sorted(weights.items())):
        wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + number).view_as(value)
        if not value.is_floating_point():
            made[key] = value
        elif "running_var" in key or (value.ndim == 1 and key.endswith("weight")):
            made[key] = (1 + 0.2 * wave).float()
        elif value.ndim > 1:
            made[key] = (wave * 1.5 / (value.numel() / value.shape[0]) ** 0.5).float()
        else:
            made[key] = (0.2 * wave).float()
    return made
