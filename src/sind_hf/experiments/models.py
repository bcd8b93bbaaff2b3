"""The model that a run starts from."""

from __future__ import annotations

from typing import Any

from transformers.trainer_utils import set_seed

from sind_hf.checkpoints import load_checkpoint
from sind_hf.configuration_sind import SindConfig
from sind_hf.experiments.config import ModelOptions
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel


def build_model(options: ModelOptions, loss_type: str, seed: int) -> tuple[SindModel, SindImageProcessor]:
    """Make the model that a run starts from, and its image processor.

    Args:
        options: The group `model` of a configuration.
        loss_type: Stored with the checkpoint.
        seed: Of the fresh weights.

    Raises:
        ValueError: When a checkpoint cannot be loaded or options contradict the backbone.
    """
    set_seed(seed)
    if options.checkpoint:
        fixed = {"local_branch": "patch", "view_size": None, "resize_backend": "torch"}
        if given := [name for name, default in fixed.items() if getattr(options, name) != default]:
            raise ValueError(f"model.checkpoint brings its own {' and '.join(given)}: leave that out.")
        model, processor = load_checkpoint(options.checkpoint, device="cpu")
        model.config.loss_type = loss_type
        if options.freeze_backbone:
            model.freeze_backbone()
        if options.freeze_batch_norm:
            model.freeze_batch_norm()
        return model, processor
    settings: dict[str, Any] = {
        "local_branch": options.local_branch,
        "freeze_backbone": options.freeze_backbone,
        "freeze_batch_norm": options.freeze_batch_norm,
        "loss_type": loss_type,
        **({"view_size": options.view_size} if options.view_size else {}),
    }
    if options.backbone:
        try:
            model = SindModel.from_backbone(options.backbone, **settings)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"model.backbone {options.backbone!r} cannot be loaded: {reason}") from None
    else:
        model = SindModel(SindConfig(vision_config=options.vision_config, **settings))
    side = int(model.config.view_size or 224)
    processor = SindImageProcessor(
        size={"height": side, "width": side}, resize_backend=options.resize_backend, views="center"
    )
    return model, processor
