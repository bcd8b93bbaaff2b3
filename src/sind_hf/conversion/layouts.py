"""Layouts of published weights: which one a file has, and which key holds a weight of `SindModel`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Size, Tensor

Stored = Literal["as is", "transposed", "batched", "query", "key", "value"]
# The text half of open_clip's and OpenAI's models, and the numbers that OpenAI stored beside the weights.
_TEXT = (
    r"(transformer|token_embedding|ln_final|text)\..+|positional_embedding|text_projection|logit_scale|logit_bias"
    r"|attn_mask|input_resolution|context_length|vocab_size"
)
_HEADS = ("head.quality_predictor.0.", "head.")


@dataclass(frozen=True)
class Source:
    """Key of the file that holds a weight of the model, and how the weight is stored there.

    `transposed`: a matrix that is multiplied from the other side; `query`, `key`, `value`: a third of one tensor;
    `batched`: with leading axes of length 1, three axes in all.
    """

    key: str
    stored: Stored = "as is"

    def stored_shape(self, own: Size) -> tuple[int, ...]:
        """Return the shape that the file's tensor must have for a weight of the shape `own`."""
        if self.stored == "transposed":
            return tuple(reversed(own))
        if self.stored == "batched":
            return (1,) * (3 - len(own)) + tuple(own)
        return tuple(own) if self.stored == "as is" else (3 * own[0], *own[1:])

    def take(self, tensor: Tensor, own: Size) -> Tensor:
        """Return the weight of the shape `own` from the file's tensor, whose shape is `stored_shape(own)`."""
        if self.stored == "transposed":
            return tensor.T.contiguous()
        if self.stored in ("as is", "batched"):
            return tensor.reshape(own).contiguous()
        return tensor.chunk(3)[("query", "key", "value").index(self.stored)].contiguous()


@dataclass(frozen=True)
class Layout(ABC):
    """Names of the weights in a kind of file.

    Attributes:
        title: Kind of the file, in words.
        prefix: Prefix of the backbone's keys.
        has_head: Whether the file has a head of SIND; otherwise it is a backbone to start from.
        left_out: Pattern of the keys that the model does not need.
    """

    title: str
    prefix: str
    has_head: bool
    left_out: str

    def source(self, own: str, keys: Container[str]) -> Source:
        """Return the source of the weight `own` of a `SindModel` in a file with these keys."""
        if own.startswith("quality_head."):
            head = next((head for head in _HEADS if f"{head}weight" in keys), _HEADS[0])
            return Source(head + own.removeprefix("quality_head."))
        return self.backbone_source(own)

    @abstractmethod
    def backbone_source(self, own: str) -> Source:
        """Return the source of a weight of the backbone."""

    def leaves_out(self, key: str) -> bool:
        """Tell whether a key may be ignored."""
        return re.fullmatch(self.left_out, key) is not None


@dataclass(frozen=True)
class ClipNames:
    """Names of the parts of a CLIP ViT: single weights, modules, and the modules of a block."""

    weights: Mapping[str, Source]
    modules: Mapping[str, str]
    blocks: str
    in_block: Mapping[str, str]
    fused: str  # matrix and bias of query, key and value in one tensor


@dataclass(frozen=True)
class ClipLayout(Layout):
    """Layout of a CLIP ViT."""

    names: ClipNames

    def backbone_source(self, own: str) -> Source:
        """Return the source of a weight of the ViT."""
        if found := self.names.weights.get(own):
            return Source(self.prefix + found.key, found.stored)
        module, _, part = own.rpartition(".")
        if name := self.names.modules.get(module):
            return Source(f"{self.prefix}{name}.{part}")
        number, inner = module.removeprefix("vision_model.encoder.layers.").split(".", 1)
        block = f"{self.prefix}{self.names.blocks}.{number}."
        if third := _THIRDS.get(inner):
            return Source(f"{block}{self.names.fused}{part}", third)
        return Source(f"{block}{self.names.in_block[inner]}.{part}")

    def depth(self, keys: Iterable[str]) -> int:
        """Return the number of blocks."""
        return _count(keys, f"{self.prefix}{self.names.blocks}.")


