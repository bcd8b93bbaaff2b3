"""The configuration of a SIND model."""

from __future__ import annotations

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CUSTOM_PIPELINES = {
    "image-quality-assessment": {"impl": "pipeline_sind.SindPipeline", "pt": ["AutoModel"], "type": "image"}
}
GRID = 7  # fragments per side of the local view; also the side of the quality map


@strict
class SindConfig(PreTrainedConfig):
    """What a SIND model is: its backbone, which tokens its head reads, and the scale its scores are on.

    Args:
        vision_config: The backbone: a configuration (or its `dict`, with `model_type`) of any vision model of
            transformers. Default: CLIP ViT-B/16. All sizes are read from it.
        local_branch: What the head reads beside the global view's class token `g`: `"patch"` the mean patch token of
            the local view (the method, `--local_global`), `"class"` the class token of the local view (the ablation
            `--all_global`), `"none"` nothing (global view only).
        view_size: Side of both square views, in pixels; a multiple of 56, so that views divide into 7×7 fragments and
            the resized picture (8/7 of the side) has whole pixels. Default: the backbone's `image_size`, else 224.
        loss_type: The loss computed when `labels` are given: a name of `sind_hf.losses.LOSSES`.
        score_scale: Calibration: `quality = score_scale · raw + score_shift`. 1 for a fresh model.
        score_shift: Calibration, see `score_scale`. 0 for a fresh model.
        score_range: `[lowest, highest]` score of the training data's scale, or `None` when scores are on no declared
            scale. Higher is always better. Scores are never clipped to it.
        freeze_backbone: Train the head alone; the backbone then also keeps its BatchNorm statistics.
        image_mean: Per-channel mean of the normalisation, on the 0–1 scale (ImageNet's, as published; not CLIP's).
        image_std: Per-channel standard deviation of the normalisation.
        initializer_range: Standard deviation of the fresh head's weights.

    Raises:
        ValueError: When a value is outside the choices above.

    Example:
        >>> from sind_hf import SindConfig
        >>> SindConfig(vision_config={"model_type": "resnet"}).view_size
        224
    """

    model_type = "sind"
    keys_to_ignore_at_inference = ["quality_map", "global_embeds", "local_embeds"]
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig, model_type="clip_vision_model", init_kwargs={"patch_size": 16}
        )
    }

    vision_config: dict | PreTrainedConfig | None = None
    local_branch: Literal["patch", "class", "none"] = "patch"
    view_size: int | None = None
    loss_type: str = "scale_shift"
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0
    score_range: list[float | int] | tuple[float | int, ...] | None = None
    freeze_backbone: bool = False
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if __name__.startswith("sind_hf."):
            # With the package installed the task is registered; the entry would ask users to trust remote code.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        if self.view_size is None:
            size = getattr(self.vision_config, "image_size", None)
            self.view_size = int(size[0] if isinstance(size, (list, tuple)) else size or 224)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dict, naming the pipeline for those who load it without the package."""
        return {**super().to_dict(), "custom_pipelines": CUSTOM_PIPELINES}

    def validate_view_size(self) -> None:
        """Part of `@strict`: the two view geometries must have whole pixels."""
        if self.view_size is not None and (self.view_size <= 0 or self.view_size % (8 * GRID)):
            raise ValueError(
                f"view_size is {self.view_size}: it must be a positive multiple of {8 * GRID}, as 224 is."
            )

    def validate_score_range(self) -> None:
        """Part of `@strict`: a range is two numbers, the lower first."""
        if self.score_range is not None and (len(self.score_range) != 2 or self.score_range[0] >= self.score_range[1]):
            raise ValueError(f"score_range is {self.score_range}: it must be [lowest, highest] or None.")


SindConfig.register_for_auto_class()
