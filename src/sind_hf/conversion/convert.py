"""Convert weights of the published code, and CLIPs of other libraries, to a folder of a `SindModel`.

A file of weights has no configuration. Sizes are read from the shapes of its tensors. Shapes do not tell the number of
attention heads and the activation: those of the published models are assumed unless they are given.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from sind_hf.configuration_sind import LocalBranch, SindConfig
from sind_hf.conversion.layouts import PATCHES, POSITIONS, PROJECTION, ClipLayout, Layout, ResNetLayout, find_layout
from sind_hf.conversion.weight_files import listed, read_weights
from sind_hf.files import atomic_folder, read_text
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel

HEAD_WIDTH = 64  # features per attention head in every CLIP that OpenAI published
CONFIG_KEYS = (
    *("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "projection_dim", "hidden_act"),
)
# Number of training batches. Nothing reads it, and torchvision's older files lack it.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Conversion:
    """Result of converting a file of weights.

    Attributes:
        model: The model, in evaluation mode.
        title: Kind of the file, in words.
        fresh_head: Whether the file had no head, so that the model's is random and must be trained.
        left_out: Keys that the model does not use (the text half of CLIP, a classifier).
    """

    model: SindModel
    title: str
    fresh_head: bool
    left_out: tuple[str, ...]

    def summary(self) -> list[str]:
        """Describe the model in a few lines: what was read from the weights, and what was assumed."""
        config = self.model.config
        vision: Any = config.vision_config
        if vision.model_type == "resnet":
            blocks = "+".join(map(str, vision.depths))
            backbone = f"{blocks} {vision.layer_type} blocks, {vision.hidden_sizes[-1]} features"
        else:
            backbone = (
                f"{vision.num_hidden_layers} layers of width {vision.hidden_size}, patches of {vision.patch_size} px, "
                f"positions of {vision.image_size} px, projection to {vision.projection_dim}; not in the weights: "
                f"{vision.num_attention_heads} heads, {vision.hidden_act}"
            )
        widths = " + ".join(str(width) for width in self.model.head_widths if width)
        lines = [
            f"found     {self.title}",
            f"backbone  {backbone}",
            f"head      variant {config.local_branch}, reads {widths} numbers{' (fresh)' if self.fresh_head else ''}",
            f"views     {config.view_size} px",
        ]
        return lines + ([f"left out  {listed(list(self.left_out))}"] if self.left_out else [])


def convert_checkpoint(
    path: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    variant: LocalBranch | None = None,
    view_size: int | None = None,
    num_attention_heads: int | None = None,
    hidden_act: str | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Conversion:
    """Convert a file of weights to a folder that `SindModel.from_pretrained` and `AutoModel` load.

    Args:
        path: File of weights; see `read_weights` for its format and `convert_weights` for its content.
        output_dir: Folder to write. It may exist if it is empty. It appears complete or not at all.
        variant: Variant of the head, see `convert_weights`.
        view_size: Side of the views in pixels.
        num_attention_heads: Attention heads of a ViT.
        hidden_act: Activation of a ViT.
        config: JSON file with some of `CONFIG_KEYS`. Sizes in it must be those of the weights.

    Raises:
        ValueError: If the file cannot be read or converted, or the folder is not empty.
    """
    output = Path(output_dir).resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{os.fspath(output_dir)}: exists and is not an empty folder; name another, or remove it.")
    stated = {} if config is None else _read_config(Path(config))
    given = {"num_attention_heads": num_attention_heads, "hidden_act": hidden_act}
    stated |= {name: value for name, value in given.items() if value is not None}
    weights = read_weights(path)
    try:
        conversion = convert_weights(weights, variant=variant, view_size=view_size, **stated)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    del weights
    side = int(conversion.model.config.view_size or 224)
    with atomic_folder(output) as folder:
        conversion.model.save_pretrained(folder)
        SindImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return conversion


def convert_weights(
    weights: Mapping[str, Tensor], *, variant: LocalBranch | None = None, view_size: int | None = None, **stated: Any
) -> Conversion:
    """Make a `SindModel` from weights with the names of the published code, open_clip, timm or torchvision.

    - `clip_model.visual.*` and `head.*`: the published SIND on a ViT of CLIP, its head included;
    - `clip_model.0.*`, `clip_model.4.*` … and `head.*`: the published SIND on a ResNet;
    - `visual.*` (open_clip, OpenAI), `patch_embed.*` and `blocks.*` (a CLIP of timm), `conv1.*` and `layer1.*`
      (torchvision's ResNet): a backbone to start from; the head is fresh.

    Args:
        weights: Tensors by key; floating point of any precision becomes float32.
        variant: `"patch"`, `"class"` or `"none"` (see `SindConfig.local_branch`); default: what the width of the head
            tells, and `"patch"` for a fresh one.
        view_size: Side of the views in pixels; default: that of the position embeddings, 224 for a ResNet.
        **stated: Some of `CONFIG_KEYS`. `num_attention_heads` (default: width / 64) and `hidden_act` (default:
            `"quick_gelu"`, OpenAI's) do not follow from shapes; the others must be those of the weights.

    Raises:
        ValueError: If keys are missing, unknown or of another shape, or if an option is missing or contradicts the
            weights.
    """
    layout = find_layout(weights)
    if layout is None:
        raise ValueError(_unknown_layout(weights))
    vision = _vision_config(layout, weights, stated)
    branch = _variant(layout, weights, vision, variant) if layout.has_head else variant or "patch"
    config = SindConfig(vision_config=vision, local_branch=branch, view_size=view_size)
    with torch.device("meta"):  # only names and shapes
        own = SindModel(config).state_dict()
    ours, left_out = _renamed(layout, weights, own)
    with torch.random.fork_rng(devices=[]):  # the same file gives the same folder
        torch.manual_seed(0)
        model = SindModel.from_pretrained(None, config=config, state_dict=ours)
    return Conversion(model.eval(), layout.title, not layout.has_head, tuple(left_out))


# --- sizes -----------------------------------------------------------------------------------------------------------


def _vision_config(layout: Layout, weights: Mapping[str, Tensor], stated: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(layout, ResNetLayout):
        if stated:
            what = f"which has no {' and no '.join(stated)}"
            raise ValueError(f"these are the weights of a ResNet, {what}: leave that out.")
        return _resnet_config(layout, weights)
    assert isinstance(layout, ClipLayout)
    sizes = _clip_sizes(layout, weights)
    width = sizes["hidden_size"]
    for name, value in stated.items():
        if name in sizes and value != sizes[name]:
            raise ValueError(f"{name} is given as {value!r}, but is {sizes[name]} by the shapes of the weights.")
    heads = stated.get("num_attention_heads", width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else None)
    if heads is None:
        raise ValueError(
            f"the number of attention heads is not in the file, and the width {width} is not a multiple of "
            f"{HEAD_WIDTH}: give --num-attention-heads."
        )
    if type(heads) is not int or heads < 1 or width % heads:
        raise ValueError(f"num_attention_heads is {heads!r}: it must divide the width of the tokens, {width}.")
    activation = stated.get("hidden_act", "quick_gelu")
    if not isinstance(activation, str) or activation not in ACT2FN:
        near = get_close_matches(str(activation), ACT2FN, 1)
        hint = f"did you mean {near[0]!r}?" if near else "CLIPs have 'quick_gelu' (OpenAI) or 'gelu' (most others)."
        raise ValueError(f"hidden_act is {activation!r}, which transformers does not know: {hint}")
    return {"model_type": "clip_vision_model", **sizes, "num_attention_heads": heads, "hidden_act": activation}


def _clip_sizes(layout: ClipLayout, weights: Mapping[str, Tensor]) -> dict[str, int]:
    depth = layout.depth(weights)
    patches, positions, projection, hidden = _shapes(
        layout, weights, PATCHES, POSITIONS, PROJECTION, "vision_model.encoder.layers.0.mlp.fc1.weight"
    )
    tokens = positions[-2] if len(positions) >= 2 else 0
    side = math.isqrt(max(tokens - 1, 0))
    if len(patches) != 4 or patches[1] != 3 or patches[2] != patches[3] or 0 in patches:
        key = layout.backbone_source(PATCHES).key
        raise ValueError(f"{key} has the shape {patches}: expected (width, 3, patch size, patch size).")
    if side == 0 or side * side != tokens - 1:
        key = layout.backbone_source(POSITIONS).key
        raise ValueError(f"{key} has the shape {positions}: not one class token and a square of patches.")
    transposed = layout.backbone_source(PROJECTION).stored == "transposed"
    return {
        "hidden_size": patches[0],
        "patch_size": patches[2],
        "image_size": side * patches[2],
        "num_hidden_layers": depth,
        "intermediate_size": hidden[0] if hidden else 0,
        "projection_dim": projection[-1 if transposed else 0] if projection else 0,
    }


def _resnet_config(layout: ResNetLayout, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    depths = layout.depths(weights)
    if not depths:
        raise ValueError(f"no block {layout.stage_prefix(0)}0.* among the keys: the depth is unknown.")
    bottleneck = f"{layout.stage_prefix(0)}0.conv3.weight" in weights
    last = f"layer.{2 if bottleneck else 1}.convolution.weight"
    stem, *widths = _shapes(
        layout,
        weights,
        "vision_model.embedder.embedder.convolution.weight",
        *(f"vision_model.encoder.stages.{stage}.layers.0.{last}" for stage in range(len(depths))),
    )
    if not all(map(len, [stem, *widths])):
        raise ValueError("the kernels of its convolutions are single numbers: their widths are unknown.")
    return {
        "model_type": "resnet",
        "embedding_size": stem[0],
        "hidden_sizes": [width[0] for width in widths],
        "depths": depths,
        "layer_type": "bottleneck" if bottleneck else "basic",
    }


def _shapes(layout: Layout, weights: Mapping[str, Tensor], *own: str) -> list[tuple[int, ...]]:
    keys = [layout.backbone_source(name).key for name in own]
    if missing := [key for key in keys if key not in weights]:
        raise ValueError(f"the keys {listed(missing)} are missing from {layout.title}: its sizes are unknown.")
    return [tuple(weights[key].shape) for key in keys]


def _variant(
    layout: Layout, weights: Mapping[str, Tensor], vision: Mapping[str, Any], wanted: LocalBranch | None
) -> LocalBranch:
    """Return the variant whose head has the width of the file's."""
    key = layout.source("quality_head.weight", weights).key
    if key not in weights:
        raise ValueError(f"the key {key} is missing from {layout.title}: it has no head.")
    if vision["model_type"] == "resnet":
        token_width = global_width = vision["hidden_sizes"][-1]
    else:
        token_width, global_width = vision["hidden_size"], vision["projection_dim"]
    widths = {"patch": global_width + token_width, "class": 2 * global_width, "none": global_width}
    found = weights[key].shape[-1] if weights[key].ndim == 2 else 0
    fitting = [variant for variant in get_args(LocalBranch) if widths[variant] == found]
    needed = ", ".join(f"{variant} {width}" for variant, width in widths.items())
    if wanted is not None and wanted not in fitting or not fitting:
        asked = f"the variant {wanted!r}" if wanted else "any variant"
        raise ValueError(f"the head {key} has the shape {tuple(weights[key].shape)}, not that of {asked} ({needed}).")
    if wanted is None and len(fitting) > 1:
        raise ValueError(
            f"a head that reads {found} numbers may be of the variants {' or '.join(fitting)}: give --variant "
            "(published --local_global: patch; with --all_global: class)."
        )
    return wanted or fitting[0]


# --- weights ---------------------------------------------------------------------------------------------------------


def _renamed(
    layout: Layout, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights by the model's names, and the keys that are not used. Every other key must fit."""
    wanted = {name: layout.source(name, weights) for name in own}
    if not layout.has_head:
        wanted = {name: source for name, source in wanted.items() if not name.startswith("quality_head.")}
    unread = weights.keys() - {source.key for source in wanted.values()}
    left_out = sorted(key for key in unread if layout.leaves_out(key))
    absent = {source.key for source in wanted.values()} - weights.keys()
    problems = []
    if missing := sorted(key for key in absent if not key.endswith(COUNTER)):
        problems.append(f"missing keys: {listed(missing)}")
    if unknown := sorted(unread.difference(left_out)):
        problems.append(f"keys that have no place in the model: {listed(unknown)}")
    unfit: dict[str, str] = {}
    for name, source in wanted.items():
        if (stored := weights.get(source.key)) is not None:
            shape, expected = tuple(stored.shape), source.stored_shape(own[name].shape)
            if shape != expected:
                unfit[source.key] = f"{source.key} {shape} instead of {expected}"
            elif own[name].is_floating_point() != stored.is_floating_point():
                unfit[source.key] = f"{source.key} of {stored.dtype}"
            elif not torch.isfinite(stored).all():
                unfit[source.key] = f"{source.key} with values that are not finite"
    if unfit:
        problems.append(f"tensors that do not fit: {listed(list(unfit.values()), 3)}")
    if problems:
        raise ValueError(f"taken for {layout.title}, but it has {'; '.join(problems)}.")
    if any(key == "head.bias" and bool(weights[key].any()) for key in left_out):
        raise ValueError("its head is a classifier's (head.bias is not zero), where a CLIP has its projection.")
    ours = {
        name: source.take(weights[source.key], own[name].shape).to(own[name].dtype)
        for name, source in wanted.items()
        if source.key in weights
    }
    return ours, left_out


def _unknown_layout(weights: Mapping[str, Tensor]) -> str:
    keys = sorted(weights)
    if any(key.startswith(("vision_model.", "vision_tower.", "model.vision_")) for key in keys):
        return (
            "already has the names of transformers: load its folder with SindModel.from_pretrained if it is a SIND "
            "model, else with SindModel.from_backbone."
        )
    return (
        "is in none of the layouts that can be converted: clip_model.visual.* or clip_model.<n>.* (published SIND), "
        f"visual.* (open_clip), blocks.* (timm), layer1.* (torchvision); its keys are {listed(keys)}."
    )


# --- files -----------------------------------------------------------------------------------------------------------


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ValueError(f"{file}: is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: must be a JSON object with some of the keys {', '.join(CONFIG_KEYS)}.")
    if unknown := [key for key in content if key not in CONFIG_KEYS]:
        raise ValueError(f"{file}: unknown key {unknown[0]!r}; the keys are {', '.join(CONFIG_KEYS)}.")
    return content