@dataclass(frozen=True)
class ResNetLayout(Layout):
    """Layout of a ResNet of torchvision's blocks: names of its stem, and prefix and number of its first stage."""

    convolution: str
    normalization: str
    stage: str
    first_stage: int

    def backbone_source(self, own: str) -> Source:
        """Return the source of a weight of the ResNet."""
        *path, kind, part = own.split(".")
        if "embedder" in path:
            name = self.convolution if kind == "convolution" else self.normalization
            return Source(f"{self.prefix}{name}.{part}")
        stage, block = int(path[3]), path[5]  # vision_model.encoder.stages.S.layers.B.shortcut, or … .layer.I
        if path[6] == "shortcut":
            name = "downsample.0" if kind == "convolution" else "downsample.1"
        else:
            name = f"{'conv' if kind == 'convolution' else 'bn'}{int(path[7]) + 1}"
        return Source(f"{self.stage_prefix(stage)}{block}.{name}.{part}")

    def stage_prefix(self, index: int) -> str:
        """Return the prefix of the keys of a stage, counted from 0."""
        return f"{self.prefix}{self.stage}{index + self.first_stage}."

    def depths(self, keys: Iterable[str]) -> list[int]:
        """Return the number of blocks of every stage."""
        found: list[int] = []
        while depth := _count(keys, self.stage_prefix(len(found))):
            found.append(depth)
        return found


def _count(keys: Iterable[str], prefix: str) -> int:
    """Return the highest number after a prefix plus one. Missing numbers below it are reported later, by name."""
    numbered = re.compile(rf"{re.escape(prefix)}(\d{{1,4}})\.")
    names = list(keys)
    count = max((int(found[1]) + 1 for name in names if (found := numbered.match(name))), default=0)
    if count > len(names):  # listing what is missing would take a model of that depth
        raise ValueError(f"the keys {prefix}{count - 1}.* are of a far deeper network than the other keys.")
    return count


_THIRDS: Mapping[str, Stored] = {"self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value"}
CLASS_TOKEN = "vision_model.embeddings.class_embedding"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
PATCHES = "vision_model.embeddings.patch_embedding.weight"
PROJECTION = "visual_projection.weight"

_OPEN_CLIP = ClipNames(
    weights={
        CLASS_TOKEN: Source("class_embedding"),
        POSITIONS: Source("positional_embedding"),
        PATCHES: Source("conv1.weight"),
        PROJECTION: Source("proj", "transposed"),
    },
    modules={"vision_model.pre_layrnorm": "ln_pre", "vision_model.post_layernorm": "ln_post"},
    blocks="transformer.resblocks",
    in_block={
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    },
    fused="attn.in_proj_",
)
_TIMM = ClipNames(
    weights={
        CLASS_TOKEN: Source("cls_token", "batched"),
        POSITIONS: Source("pos_embed", "batched"),
        PATCHES: Source("patch_embed.proj.weight"),
        PROJECTION: Source("head.weight"),
    },
    modules={"vision_model.pre_layrnorm": "norm_pre", "vision_model.post_layernorm": "norm"},
    blocks="blocks",
    in_block={
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    fused="attn.qkv.",
)
# The first layout with a matching key is chosen, so the more specific ones come first.
_LAYOUTS: tuple[tuple[str, Layout], ...] = (
    (
        r"clip_model\.visual\.",
        ClipLayout("published SIND, CLIP", "clip_model.visual.", True, rf"clip_model\.({_TEXT})", _OPEN_CLIP),
    ),
    (r"clip_model\.\d+\.", ResNetLayout("published SIND, ResNet", "clip_model.", True, r"(?!)", "0", "1", "", 4)),
    (r"visual\.", ClipLayout("a CLIP of open_clip or OpenAI", "visual.", False, _TEXT, _OPEN_CLIP)),
    (r"(patch_embed|blocks)\.", ClipLayout("a CLIP of timm", "", False, r"head\.bias", _TIMM)),
    (r"layer1\.0\.", ResNetLayout("a ResNet of torchvision", "", False, r"fc\..+", "conv1", "bn1", "layer", 1)),
)


def find_layout(keys: Iterable[str]) -> Layout | None:
    """Return the layout of a file with these keys; None if no known layout fits."""
    names = list(keys)
    for pattern, layout in _LAYOUTS:
        if any(re.match(pattern, name) for name in names):
            return layout
    return None
