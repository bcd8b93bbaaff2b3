"""The configuration of a SIND model."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .losses import get_loss

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CUSTOM_PIPELINES = {
    "image-quality-assessment": {"impl": "pipeline_sind.SindPipeline", "pt": ["AutoModel"], "type": "image"}
}
BUNDLED = "bundled"  # name of the checkpoint inside the package sind-hf
LocalBranch = Literal["patch", "class", "none"]
GRID = 7  # fragments per side of the local view; also the side of the quality map
VIEW_STEP = 8 * GRID  # sides of views are multiples of it: whole fragments, and 8/7 of the side in whole pixels
MAX_VIEW_SIZE = 2240
MAX_LAYERS = 1000
LAYER_COUNTS = ("layers", "depth", "depths", "repeats", "blocks")  # ends of the fields that count layers


def resolve_checkpoint(name: str | os.PathLike[str] | None) -> Any:
    """Turn the name `"bundled"` into the folder of that checkpoint; return every other name, path or None unchanged.

    Raises:
        ValueError: If the name is `"bundled"` and the package sind-hf is not installed.
    """
    if name != BUNDLED:
        return name
    folder = Path(__file__).parent / BUNDLED
    if not folder.is_dir():  # this file was downloaded with another checkpoint
        raise ValueError(f"{BUNDLED}: this checkpoint is part of the package sind-hf; install it and import sind_hf.")
    return str(folder)


class SindConfig(PreTrainedConfig):
    """Configuration of a SIND model: its backbone, the tokens that its head reads, and the scale of its scores.

    Args:
        vision_config: The backbone: a configuration (or its `dict`, with `model_type`) of any vision model of
            transformers. Default: CLIP ViT-B/16. Of a model of images and text (CLIP, SigLIP) only the vision half is
            used. A configuration that names weights or a model elsewhere is refused, so that loading a model folder
            never contacts the Hub. One of more than 1,000 layers is refused, too.
        local_branch: Input of the head beside the global view's class token `g`: `"patch"`, the mean patch token of
            the local view (the method, `--local_global`); `"class"`, the class token of the local view (the ablation
            `--all_global`); `"none"`, nothing (global view only).
        view_size: Side of both square views, in pixels; a multiple of 56, so that views divide into 7×7 fragments and
            the resized image (8/7 of the side) has whole pixels; at most 2,240. Default: the backbone's `image_size`
            if that is a multiple of 56, else 224.
        loss_type: The loss computed when `labels` are given: a name of `sind_hf.losses.LOSSES`.
        score_scale: Calibration: `quality = score_scale · raw + score_shift`. 1 for a fresh model.
        score_shift: Calibration, see `score_scale`. 0 for a fresh model.
        score_range: `[lowest, highest]` score of the training data's scale, or `None` if scores are on no declared
            scale. Higher is always better. Scores are never clipped to it.
        freeze_backbone: Train the head alone; the backbone then also keeps its BatchNorm statistics.
        freeze_batch_norm: Keep BatchNorm's statistics as they are while the weights are trained: for fine-tuning on
            few images, whose statistics would replace them.
        image_mean: Per-channel mean of the normalization, on the 0–1 scale (ImageNet's, as published; not CLIP's).
        image_std: Per-channel standard deviation of the normalization.
        initializer_range: Standard deviation of the fresh head's weights.

    Raises:
        ValueError: If a value is outside the choices above.

    Example:
        >>> from sind_hf import SindConfig
        >>> SindConfig(vision_config={"model_type": "resnet"}).view_size
        224
    """

    model_type = "sind"
    keys_to_ignore_at_inference = ["quality_map", "global_embeds", "local_embeds", "hidden_states", "attentions"]
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig, model_type="clip_vision_model", init_kwargs={"patch_size": 16}
        )
    }

    vision_config: dict | PreTrainedConfig | None = None
    local_branch: LocalBranch = "patch"
    view_size: int | None = None
    loss_type: str = "scale_shift"
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0
    score_range: list[float | int] | tuple[float | int, ...] | None = None
    freeze_backbone: bool = False
    freeze_batch_norm: bool = False
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if __name__.startswith("sind_hf."):
            # With the package installed the task is registered; the entry would ask users to trust remote code.
            kwargs.pop("custom_pipelines", None)
        _check_backbone(self.vision_config)  # before it is made, which may already fetch what it names
        super().__post_init__(**kwargs)
        whole: Any = self.vision_config
        if isinstance(half := getattr(whole, "vision_config", None), PreTrainedConfig):
            if half.model_type == "clip_vision_model":
                half.projection_dim = whole.projection_dim
            self.vision_config = half
        if self.view_size is None:
            size = getattr(self.vision_config, "image_size", None)
            side = size[0] if isinstance(size, (list, tuple)) else size
            self.view_size = side if side and side % VIEW_STEP == 0 else 224
        self._check_values()

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the options of the base class, passed on
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Any:
        """Load the configuration of a checkpoint: a folder, a Hub repository ID, or `"bundled"`."""
        return super().from_pretrained(resolve_checkpoint(pretrained_model_name_or_path), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dict, naming the pipeline for those who load it without the package."""
        values = {**super().to_dict(), "custom_pipelines": CUSTOM_PIPELINES}
        # The path that the backbone was loaded from means nothing on another machine.
        values["vision_config"] = {
            key: value for key, value in values["vision_config"].items() if key != "_name_or_path"
        }
        return values

    def validate(self) -> None:
        """Check every value; called before saving as well."""
        super().validate()  # type: ignore[misc]  # @strict adds it to the base class at run time
        self._check_values()

    # Plain checks, not the field types of `@strict`: those read no postponed annotations, and raise no ValueError.
    def _check_values(self) -> None:
        if self.local_branch not in get_args(LocalBranch):
            choices = ", ".join(map(repr, get_args(LocalBranch)))
            raise ValueError(f"local_branch is {self.local_branch!r}: it must be one of {choices}.")
        if not isinstance(self.view_size, int) or self.view_size <= 0 or self.view_size % VIEW_STEP:
            raise ValueError(
                f"view_size is {self.view_size!r}: it must be a positive multiple of {VIEW_STEP}, as 224 is."
            )
        if self.view_size > MAX_VIEW_SIZE:
            raise ValueError(f"view_size is {self.view_size}: it must be at most {MAX_VIEW_SIZE}.")
        get_loss(self.loss_type)
        if not _are_numbers([self.score_scale, self.score_shift], 2) or self.score_scale <= 0:
            raise ValueError(
                f"score_scale is {self.score_scale!r} and score_shift {self.score_shift!r}: they must be numbers, and "
                "the scale positive, since higher is always better."
            )
        scores = self.score_range
        if scores is not None and not (_are_numbers(scores, 2) and scores[0] < scores[1]):
            raise ValueError(f"score_range is {scores!r}: it must be [lowest, highest] or None.")
        if not _are_numbers(self.image_mean, 3):
            raise ValueError(f"image_mean is {self.image_mean!r}: it must be three numbers, of red, green and blue.")
        if not _are_numbers(self.image_std, 3) or min(self.image_std) <= 0:
            raise ValueError(f"image_std is {self.image_std!r}: it must be three positive numbers.")


