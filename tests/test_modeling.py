from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, CLIPVisionModelWithProjection

from sind_hf import ImageError, SindConfig, SindImageProcessor, SindModel
from sind_hf.conversion.convert import convert_weights
from sind_hf.losses import by_scene
from sind_hf.modeling_sind import pool_to_grid

VIT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP = {"model_type": "clip_vision_model", "projection_dim": 24, "image_size": 224, "patch_size": 16, **VIT}
BACKBONES: dict[str, dict[str, Any]] = {
    "clip": CLIP,
    "clip 14": {**CLIP, "patch_size": 14},
    "vit": {"model_type": "vit", **VIT},
    "vit of another size": {"model_type": "vit", **VIT, "image_size": 384},
    "deit": {"model_type": "deit", **VIT},
    "dinov2": {"model_type": "dinov2", **VIT},
    "dinov2_with_registers": {"model_type": "dinov2_with_registers", **VIT},
    "siglip": {"model_type": "siglip_vision_model", **VIT},
    "swin": {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "resnet": {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]},
    "narrow resnet": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
    },
    "efficientnet lite": {
        "model_type": "efficientnet",
        "width_coefficient": 0.2,
        "in_channels": [32, 16, 24, 40, 80],
        "out_channels": [16, 24, 40, 80, 112],
        "kernel_sizes": [3, 3, 5, 3, 3],
        "strides": [1, 2, 2, 2, 2],
        "expand_ratios": [1, 6, 6, 6, 6],
        "num_block_repeats": [1, 2, 1, 1, 1],
        "depth_coefficient": 1.0,
        "hidden_act": "relu6",
        "hidden_dim": 256,
        "squeeze_expansion_ratio": 1e-6,
        "initializer_range": 0.5,
    },
    "mobilenet_v1": {"model_type": "mobilenet_v1", "depth_multiplier": 0.05, "initializer_range": 0.5},
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.1, "initializer_range": 0.5},
    "mobilevit": {
        "model_type": "mobilevit",
        "hidden_sizes": [8, 8, 8],
        "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 24],
        "num_attention_heads": 2,
        "initializer_range": 0.5,
    },
    "mobilevitv2": {"model_type": "mobilevitv2", "width_multiplier": 0.1, "initializer_range": 0.5},
    "focalnet": {"model_type": "focalnet", "embed_dim": 8, "depths": [1, 1, 1, 1]},
    "dinov3_convnext": {"model_type": "dinov3_convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "hgnet_v2": {
        "model_type": "hgnet_v2",
        "stem_channels": [3, 8, 12],
        "stage_in_channels": [12, 16, 24, 32],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 24, 32, 40],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "initializer_range": 0.5,
    },
    "regnet": {
        "model_type": "regnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "groups_width": 8,
    },
    "pvt": {
        "model_type": "pvt",
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
    },
    "hiera": {"model_type": "hiera", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
}
BRANCHES = ("patch", "class", "none")


def build(backbone: str = "clip", branch: Any = "patch", **options: Any) -> SindModel:
    torch.manual_seed(7)
    config = SindConfig(vision_config=dict(BACKBONES[backbone]), local_branch=branch, initializer_range=1.0, **options)
    return SindModel(config).eval()


def random_views(count: int, *pairs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *pairs, 3, 224, 224)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def set_by_sine(model: SindModel) -> None:
    """Weights that no version of a random generator can change."""
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(model.state_dict().items())):
            if not value.is_floating_point():
                continue
            wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + number).view_as(value)
            fan_in = math.prod(value.shape[1:]) if value.ndim > 1 else 1
            if "norm" in name or "layrnorm" in name or "running" in name:
                value.copy_((0.0 if name.endswith(("bias", "mean")) else 1.0) + 0.1 * wave)
            else:
                value.copy_(wave * (1.5 / fan_in**0.5 if value.ndim > 1 else 0.1))


# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", BRANCHES)
def test_parity_with_the_published_model(shared: Path, branch: Any) -> None:
    folder = shared / "reference/parity"
    vision = json.loads((folder / "official_tiny_config.json").read_text())
    published = torch.load(folder / "official_tiny.pth", map_location="cpu", weights_only=True)
    outputs = load_file(folder / "official_tiny_outputs.safetensors")
    key, prefix = {
        "patch": ("quality", None),
        "class": ("class_branch.quality", ("class_branch.head.", "head.quality_predictor.0.")),
        "none": ("global_only.quality", ("global_only.head.", "head.")),
    }[branch]
    if prefix:
        published = {name: value for name, value in published.items() if not name.startswith("head.")}
        published |= {prefix[1] + part: outputs[prefix[0] + part] for part in ("weight", "bias")}
    model = convert_weights(published, **vision).model
    assert model.config.local_branch == branch
    with torch.inference_mode():
        found = model(outputs["pixel_values"], outputs["local_pixel_values"])
    torch.testing.assert_close(found.quality, outputs[key], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.global_embeds, outputs["global_embeds"], rtol=1e-5, atol=1e-5)
    if branch == "patch":
        torch.testing.assert_close(found.local_embeds, outputs["local_tokens"].mean(1), rtol=1e-5, atol=1e-5)


