"""Weights of the published SIND code, renamed to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

BACKBONE = "clip_model.visual."

# open_clip's names of the parts outside the transformer blocks
_OUTER = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")
_HEAD = re.compile(r"head\.(?:quality_predictor\.0\.)?(weight|bias)$")


def convert_clip_state_dict(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a published CLIP-based SIND checkpoint to those of `SindModel`.

    Args:
        published: Tensors under `clip_model.visual.*` (an open_clip ViT) and `head.*`. The text half of CLIP is
            dropped.

    Returns:
        A state dict for `SindModel`; the fused query-key-value matrices are split, the projection is transposed.

    Raises:
        ValueError: When the image half or the head holds a key that has no place in the model; all are listed.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in published.items():
        if head := _HEAD.match(key):
            ours[f"quality_head.{head[1]}"] = value
        elif not key.startswith(BACKBONE):
            if not key.startswith("clip_model."):
                unknown.append(key)
        elif (name := key.removeprefix(BACKBONE)) in _OUTER:
            ours[_OUTER[name]] = value
        elif name == "proj":
            ours["visual_projection.weight"] = value.T.contiguous()
        elif (block := _BLOCK.match(name)) and block[2] == "attn.in_proj":
            for part, third in zip("qkv", value.chunk(3), strict=True):
                ours[f"{_layer(block[1])}.self_attn.{part}_proj.{block[3]}"] = third.contiguous()
        elif block and block[2] in _IN_BLOCK:
            ours[f"{_layer(block[1])}.{_IN_BLOCK[block[2]]}.{block[3]}"] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"Not a published SIND checkpoint: no place for the keys {', '.join(sorted(unknown))}.")
    return ours


def _layer(index: str) -> str:
    return f"vision_model.encoder.layers.{index}"