def _check_backbone(vision: Any) -> None:
    """Refuse a backbone that would be fetched from elsewhere, or that declares too many layers."""
    values = vision.to_dict() if isinstance(vision, PreTrainedConfig) else vision
    if not isinstance(values, dict):
        return
    for name, value in values.items():
        if isinstance(value, (dict, PreTrainedConfig)):
            _check_backbone(value)
        elif _names_another_model(name, value):
            raise ValueError(
                f"vision_config has {name}={str(value)[:80]!r}, which names a model outside this folder: a SIND model "
                "holds all its weights; start from other weights with SindModel.from_backbone."
            )
        elif isinstance(name, str) and name.endswith(LAYER_COUNTS):
            counts = value if isinstance(value, (list, tuple)) else [value]
            total = sum(count for count in counts if isinstance(count, (int, float)))
            if not total <= MAX_LAYERS:
                raise ValueError(
                    f"vision_config has {name}={str(value)[:80]}: at most {MAX_LAYERS:,} layers are allowed."
                )


def _names_another_model(name: str, value: Any) -> bool:
    if name in ("use_pretrained_backbone", "pretrained"):
        return bool(value)
    if name in ("backbone", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"):
        return isinstance(value, str)
    return name == "architecture" and isinstance(value, str) and any(sign in value for sign in ":/")


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == count
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )


SindConfig.register_for_auto_class()
