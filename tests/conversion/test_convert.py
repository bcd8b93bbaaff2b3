"""Official weights in: what a converted file computes, what is read from it, and what is refused."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from helpers.published_networks import (
    PublishedClip,
    PublishedResNet,
    as_open_clip,
    as_timm,
    set_by_sine,
    views,
    with_random_statistics,
)
from sind_hf import SindImageProcessor, SindModel
from sind_hf.conversion.convert import convert_checkpoint, convert_weights

VARIANTS = ("patch", "class", "none")
Weights = dict[str, Tensor]


def tiny_clip(variant: str = "patch", **options: Any) -> PublishedClip:
    torch.manual_seed(3)
    network = PublishedClip(variant, 128, 2, 48, **options)
    with_random_statistics(network)
    return network


def tiny_resnet(**options: Any) -> PublishedResNet:
    torch.manual_seed(3)
    network = PublishedResNet((1, 2), width=8, stem=8, **options)
    with_random_statistics(network)
    return network


@torch.inference_mode()
def same_scores(model: SindModel, network: nn.Module, count: int = 2, side: int = 224, places: float = 1e-5) -> None:
    pixels = views(count, side=side)
    expected = network(*pixels)
    assert expected.std() > 1e-5 or count == 1  # scores that say something about the images
    torch.testing.assert_close(model(*pixels).quality, expected, rtol=places, atol=places)


# --- what it computes ------------------------------------------------------------------------------------------------


def test_the_official_checkpoint(shared: Path, tmp_path: Path) -> None:
    folder = shared / "reference/parity"
    convert_checkpoint(folder / "official_tiny.pth", tmp_path / "out", config=folder / "official_tiny_config.json")
    stored = load_file(folder / "official_tiny_outputs.safetensors")
    model = AutoModel.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        found = model(stored["pixel_values"], stored["local_pixel_values"])
    torch.testing.assert_close(found.quality, stored["quality"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.global_embeds, stored["global_embeds"], rtol=0, atol=1e-5)
    config = model.config
    assert (config.score_scale, config.score_shift, config.score_range) == (1, 0, None)


CASES: dict[str, Callable[[], nn.Module]] = {
    **{f"clip, {variant}": lambda variant=variant: tiny_clip(variant) for variant in VARIANTS},
    "clip of patches of 14": lambda: tiny_clip(patch=14, hidden=96),
    "clip of 336 pixels": lambda: tiny_clip(patch=28, side=336),
    "resnet of bottlenecks": tiny_resnet,
    "resnet of basic blocks": lambda: tiny_resnet(bottleneck=False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_scores_are_those_of_the_published_network(case: str) -> None:
    network = CASES[case]()
    done = convert_weights(network.state_dict())
    assert not done.fresh_head and not done.model.training
    assert done.model.config.local_branch == (case.partition(", ")[2] or ("none" if "resnet" in case else "patch"))
    same_scores(done.model, network, side=int(done.model.config.view_size or 0))


COMMITTED = ("clip, patch", "clip, class", "clip, none", "resnet of bottlenecks")


def committed_views(draw: Any) -> tuple[Tensor, Tensor]:
    images = [draw(300, 224).crop((left, 0, left + 224, 224)) for left in (0, 40, 76)]
    pixels = torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in images])
    normalised = pixels.permute(0, 3, 1, 2).float() / 64 - 2
    return normalised * torch.tensor([1, 0.5, 0.25])[:, None, None, None], normalised.flip(0, 1)


@pytest.mark.parametrize("case", COMMITTED)
def test_scores_equal_the_committed_ones(golden: Path, draw: Any, case: str) -> None:
    expected = json.loads((golden / "converted.json").read_text())[case]
    model = convert_weights(set_by_sine(CASES[case]().state_dict())).model
    with torch.inference_mode():
        found = model(*committed_views(draw)).quality.tolist()
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-5)


def test_heads_and_activation_count() -> None:
    network = tiny_clip(heads=4, activation=nn.GELU())
    done = convert_weights(network.state_dict(), num_attention_heads=4, hidden_act="gelu")
    same_scores(done.model, network)
    assumed = convert_weights(network.state_dict()).model
    assert (assumed.config.vision_config.num_attention_heads, assumed.config.vision_config.hidden_act) == (
        2,
        "quick_gelu",
    )
    with pytest.raises(AssertionError, match="not close"):
        same_scores(assumed, network)


@pytest.mark.parametrize("layout", [as_open_clip, as_timm])
def test_a_clip_becomes_a_start_with_a_fresh_head(layout: Callable[[Weights], Weights]) -> None:
    network = tiny_clip()
    weights = layout(network.state_dict())
    done = convert_weights(weights)
    assert done.fresh_head and done.model.config.local_branch == "patch"
    assert any("(fresh)" in line for line in done.summary())
    pixels = views(2)
    with torch.inference_mode():
        found = done.model(*pixels)
        g, tokens = network.clip_model.visual(pixels[0])[0], network.clip_model.visual(pixels[1])[1]
    torch.testing.assert_close(found.global_embeds, g, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.local_embeds, tokens.mean(1), rtol=1e-5, atol=1e-5)
    assert found.quality.abs().max() < 10 and found.quality.std() > 0
    again = convert_weights(weights)  # the same file gives the same folder
    assert torch.equal(again.model.quality_head.weight, done.model.quality_head.weight)
    for variant in ("class", "none"):
        assert convert_weights(weights, variant=variant).model.config.local_branch == variant


def test_a_resnet_of_torchvision_becomes_a_start() -> None:
    network = tiny_resnet()
    names = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2"}
    weights = {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    for key, value in network.clip_model.state_dict().items():
        number, _, rest = key.partition(".")
        weights[f"{names[number]}.{rest}"] = value
    done = convert_weights(weights)
    assert done.fresh_head and done.left_out == ("fc.bias", "fc.weight")
    pixels = views(2)
    with torch.inference_mode():
        found = done.model(*pixels).global_embeds
        torch.testing.assert_close(found, network.clip_model(pixels[0]).flatten(1), rtol=1e-5, atol=1e-5)


# --- at full size ----------------------------------------------------------------------------------------------------


def full_size(network: nn.Module, folder: Path, summary: str) -> None:
    """Save a network as published, forget it, convert the file, load the folder, and compare."""
    with_random_statistics(network)
    pixels = views(1)
    with torch.inference_mode():
        expected = network(*pixels)
    file, output = folder / "official.pth", folder / "out"
    torch.save(network.state_dict(), file)
    try:
        for part in [*network.children()]:
            part.to_empty(device="meta")
        gc.collect()
        assert summary in "\n".join(convert_checkpoint(file, output).summary())
        model = AutoModel.from_pretrained(output)
        with torch.inference_mode():
            found = model(*pixels, output_quality_map=model.config.local_branch == "patch")
        torch.testing.assert_close(found.quality, expected, rtol=1e-4, atol=1e-5)
        if found.quality_map is not None:
            assert found.quality_map.shape == (1, 7, 7)
    finally:  # gigabytes, which pytest would keep for three runs
        file.unlink()
        (output / "model.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("variant", [pytest.param("patch"), pytest.param("none", marks=pytest.mark.slow)])
def test_a_vit_b_16(tmp_path: Path, variant: str) -> None:
    torch.manual_seed(0)
    full_size(PublishedClip(variant, 768, 12, 512), tmp_path, "12 layers of width 768, patches of 16 px")


@pytest.mark.slow
def test_a_vit_l_14(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Two of its 24 layers, which are all alike.
    full_size(PublishedClip("patch", 1024, 2, 768, patch=14), tmp_path, "2 layers of width 1024, patches of 14 px")


def test_a_resnet_50(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full_size(PublishedResNet(), tmp_path, "3+4+6+3 bottleneck blocks, 2048 features")


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped", "module.", "half"])
def test_files_and_wrappings(tmp_path: Path, kind: str) -> None:
    network = tiny_clip()
    weights: Weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(weights, file)
    elif kind == "wrapped":
        content = {"model": {f"module.{name}": value for name, value in weights.items()}}
        torch.save({"epoch": torch.tensor(3), **content, "optimizer": {"state": {}}}, file)
    elif kind == "module.":
        torch.save({f"module.{name}": value for name, value in weights.items()}, file)
    else:
        torch.save({name: value.half() if kind == "half" else value for name, value in weights.items()}, file)
    convert_checkpoint(file, tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    same_scores(model, network, places=5e-3 if kind == "half" else 1e-5)


def test_the_folder_scores_images(tmp_path: Path, image_files: list[str]) -> None:
    network = tiny_clip()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    done = convert_checkpoint(tmp_path / "weights.pth", tmp_path / "deep" / "out", view_size=112)
    model = AutoModel.from_pretrained(tmp_path / "deep" / "out")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "deep" / "out")
    assert isinstance(processor, SindImageProcessor) and processor.size["height"] == 112
    assert model.score(image_files, processor) == pytest.approx(done.model.score(image_files, processor))
    names = {path.name for path in (tmp_path / "deep" / "out").iterdir()}
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "modeling_sind.py"} <= names
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_an_empty_folder_is_filled_and_another_is_left_alone(tmp_path: Path) -> None:
    torch.save(tiny_resnet().state_dict(), tmp_path / "weights.pth")
    (tmp_path / "out").mkdir()
    convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    for taken in (tmp_path / "out", tmp_path / "weights.pth"):
        with pytest.raises(ValueError, match="exists and is not an empty folder") as error:
            convert_checkpoint(tmp_path / "weights.pth", taken)
        assert "\n" not in str(error.value)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(tiny_resnet().state_dict(), tmp_path / "weights.pth")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SindImageProcessor, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out")
    assert os.listdir(tmp_path) == ["weights.pth"]


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(weights: Weights, *words: str, **options: Any) -> None:
    with pytest.raises(ValueError) as error:
        convert_weights(weights, **options)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def changed(weights: Weights, **tensors: Tensor | None) -> Weights:
    """The weights with some replaced, added or (None) taken away; `__` stands for a dot."""
    named = {key.replace("__", "."): value for key, value in tensors.items()}
    return {key: value for key, value in {**weights, **named}.items() if value is not None}


def test_keys_and_shapes_that_do_not_fit_are_listed() -> None:
    weights = dict(tiny_clip().state_dict())
    block = "clip_model.visual.transformer.resblocks"
    refused(changed(weights, **{f"{block}.1.ln_2.bias": None}), "missing keys", f"{block}.1.ln_2.bias")
    refused(changed(weights, clip_model__visual__extra=torch.ones(2)), "no place", "clip_model.visual.extra")
    refused(changed(weights, optimizer_step=torch.ones(2)), "no place", "optimizer_step")
    wrong = f"{block}.0.mlp.c_proj.weight"
    refused(changed(weights, **{wrong: torch.ones(128, 5)}), wrong, "(128, 5) instead of (128, 512)")
    refused(changed(weights, **{wrong: weights[wrong] * float("nan")}), wrong, "not finite")
    refused(changed(weights, **{wrong: weights[wrong].long()}), wrong, "torch.int64")
    refused(changed(weights, **{f"{block}.9.ln_1.bias": torch.ones(128)}), f"{block}.2.", "in all)")
    refused(changed(weights, **{f"{block}.9999.ln_1.bias": torch.ones(128)}), f"{block}.9999", "deeper")
    # All at once: none hides another.
    bad = changed(
        weights, **{f"{block}.1.ln_2.bias": None, wrong: torch.ones(1), "clip_model.visual.x": torch.ones(1)}
    )
    refused(bad, "missing keys", "no place", "do not fit")
    refused(changed(weights, clip_model__visual__proj=None), "clip_model.visual.proj", "missing")
    refused(changed(weights, clip_model__visual__conv1__weight=torch.ones(128, 3, 16, 8)), "conv1.weight", "shape")
    refused(changed(weights, clip_model__visual__conv1__weight=torch.ones(128, 3, 0, 0)), "conv1.weight", "shape")
    refused(changed(weights, clip_model__visual__positional_embedding=torch.ones(12, 128)), "square of patches")
    refused(changed(weights, head__quality_predictor__0__weight=None), "head.quality_predictor.0.weight", "missing")
    refused(changed(weights, head__quality_predictor__0__weight=torch.ones(1, 7)), "(1, 7)", "patch 176", "none 48")


def test_resnets_that_do_not_fit() -> None:
    weights = dict(tiny_resnet().state_dict())
    refused(changed(weights, clip_model__4__0__bn2__running_var=None), "clip_model.4.0.bn2.running_var")
    refused(changed(weights, clip_model__5__0__downsample__0__weight=None), "clip_model.5.0.downsample.0.weight")
    refused(changed(weights, clip_model__1__bias=torch.ones(3)), "clip_model.1.bias", "(3,) instead of (8,)")
    refused(changed(weights, clip_model__9__weight=torch.ones(3)), "no place", "clip_model.9.weight")
    refused(changed(weights, head__weight=torch.ones(1, 63)), "(1, 63)", "none 64")
    refused(weights, "a ResNet, which has no hidden_act", hidden_act="gelu")
    # Counters of training batches are the one thing that may lack: old files of torchvision have none.
    convert_weights({key: value for key, value in weights.items() if "num_batches" not in key})


def test_a_head_of_two_possible_variants_must_be_named() -> None:
    torch.manual_seed(0)
    network = with_random_statistics(PublishedClip("class", 64, 1, 64))
    refused(network.state_dict(), "128 numbers", "patch or class", "--variant")
    same_scores(convert_weights(network.state_dict(), variant="class").model, network)
    refused(network.state_dict(), "not that of the variant 'none'", variant="none")


def test_heads_activations_and_sizes_must_make_sense() -> None:
    weights = tiny_clip().state_dict()
    refused(weights, "num_attention_heads is 3", "128", num_attention_heads=3)
    refused(weights, "num_attention_heads is True", num_attention_heads=True)
    refused(weights, "did you mean 'gelu'", hidden_act="gellu")
    refused(weights, "hidden_act is ['gelu']", hidden_act=["gelu"])
    refused(weights, "patch_size is given as 14, but is 16", patch_size=14)
    refused(weights, "view_size is 100", view_size=100)
    torch.manual_seed(0)
    odd = PublishedClip("patch", 80, 1, 32, heads=4).state_dict()
    refused(odd, "80 is not a multiple of 64", "--num-attention-heads")
    assert convert_weights(odd, num_attention_heads=4).model.config.vision_config.num_attention_heads == 4


def test_files_of_other_things() -> None:
    refused({"encoder.weight": torch.ones(2)}, "none of the layouts", "encoder.weight")
    refused({"vision_model.embeddings.class_embedding": torch.ones(2)}, "SindModel.from_pretrained")
    refused(as_open_clip({"clip_model.visual.conv1.weight": torch.ones(8, 3, 16, 16)}), "missing", "visual.proj")
    classifier = as_timm(tiny_clip().state_dict()) | {"head.bias": torch.ones(48)}
    refused(classifier, "classifier")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"num_heads": 2}', "unknown key 'num_heads'"),
        (None, "cannot be read"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, content: str | None, expected: str) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    torch.save(tiny_clip().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=expected) as error:
        convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out", config=file)
    assert str(file) in str(error.value) and not (tmp_path / "out").exists()


def test_options_go_before_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 8, "hidden_act": "gelu", "hidden_size": 128}')
    torch.save(tiny_clip().state_dict(), tmp_path / "weights.pth")
    done = convert_checkpoint(
        tmp_path / "weights.pth", tmp_path / "out", config=tmp_path / "config.json", num_attention_heads=4
    )
    vision: Any = done.model.config.vision_config
    assert (vision.num_attention_heads, vision.hidden_act) == (4, "gelu")
