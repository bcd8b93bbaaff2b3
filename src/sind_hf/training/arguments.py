"""Options of a SIND training run, with the published recipe as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from sind_hf.losses import get_loss


@dataclass
class SindTrainingArguments(TrainingArguments):
    """`TrainingArguments` plus what SIND adds; defaults are the published recipe (paper, implementation details).

    Raises:
        ValueError: On values that contradict each other; the message names both.
    """

    scene_sampling: int = field(
        default=2, metadata={"help": "Scenes per batch and process (k). 0: plain random batches, loss over the batch."}
    )
    loss_type: str = field(
        default="scale_shift", metadata={"help": "A name of sind_hf.losses.LOSSES; applied within each scene."}
    )
    ema_decay: float = field(
        default=0.99, metadata={"help": "Decay of the averaged weights that evaluation and saving use. 0: no average."}
    )
    lr_ratio: float = field(
        default=1.0, metadata={"help": "The backbone's learning rate is learning_rate / lr_ratio."}
    )
    warmup_epochs: float = field(
        default=5.0, metadata={"help": "Epochs of linear warm-up from 0; warmup_steps, when given, takes precedence."}
    )
    published_schedule: bool = field(
        default=True,
        metadata={
            "help": "Adam with L2 decay, warm-up, and a cosine over all steps that does not reach 0. "
            "False: the Trainer's own `optim` and `lr_scheduler_type`."
        },
    )
    eval_views: Literal["nine", "center"] = field(
        default="nine", metadata={"help": "Views of evaluation: 'nine' or 'center'."}
    )
    calibrate: bool = field(
        default=True,
        metadata={
            "help": "After training, fit the scores to the scale of the training scores (config.score_scale …)."
        },
    )
    calibration_images: int = field(
        default=4096, metadata={"help": "Training pictures that the calibration looks at, evenly spread. 0: all."}
    )
    score_range: list[float] | None = field(
        default=None, metadata={"help": "Lowest and highest score of the training scale, declared by the checkpoint."}
    )
    image_column: str = field(default="image", metadata={"help": "Dataset column of the pictures."})
    score_column: str = field(default="score", metadata={"help": "Dataset column of the scores, higher better."})
    scene_column: str = field(default="scene", metadata={"help": "Dataset column of the scenes."})

    # The published recipe, in the Trainer's own options.
    learning_rate: float = 1e-5
    weight_decay: float = 1e-5
    num_train_epochs: float = 35.0
    per_device_train_batch_size: int = 64
    max_grad_norm: float = 0.0
    # What our data path needs.
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False  # a loss that is no number ends the training, with the names of its pictures
    label_names: list[str] | None = field(default_factory=lambda: ["labels", "scene_ids"])

    def __post_init__(self) -> None:
        super().__post_init__()
        get_loss(self.loss_type)
        if self.scene_sampling < 0:
            raise ValueError(f"scene_sampling is {self.scene_sampling}: give the scenes per batch, or 0 for none.")
        if self.scene_sampling and self.per_device_train_batch_size % self.scene_sampling:
            raise ValueError(
                f"per_device_train_batch_size is {self.per_device_train_batch_size}, scene_sampling is "
                f"{self.scene_sampling}: the batch must divide into that many scenes."
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}: it must be at least 0 and less than 1.")
        if self.lr_ratio <= 0:
            raise ValueError(f"lr_ratio is {self.lr_ratio}: it must be positive.")
        if self.lr_ratio != 1 and not self.published_schedule:
            raise ValueError(f"lr_ratio is {self.lr_ratio}, which only published_schedule=True knows: leave it at 1.")
        if self.warmup_epochs < 0:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}: it must not be negative.")
        if self.calibration_images < 0 or self.calibration_images == 1:
            raise ValueError(
                f"calibration_images is {self.calibration_images}: a fit needs at least 2 pictures; 0 takes all."
            )
        if self.score_range is not None and (len(self.score_range) != 2 or self.score_range[0] >= self.score_range[1]):
            raise ValueError(f"score_range is {self.score_range}: it must be the lowest and the highest score.")
        if self.scene_sampling and self.auto_find_batch_size:
            raise ValueError(
                "auto_find_batch_size shrinks batches to sizes that scenes do not divide: leave it off, and give a "
                "smaller per_device_train_batch_size with more gradient_accumulation_steps."
            )
        if self.push_to_hub and self.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"hub_strategy is {HubStrategy(self.hub_strategy).value!r}, which publishes optimizer "
                "states and pickles: choose 'every_save' or 'end'."
            )
        if self.eval_views not in ("nine", "center"):
            raise ValueError(f"eval_views is {self.eval_views!r}: it must be 'nine' or 'center'.")
        if getattr(self.accelerator_config, "split_batches", False):
            raise ValueError("accelerator_config.split_batches would cut scenes apart: leave it off.")