def committed_case(draw: Any, backbone: str, branch: Any) -> tuple[list[float], list[float]]:
    model = build(backbone, branch)
    set_by_sine(model)
    images = [draw(300, 224).crop((left, 0, left + 224, 224)) for left in (0, 40, 76)]
    views = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        output = model(views, views.flip(0), output_quality_map=branch == "patch")
    return output.quality.tolist(), [] if output.quality_map is None else output.quality_map[1].diagonal().tolist()


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("backbone", ["clip", "clip 14", "vit", "resnet"])
def test_scores_equal_the_committed_ones(golden: Path, draw: Any, backbone: str, branch: Any) -> None:
    expected = json.loads((golden / "model.json").read_text())[f"{backbone}, {branch}"]
    quality, diagonal = committed_case(draw, backbone, branch)
    assert quality == pytest.approx(expected["quality"], rel=1e-4, abs=1e-4)
    assert diagonal == pytest.approx(expected["map_diagonal"], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("backbone", ["clip", "clip 14"])
def test_the_score_is_made_of_clips_own_tokens(backbone: str) -> None:
    """The same weights in transformers' own CLIP give the embedding and the tokens that the head reads."""
    model = build(backbone)
    clip = CLIPVisionModelWithProjection(model.config.vision_config).eval()
    clip.vision_model.load_state_dict(model.vision_model.state_dict())
    clip.visual_projection.load_state_dict(model.visual_projection.state_dict())
    views, local = random_views(2)
    with torch.inference_mode():
        found = model(views, local, output_quality_map=True)
        g = clip(views).image_embeds
        hidden = clip.vision_model(local).last_hidden_state
        tokens = clip.vision_model.post_layernorm(hidden)[:, 1:]
    weight, bias = model.quality_head.weight[0], model.quality_head.bias
    torch.testing.assert_close(found.quality, torch.cat([g, tokens.mean(1)], 1) @ weight + bias, rtol=1e-4, atol=1e-5)
    values = (tokens @ weight[24:]).unflatten(1, (224 // model.config.vision_config.patch_size, -1))
    # Repeated to pixels, averaged over 32 × 32: what a fragment adds.
    pixels = values.repeat_interleave(224 // values.shape[1], 1).repeat_interleave(224 // values.shape[2], 2)
    blocks = pixels.unflatten(1, (7, 32)).unflatten(3, (7, 32)).mean((2, 4))
    torch.testing.assert_close(found.quality_map, blocks, rtol=1e-4, atol=1e-5)


# EfficientNet-Lite0 as the bundled recipe builds it.
LITE0 = {
    "model_type": "efficientnet",
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "hidden_act": "relu6",
    "hidden_dim": 1280,
    "squeeze_expansion_ratio": 1e-6,
    "batch_norm_eps": 1e-3,
    "depthwise_padding": [],
}


@pytest.mark.parametrize("backbone", ["efficientnet lite", "mobilenet_v1", "mobilevitv2", "hgnet_v2", "regnet"])
@pytest.mark.parametrize("view_size", [56, 224])
def test_a_feature_map_is_read_as_pooled_features_and_cells(backbone: str, view_size: int) -> None:
    model = build(backbone, view_size=view_size)
    set_by_sine(model)
    views, local = (
        torch.randn(2, 3, view_size, view_size, generator=torch.Generator().manual_seed(i)) for i in (0, 1)
    )
    with torch.inference_mode():
        found = model(views, local, output_quality_map=True)
        maps = [model.vision_model(pixel_values=pixels) for pixels in (views, local)]
    first, second = (each.feature_maps[-1] if backbone == "hgnet_v2" else each.last_hidden_state for each in maps)
    width = first.shape[1]
    assert first.ndim == 4 and model.head_widths == [width, width]
    torch.testing.assert_close(found.global_embeds, first.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.local_embeds, second.mean((2, 3)), rtol=1e-4, atol=1e-5)
    weight, bias = model.quality_head.weight[0].detach(), model.quality_head.bias.detach()
    cells = torch.einsum("bchw,c->bhw", second, weight[width:])
    expected = pool_to_grid(cells.flatten(1))
    torch.testing.assert_close(found.quality_map, expected, rtol=1e-4, atol=1e-4)
    total = bias + found.global_embeds @ weight[:width] + found.quality_map.mean((1, 2))
    torch.testing.assert_close(found.quality, total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("branch", BRANCHES)
def test_efficientnet_lite0_is_a_backbone(branch: Any) -> None:
    model = SindModel(SindConfig(vision_config=dict(LITE0), local_branch=branch))
    assert model.head_widths == [1280, 0 if branch == "none" else 1280]
    assert model.wants_channels_last
    assert model.vision_model.config.hidden_dim == 1280 and model.token_layout.side == 7


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"model_type": "siglip2_vision_model", **VIT}, "it needs pixel_attention_mask and spatial_shapes"),
        ({"model_type": "pixtral", **VIT}, r"for 2 views it returns features of the shape \(1, 392, 32\)"),
        ({"model_type": "yolos", **VIT}, "it returns 297 tokens"),
        ({"model_type": "vit_mae", **VIT}, "it returns 50 tokens"),
        ({"model_type": "sam_vision_model", **VIT}, "Input image size"),
        ({"model_type": "clip_text_model", **VIT}, "You have to specify input_ids"),
        ({"model_type": "dinat"}, "requires the natten library"),
    ],
)
def test_a_backbone_that_gives_no_square_of_tokens_is_refused_in_one_line(vision: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SindModel(SindConfig(vision_config=vision))
    assert str(error.value).startswith(f"Cannot use {vision['model_type']!r} as a backbone")
    assert "\n" not in str(error.value)


def test_narrow_strided_convolutions_keep_their_memory_format() -> None:
    wants = {name: build(name).wants_channels_last for name in ("resnet", "efficientnet lite", "narrow resnet", "vit")}
    assert wants == {"resnet": True, "efficientnet lite": True, "narrow resnet": False, "vit": False}


MLCD = {"model_type": "mlcd_vision_model", **VIT, "image_size": 224, "patch_size": 16}
UNNORMED: dict[str, tuple[dict[str, Any], str]] = {
    "beit": ({"model_type": "beit", **VIT, "layer_norm_eps": 1e-3}, "pooler.layernorm"),
    "data2vec": ({"model_type": "data2vec-vision", **VIT}, "pooler.layernorm"),
    "chinese clip": (
        {"model_type": "chinese_clip_vision_model", **VIT, "projection_dim": 24},
        "vision_model.post_layernorm",
    ),
    "mlcd": (MLCD, "vision_model.post_layernorm"),
    "hiera": (BACKBONES["hiera"], "pooler.layernorm"),
    "convnext": (BACKBONES["convnext"], "layernorm"),
    "clip": (CLIP, "post_layernorm"),
}


@pytest.mark.parametrize("backbone", UNNORMED)
def test_tokens_are_read_after_the_final_norm(backbone: str) -> None:
    """A norm that a backbone applies to its pooled features alone also reaches the patch tokens."""
    vision, name = UNNORMED[backbone]
    torch.manual_seed(3)
    model = SindModel(SindConfig(vision_config=dict(vision), initializer_range=1.0)).eval()
    found_name = model.token_layout.final_norm
    assert found_name is not None and name.endswith(found_name)
    norm = model.vision_model.get_submodule(found_name)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    views, local = random_views(2)
    with torch.no_grad():
        found = model(views, local)
        last = model.vision_model(pixel_values=local).last_hidden_state
        tokens = last.flatten(2).mT if last.ndim == 4 else last[:, model.token_layout.prefix :]
        torch.testing.assert_close(found.local_embeds, norm(tokens).mean(1), rtol=1e-4, atol=1e-5)
        if model.token_layout.prefix and backbone != "clip":
            first = norm(model.vision_model(pixel_values=views).last_hidden_state[:, 0])
            torch.testing.assert_close(found.global_embeds, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "backbone", ["vit", "dinov2", "siglip", "swin", "focalnet", "pvt", "dinov3_convnext", "resnet"]
)
def test_no_norm_is_applied_twice(backbone: str) -> None:
    assert build(backbone).token_layout.final_norm is None


def test_hidden_states_and_attentions_are_returned_when_asked_for() -> None:
    model, views = build(), random_views(2)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(*views, output_hidden_states=True, output_attentions=True)
        assert [tuple(each.shape) for each in found.hidden_states] == [(4, 197, 32)] * 3
        assert [tuple(each.shape) for each in found.attentions] == [(4, 2, 197, 197)] * 2
        plain = model(*views)
        assert plain.hidden_states is None and plain.attentions is None
        torch.testing.assert_close(plain.quality, found.quality)


def test_a_configuration_that_asks_for_tuples_gives_a_tuple() -> None:
    vision = {**BACKBONES["vit"], "return_dict": False}
    model = SindModel(SindConfig(vision_config=vision, return_dict=False)).eval()
    with torch.no_grad():
        found = model(*random_views(2))
        assert isinstance(found, tuple)
        torch.testing.assert_close(found[0], model(*random_views(2), return_dict=True).quality)


@pytest.mark.parametrize("backbone", ["clip", "resnet", "vit"])
def test_the_input_embeddings_are_what_reads_the_pixels(backbone: str) -> None:
    layer = build(backbone).get_input_embeddings()
    convolutions = [each for each in layer.modules() if isinstance(each, torch.nn.Conv2d)]
    assert convolutions[0].in_channels == 3


def test_a_backbone_of_too_many_parameters_is_refused_before_memory_is_taken() -> None:
    vision = {**BACKBONES["vit"], "hidden_size": 65536, "intermediate_size": 1_000_000}
    with pytest.raises(ValueError, match=r"declares 3\.\de\+11 parameters, more than 2e\+10"):
        SindModel(SindConfig(vision_config=vision))


# --- every backbone, every variant -----------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_runs_learns_and_comes_back_from_disk(backbone: str, branch: Any, tmp_path: Path) -> None:
    model = build(backbone, branch, score_scale=2.5, score_shift=-1.0)
    views, local = random_views(2)
    if branch == "none":
        local = None
    output = model(views, local, labels=torch.tensor([1.0, 5.0]))
    assert output.quality.shape == (2,) and output.quality.dtype == torch.float32
    assert output.quality.std() > 1e-4  # it reads the images
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad != name.endswith("mask_token"), name
    model.save_pretrained(tmp_path)
    again = SindModel.from_pretrained(tmp_path)
    assert not again.training
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    with torch.inference_mode():  # the same weights elsewhere in memory may be multiplied in another order
        torch.testing.assert_close(again(views, local).quality, output.quality.detach(), rtol=1e-4, atol=1e-4)
    if branch == "none":
        assert output.local_embeds is None
    else:
        assert output.local_embeds.shape == (2, model.head_widths[1])
    assert output.global_embeds.shape == (2, model.head_widths[0])


@pytest.mark.parametrize("pairs", [(), (2,)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_map_and_the_embedding_are_the_whole_score(backbone: str, pairs: tuple[int, ...]) -> None:
    model = build(backbone, score_scale=7.5, score_shift=40.0)
    torch.nn.init.constant_(model.quality_head.bias, 0.3)
    with torch.no_grad():
        output = model(*random_views(2, *pairs), output_quality_map=True)
    assert output.quality_map.shape == (2, 7, 7) and output.quality_map.dtype == torch.float32
    width = model.head_widths[0]
    raw = 0.3 + output.global_embeds @ model.quality_head.weight[0, :width] + output.quality_map.mean((1, 2))
    torch.testing.assert_close(output.quality, 7.5 * raw + 40.0, rtol=1e-5, atol=1e-4)


def test_what_each_variant_reads() -> None:
    """The local class token and the global patch tokens are thrown away, and `none` does not look at local views."""
    views, local = random_views(2)
    other = random_views(2, seed=1)[1]
    for branch in BRANCHES:
        model = build("clip", branch)
        with torch.inference_mode():
            first, second = model(views, local), model(views, other)
        torch.testing.assert_close(first.global_embeds, second.global_embeds, rtol=1e-5, atol=1e-5)
        assert torch.allclose(first.quality, second.quality, atol=1e-5) == (branch == "none")
        if branch == "class":  # the same token of the other view
            with torch.inference_mode():
                torch.testing.assert_close(model(local, views).global_embeds, first.local_embeds, rtol=1e-5, atol=1e-5)


def test_a_backbone_without_a_base_model_is_refused() -> None:
    with pytest.raises(ValueError, match="Cannot use 'upernet' as a backbone"):
        SindModel(SindConfig(vision_config={"model_type": "upernet"}))


# --- the map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 7, 14, 16, 24, 28])
def test_pooling_equals_the_mean_over_repeated_pixels(side: int) -> None:
    tokens = torch.randn(3, side * side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    pixels = tokens.view(3, side, side).repeat_interleave(7, 1).repeat_interleave(7, 2)
    blocks = pixels.view(3, 7, side, 7, side).mean((2, 4))
    found = pool_to_grid(tokens)
    torch.testing.assert_close(found, blocks, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.mean((1, 2)), tokens.mean(1), rtol=1e-9, atol=1e-9)


def test_the_map_is_not_turned() -> None:
    tokens = torch.zeros(1, 14, 14)
    tokens[0, 2:4, 10:12] = 1
    found = pool_to_grid(tokens.flatten(1))
    assert found[0, 1, 5] == 1 and found.sum() == 1


@pytest.mark.parametrize("branch", ["class", "none"])
def test_variants_without_patch_tokens_have_no_map(branch: Any) -> None:
    with pytest.raises(ValueError, match=f"No quality map: local_branch='{branch}'"):
        build("clip", branch)(*random_views(1), output_quality_map=True)


# --- batches and pairs of views --------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", BRANCHES)
def test_nine_pairs_are_the_mean_of_nine_calls(branch: Any) -> None:
    model, wants_map = build("clip", branch, score_scale=3.0, score_shift=2.0), branch == "patch"
    views, local = random_views(2, 9)
    with torch.inference_mode():
        together = model(views, local, output_quality_map=wants_map)
        single = [model(views[:, t], local[:, t], output_quality_map=wants_map) for t in range(9)]
    torch.testing.assert_close(
        together.quality, torch.stack([x.quality for x in single]).mean(0), rtol=1e-5, atol=1e-5
    )
    if wants_map:
        expected = torch.stack([x.quality_map for x in single]).mean(0)
        torch.testing.assert_close(together.quality_map, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pairs", [(), (2,)])
@pytest.mark.parametrize("backbone", ["clip", "resnet"])
def test_an_image_scores_the_same_in_any_batch(backbone: str, pairs: tuple[int, ...]) -> None:
    model = build(backbone)
    views, local = random_views(8, *pairs)
    with torch.inference_mode():
        together = model(views, local).quality
        alone = torch.cat([model(views[i : i + 1], local[i : i + 1]).quality for i in range(8)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert alone.std() > 1e-3


def test_raw_pixels_are_normalized_with_the_models_own_numbers(tmp_path: Path) -> None:
    model = build(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])
    raw = torch.randint(0, 256, (2, 2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    normalized = (raw / 255 - mean) / std
    model.save_pretrained(tmp_path)  # the buffers are in no file: loading must bring them back
    for candidate in (model, SindModel.from_pretrained(tmp_path)):
        with torch.inference_mode():
            torch.testing.assert_close(candidate(*raw).quality, candidate(*normalized).quality, rtol=1e-5, atol=1e-5)
    half = SindModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(half._normalize(raw[0]), normalized[0].bfloat16(), rtol=1e-2, atol=1e-2)


# --- wrong inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "local_shape", "message"),
    [
        ((3, 224, 224), (3, 224, 224), r"pixel_values has shape \(3, 224, 224\)"),
        ((2, 1, 224, 224), (2, 1, 224, 224), r"shape \(2, 1, 224, 224\): expected \(B, 3, s, s\)"),
        ((2, 224, 224, 3), (2, 224, 224, 3), "expected"),
        ((0, 3, 224, 224), (0, 3, 224, 224), "expected"),
        ((1, 1, 1, 3, 224, 224), None, "expected"),
        ((2, 3, 224, 224), (1, 3, 224, 224), r"local_pixel_values has shape \(1, 3, 224, 224\), but pixel_values"),
        ((2, 3, 224, 224), (2, 1, 3, 224, 224), "local_pixel_values has shape"),
        ((2, 3, 224, 224), None, "local_pixel_values is missing"),
        ((2, 3, 112, 112), (2, 3, 112, 112), "views of 112×112 px, but this model reads 224×224 px"),
        ((2, 3, 140, 224), (2, 3, 140, 224), "views of 224×140 px, but this model reads 224×224 px"),
    ],
)
def test_wrong_shapes_are_one_line(shape: tuple[int, ...], local_shape: tuple[int, ...] | None, message: str) -> None:
    local = None if local_shape is None else torch.zeros(local_shape)
    with pytest.raises(ValueError, match=message) as error:
        build()(torch.zeros(shape), local)
    assert "\n" not in str(error.value)


def test_a_convolutional_backbone_refuses_views_of_another_size() -> None:
    with pytest.raises(ValueError, match="views of 448×448 px, but this model reads 224×224 px"):
        build("resnet")(torch.zeros(1, 3, 448, 448), torch.zeros(1, 3, 448, 448))


def test_labels_must_be_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="one value per image"):
        build()(*random_views(2), labels=torch.zeros(3))


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_type", ["scale_shift", "l1", "plcc+rank"])
def test_the_loss_is_the_configured_one_within_scenes(loss_type: str) -> None:
    model = build(loss_type=loss_type, score_scale=4.0, score_shift=1.0)
    views, labels, scenes = random_views(4), torch.tensor([3.0, 9.0, 4.0, 1.0]), torch.tensor([5, 5, 8, 8])
    output = model(*views, labels=labels, scene_ids=scenes)
    torch.testing.assert_close(output.loss, by_scene(output.quality, labels, scenes, loss_type))
    whole = model(*views, labels=labels)
    torch.testing.assert_close(whole.loss, by_scene(whole.quality, labels, None, loss_type))
    assert model(*views).loss is None
    plain = model(*views, labels=labels, return_dict=False)
    assert isinstance(plain, tuple)
    torch.testing.assert_close(plain[0], whole.loss)
    torch.testing.assert_close(plain[1], whole.quality)


@pytest.mark.parametrize("branch", BRANCHES)
def test_both_views_are_one_batch_to_batchnorm(branch: Any) -> None:
    model = build("resnet", branch).train()
    views, local = random_views(3)
    model(views, local)
    norm = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked == 1
    alone = build("resnet", "none").train()
    alone(torch.cat([views, local]) if branch != "none" else views)
    other = next(module for module in alone.modules() if isinstance(module, torch.nn.BatchNorm2d))
    torch.testing.assert_close(norm.running_mean, other.running_mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("when", ["config", "call", "loaded"])
def test_a_frozen_backbone_keeps_weights_and_statistics(when: str, tmp_path: Path) -> None:
    model = build("resnet", freeze_backbone=when != "call", loss_type="l2")
    if when == "loaded":
        model.save_pretrained(tmp_path)
        model = SindModel.from_pretrained(tmp_path)
    model.train()
    if when == "call":
        model.freeze_backbone()
    assert model.training and not model.vision_model.training
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "quality_head.weight",
        "quality_head.bias",
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(*random_views(3), labels=torch.tensor([1.0, 5.0, 2.0])).loss.backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"quality_head.weight", "quality_head.bias"}


@pytest.mark.parametrize("when", ["config", "call", "loaded"])
def test_frozen_batch_norm_keeps_statistics_while_weights_are_trained(when: str, tmp_path: Path) -> None:
    model = build("resnet", freeze_batch_norm=when != "call", loss_type="l2")
    if when == "loaded":
        model.save_pretrained(tmp_path)
        model = SindModel.from_pretrained(tmp_path)
    if when == "call":
        model.freeze_batch_norm()
    views = random_views(3)
    with torch.no_grad():
        expected = model.eval()(*views).quality
    model.train()
    assert model.vision_model.training
    torch.testing.assert_close(model(*views).quality, expected)  # of BatchNorm alone the two modes differ
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(*views, labels=torch.tensor([1.0, 5.0, 2.0])).loss.backward()
    optimizer.step()
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics and statistics <= kept
    assert kept.isdisjoint({"quality_head.weight"}) and len(kept - statistics) < len(before) / 4


def test_a_frozen_clip_keeps_its_projection() -> None:
    model = build("clip", freeze_backbone=True)
    model(*random_views(2), labels=torch.tensor([1.0, 5.0])).loss.backward()
    assert model.visual_projection.weight.grad is None and model.quality_head.weight.grad is not None


@pytest.mark.parametrize("backbone", ["clip", "vit", "swin"])
def test_gradient_checkpointing_changes_no_gradient(backbone: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build(backbone)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        if backbone == "swin":
            model.vision_model.apply(lambda module: setattr(module, "drop_prob", 0.0))
        model(*random_views(2), labels=torch.tensor([1.0, 5.0])).loss.backward()
        assert model.is_gradient_checkpointing == checkpointing
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


# --- precision and attention -----------------------------------------------------------------------------------------


def test_attention_implementations_agree(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    views, found = random_views(2), {}
    for name in ("sdpa", "eager"):
        model = SindModel.from_pretrained(tmp_path, attn_implementation=name)
        assert model.vision_model.config._attn_implementation == name
        with torch.inference_mode():
            found[name] = model(*views, output_quality_map=True)
    torch.testing.assert_close(found["sdpa"].quality, found["eager"].quality, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["sdpa"].quality_map, found["eager"].quality_map, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", ["clip", "resnet"])
def test_bfloat16_weights_and_autocast_give_float32_scores(backbone: str) -> None:
    model, views = build(backbone), random_views(3)
    with torch.inference_mode():
        exact = model(*views, output_quality_map=True)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(*views, output_quality_map=True, labels=torch.tensor([1.0, 2.0, 4.0]))
        half = model.to(torch.bfloat16)(*views, output_quality_map=True, labels=torch.tensor([1.0, 2.0, 4.0]))
    for found in (mixed, half):
        assert found.quality.dtype == found.quality_map.dtype == found.loss.dtype == torch.float32
        scale = exact.quality.abs().max().item() + 1
        torch.testing.assert_close(found.quality, exact.quality, rtol=0, atol=0.05 * scale)
        # Not rounded to bfloat16 at the end.
        assert not torch.equal(found.quality, found.quality.bfloat16().float())


# --- starting from other checkpoints ---------------------------------------------------------------------------------


def tiny_clip_model(folder: Path) -> Any:
    from transformers import CLIPConfig, CLIPModel

    text = {**VIT, "vocab_size": 32, "max_position_embeddings": 8}
    vision = {key: value for key, value in CLIP.items() if key not in ("model_type", "projection_dim")}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    clip.save_pretrained(folder)
    return clip


def test_a_clip_checkpoint_fills_all_but_the_head(tmp_path: Path) -> None:
    clip = tiny_clip_model(tmp_path)
    config = SindConfig(vision_config=dict(CLIP), local_branch="class")
    model, info = SindModel.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert set(info["missing_keys"]) == {"quality_head.weight", "quality_head.bias"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    for name, value in clip.vision_model.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], value), name
    assert torch.equal(model.visual_projection.weight, clip.visual_projection.weight)
    assert 0 < model.quality_head.weight.std() < 0.05 and (model.quality_head.bias == 0).all()
    with torch.inference_mode():
        expected = clip.get_image_features(random_views(2)[0])
        expected = getattr(expected, "pooler_output", expected)
        torch.testing.assert_close(model(*random_views(2)).global_embeds, expected, rtol=1e-5, atol=1e-5)


def test_from_backbone_takes_clip_with_its_projection(tmp_path: Path) -> None:
    clip = tiny_clip_model(tmp_path)
    model = SindModel.from_backbone(str(tmp_path), local_branch="class", loss_type="plcc")
    assert (model.config.local_branch, model.config.loss_type) == ("class", "plcc")
    assert model.head_widths == [24, 24]
    assert torch.equal(model.visual_projection.weight, clip.visual_projection.weight)
    for name, value in clip.vision_model.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], value), name


@pytest.mark.parametrize("backbone", ["vit", "vit of another size", "dinov2", "resnet", "swin"])
def test_from_backbone_takes_any_vision_checkpoint(backbone: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    vision = dict(BACKBONES[backbone])
    original = AutoModel.from_config(AutoConfig.for_model(vision.pop("model_type"), **vision)).eval()
    original.save_pretrained(tmp_path / "backbone")
    model = SindModel.from_backbone(str(tmp_path / "backbone")).eval()
    own = model.vision_model.state_dict()
    brought = original.state_dict()
    assert own and all(torch.equal(value, brought[name]) for name, value in own.items())
    views = random_views(2)
    with torch.inference_mode():
        first = model(*views).quality
        model.save_pretrained(tmp_path / "sind")
        torch.testing.assert_close(SindModel.from_pretrained(tmp_path / "sind")(*views).quality, first)


def test_from_backbone_reads_checkpoints_with_another_head(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    classifier = ViTForImageClassification(ViTConfig(**VIT))
    classifier.save_pretrained(tmp_path)
    model = SindModel.from_backbone(str(tmp_path))
    for name, value in model.vision_model.state_dict().items():
        assert torch.equal(classifier.vit.state_dict()[name], value), name


# --- score -----------------------------------------------------------------------------------------------------------


def test_score_is_the_forward_pass_on_the_processors_views(tiny_model: SindModel, image_files: list[str]) -> None:
    processor = SindImageProcessor()
    with torch.inference_mode():
        expected = tiny_model(**processor(image_files, return_tensors="pt")).quality.tolist()
        nine = tiny_model(**processor(image_files[2], views="nine", return_tensors="pt")).quality.tolist()
    for batch_size in (1, 2, 8):
        found = tiny_model.score(image_files, processor, batch_size=batch_size)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-4)
        assert all(isinstance(score, float) for score in found)
    assert np.std(expected) > 0.1
    assert tiny_model.score(image_files[2], processor, views="nine") == pytest.approx(nine, rel=1e-5)
    assert nine != pytest.approx(expected[2:3], rel=1e-5)
    assert tiny_model.score([], processor) == []
    for several in (np.array(image_files), map(str, image_files), dict.fromkeys(image_files).keys()):
        assert tiny_model.score(several, processor) == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_score_leaves_the_model_in_the_mode_it_was_in(tiny_model: SindModel, image_files: list[str]) -> None:
    tiny_model.train()
    tiny_model.score(image_files[:1], SindImageProcessor())
    assert tiny_model.training
    with pytest.raises(ImageError, match=r"gone\.png"):
        tiny_model.score(["gone.png"], SindImageProcessor())
    assert tiny_model.training
