from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, ResNetConfig

from sind_hf import SindConfig

# --- defaults --------------------------------------------------------------------------------------------------------


def test_defaults_are_the_published_model() -> None:
    config = SindConfig()
    vision: Any = config.vision_config
    assert (vision.model_type, vision.patch_size, vision.image_size) == ("clip_vision_model", 16, 224)
    assert (vision.hidden_size, vision.projection_dim) == (768, 512)
    assert vision.hidden_act == "quick_gelu"
    assert (config.local_branch, config.loss_type, config.view_size) == ("patch", "scale_shift", 224)
    assert (config.score_scale, config.score_shift, config.score_range) == (1, 0, None)
    assert tuple(config.image_mean) == (0.485, 0.456, 0.406)  # ImageNet's, not CLIP's 0.481, 0.458, 0.408
    assert tuple(config.image_std) == (0.229, 0.224, 0.225)
    assert not config.freeze_backbone


@pytest.mark.parametrize(
    ("vision", "side"),
    [
        ({"model_type": "clip_vision_model", "image_size": 336}, 336),
        ({"model_type": "vit", "image_size": [448, 448]}, 448),
        ({"model_type": "resnet"}, 224),
        ({"model_type": "dinov2"}, 224),  # 518 is no multiple of 56
    ],
)
def test_view_size_follows_the_backbone(vision: dict[str, Any], side: int) -> None:
    assert SindConfig(vision_config=vision).view_size == side


def test_view_size_can_be_chosen() -> None:
    assert SindConfig(vision_config={"model_type": "resnet"}, view_size=336).view_size == 336


# --- validation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_branch": "patches"}, "local_branch is 'patches': it must be one of 'patch', 'class', 'none'"),
        ({"view_size": 100}, "view_size is 100: it must be a positive multiple of 56"),
        ({"view_size": 0}, "view_size is 0"),
        ({"view_size": -56}, "view_size is -56"),
        ({"view_size": 224.0}, "view_size is 224.0"),
        ({"loss_type": "scaleshift"}, "Unknown loss 'scaleshift'. Did you mean 'scale_shift'"),
        ({"score_range": [5, 1]}, r"score_range is \[5, 1\]"),
        ({"score_range": [1, 1]}, "score_range"),
        ({"score_range": [1]}, "score_range"),
        ({"score_range": [0, float("inf")]}, "score_range"),
        ({"score_range": "0-100"}, "score_range"),
        ({"score_scale": "2"}, "score_scale is '2'"),
        ({"score_scale": 0.0}, "higher is always better"),
        ({"score_scale": -1.0}, "higher is always better"),
        ({"score_shift": float("nan")}, "score_shift nan"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.2, 0.0, 0.2]}, "image_std"),
        ({"vision_config": {"model_type": "no_such_model"}}, "no_such_model"),
    ],
)
def test_bad_values_are_one_line_value_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SindConfig(**options)
    assert "\n" not in str(error.value)


def test_values_changed_later_are_checked_before_saving(tmp_path: Path) -> None:
    config = SindConfig()
    config.score_scale = -3.0
    with pytest.raises(ValueError, match="score_scale is -3.0"):
        config.save_pretrained(tmp_path)


# --- to disk and back ------------------------------------------------------------------------------------------------

EVERY_OPTION: dict[str, Any] = {
    "vision_config": {"model_type": "resnet", "depths": [1, 2], "hidden_sizes": [8, 16]},
    "local_branch": "class",
    "view_size": 112,
    "loss_type": "plcc+rank",
    "score_scale": 3,
    "score_shift": -1.5,
    "score_range": [1, 5],
    "freeze_backbone": True,
    "freeze_batch_norm": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "initializer_range": 0.5,
}


def test_every_option_survives_a_round_trip(tmp_path: Path) -> None:
    config = SindConfig(**EVERY_OPTION)
    config.save_pretrained(tmp_path)
    again = SindConfig.from_pretrained(tmp_path)
    for name, value in EVERY_OPTION.items():
        if name != "vision_config":
            assert getattr(again, name) == value, name
    assert isinstance(again.vision_config, ResNetConfig)
    assert again.vision_config.depths == [1, 2]
    written = {**again.to_dict(), "transformers_version": None}
    assert written == {**config.to_dict(), "transformers_version": None}
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SindConfig)


def test_the_diff_is_enough_to_build_the_same_configuration() -> None:
    config = SindConfig(**EVERY_OPTION)
    assert SindConfig(**config.to_diff_dict()).to_dict() == {
        **config.to_dict(),
        "transformers_version": config.to_diff_dict()["transformers_version"],
    }


def test_the_pipeline_is_named_for_others_but_not_demanded_here(tmp_path: Path) -> None:
    SindConfig().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["custom_pipelines"]["image-quality-assessment"]["impl"] == "pipeline_sind.SindPipeline"
    # An attribute of this name would make `pipeline` ask for trust in remote code that the package already has.
    assert not hasattr(SindConfig.from_pretrained(tmp_path), "custom_pipelines")


def test_a_configuration_of_other_backbone_is_kept_apart() -> None:
    """Defaults must not be shared between instances."""
    first, second = SindConfig(), SindConfig()
    first.vision_config.hidden_size = 8
    assert second.vision_config.hidden_size == 768


@pytest.mark.parametrize(
    "vision",
    [
        {"model_type": "timm_wrapper", "architecture": "hf-hub:evil/x"},
        {"model_type": "timm_wrapper", "architecture": "resnet18", "model_args": {"pretrained": True}},
        {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "/tmp/x.pth"}},
        {"model_type": "timm_backbone", "backbone": "hf-hub:evil/x"},
        {"model_type": "detr", "backbone": "evil/x", "use_pretrained_backbone": True},
        {"model_type": "upernet", "backbone_config": {"model_type": "detr", "backbone": "evil/x"}},
        {"model_type": "vit", "use_pretrained_backbone": True},
    ],
)
def test_a_backbone_that_would_be_fetched_from_elsewhere_is_refused(
    vision: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("an address was looked up")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(ValueError, match="names a model outside this folder") as error:
        SindConfig(vision_config=vision)
    assert "\n" not in str(error.value)


def test_the_name_a_backbone_was_read_from_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("an address was looked up"))
    config = SindConfig(vision_config={"model_type": "vit", "_name_or_path": "evil/x"})
    assert "_name_or_path" not in config.to_dict()["vision_config"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"view_size": 56_000}, "view_size is 56000: it must be at most 2240"),
        (
            {"vision_config": {"model_type": "vit", "num_hidden_layers": 10**6}},
            "num_hidden_layers=1000000: at most 1,000",
        ),
        ({"vision_config": {"model_type": "resnet", "depths": [3, 10**6, 3, 3]}}, "at most 1,000 layers"),
    ],
)
def test_declared_sizes_are_bounded(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SindConfig(**fields)


def test_of_a_clip_the_vision_half_is_taken_with_its_projection() -> None:
    from transformers import CLIPConfig

    for whole in (CLIPConfig(projection_dim=24), {"model_type": "clip", "projection_dim": 24}):
        vision = SindConfig(vision_config=whole).vision_config
        assert (vision.model_type, vision.projection_dim) == ("clip_vision_model", 24)
