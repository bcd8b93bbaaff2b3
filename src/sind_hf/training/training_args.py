"""Options of a SIND training run, with the published recipe as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy, SaveStrategy, SchedulerType

from sind_hf.losses import get_loss

WITHOUT_WARMUP = (SchedulerType.CONSTANT, SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
LABEL_NAMES = ["labels", "scene_ids"]


@dataclass
class SindTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the options of SIND. The defaults are the published recipe (paper, implementation).

    Raises:
        ValueError: If values contradict each other; the message names both.
    """

    scene_sampling: int = field(
        default=2,
        metadata={"help": "Scenes per batch and process (k). 0: random batches, with the loss over the batch."},
    )
    loss_type: str = field(
        default="scale_shift", metadata={"help": "Loss within each scene, a name of sind_hf.losses.LOSSES."}
    )
    ema_decay: float = field(
        default=0.99,
        metadata={"help": "Decay of the averaged weights, which evaluation and saving use. 0: no average."},
    )
    lr_ratio: float = field(
        default=1.0, metadata={"help": "The backbone's learning rate is learning_rate / lr_ratio."}
    )
    warmup_epochs: float | None = field(
        default=None,
        metadata={
            "help": "Epochs of linear warm-up from 0; warmup_steps takes precedence if it is given. "
            "Default: 5 with published_schedule, else 0."
        },
    )
    published_schedule: bool = field(
        default=True,
        metadata={
            "help": "Use Adam with L2 decay, warm-up, and a cosine over all steps that does not reach 0, unless "
            "`optim` or `lr_scheduler_type` is given. False: use the Trainer's defaults instead."
        },
    )
    optim: str | None = field(  # type: ignore[assignment]  # None: left open
        default=None, metadata={"help": "Optimizer, by the Trainer's names. Default: see published_schedule."}
    )
    lr_scheduler_type: str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Schedule, by the Trainer's names. Default: see published_schedule."}
    )
    eval_views: Literal["nine", "center"] = field(
        default="nine", metadata={"help": "Views used in evaluation: 'nine' or 'center'."}
    )
    calibrate: bool = field(
        default=True,
        metadata={
            "help": "Fit the scores to the scale of the training scores after training (config.score_scale, "
            "config.score_shift)."
        },
    )
    calibration_images: int = field(
        default=4096, metadata={"help": "Number of training images used for the calibration, evenly spread. 0: all."}
    )
    score_range: list[float] | None = field(
        default=None,
        metadata={"help": "Lowest and highest score of the training scale, which the checkpoint declares."},
    )
    image_column: str = field(default="image", metadata={"help": "Column of the images."})
    score_column: str = field(default="score", metadata={"help": "Column of the scores (higher is better)."})
    scene_column: str = field(default="scene", metadata={"help": "Column of the scenes."})

    # The published recipe, in the Trainer's own options.
    learning_rate: float = 1e-5
    weight_decay: float = 1e-5
    num_train_epochs: float = 35.0
    per_device_train_batch_size: int = 64
    max_grad_norm: float = 0.0
    # Required by SIND's batches.
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False  # a NaN or infinite loss ends the training, with the names of its images
    label_names: list[str] | None = field(default_factory=lambda: list(LABEL_NAMES))

    def __post_init__(self) -> None:
        self._choose_best_metric()
        chosen = self.optim, self.lr_scheduler_type
        # The base class needs values here; with the published schedule these two are set back to None.
        self.optim = self.optim or TrainingArguments.optim
        self.lr_scheduler_type = self.lr_scheduler_type or TrainingArguments.lr_scheduler_type
        super().__post_init__()
        if self.published_schedule:
            self.optim = self.optim if chosen[0] else None
            self.lr_scheduler_type = self.lr_scheduler_type if chosen[1] else None
        if self.warmup_epochs is None:
            recipe = self.published_schedule and self.lr_scheduler_type not in WITHOUT_WARMUP
            self.warmup_epochs = 5.0 if recipe else 0.0
        self._check_values()

    def _choose_best_metric(self) -> None:
        """Compare checkpoints by SRCC, unless another metric is chosen."""
        needed = (
            self.load_best_model_at_end
            or SaveStrategy(self.save_strategy) == SaveStrategy.BEST
            or self.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
        )
        if needed and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss" if self.prediction_loss_only else "srcc"
        if self.greater_is_better is None and (self.metric_for_best_model or "").endswith("rmse"):
            self.greater_is_better = False

    def _check_values(self) -> None:
        get_loss(self.loss_type)
        if self.label_names is None:
            self.label_names = list(LABEL_NAMES)
        if list(self.label_names) not in (LABEL_NAMES, LABEL_NAMES[:1]):
            raise ValueError(
                f"label_names is {self.label_names}: batches hold 'labels' and 'scene_ids' for every dataset; set its "
                "columns with score_column and scene_column."
            )
        if self.scene_sampling < 0:
            raise ValueError(f"scene_sampling is {self.scene_sampling}: give the number of scenes per batch, or 0.")
        if self.scene_sampling and self.per_device_train_batch_size % self.scene_sampling:
            raise ValueError(
                f"per_device_train_batch_size is {self.per_device_train_batch_size}, scene_sampling is "
                f"{self.scene_sampling}: the batch size must be a multiple of scene_sampling."
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}: it must be at least 0 and less than 1.")
        if self.lr_ratio <= 0:
            raise ValueError(f"lr_ratio is {self.lr_ratio}: it must be positive.")
        if self.warmup_epochs is not None and self.warmup_epochs < 0:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}: it must not be negative.")
        if self.calibration_images < 0 or self.calibration_images == 1:
            raise ValueError(
                f"calibration_images is {self.calibration_images}: a fit needs at least 2 images; 0 takes all."
            )
        if self.score_range is not None and (len(self.score_range) != 2 or self.score_range[0] >= self.score_range[1]):
            raise ValueError(f"score_range is {self.score_range}: give the lowest and the highest score.")
        if self.scene_sampling and self.auto_find_batch_size:
            raise ValueError(
                "auto_find_batch_size shrinks batches to sizes that are no multiple of scene_sampling: leave it off, "
                "and set a smaller per_device_train_batch_size with more gradient_accumulation_steps."
            )
        if self.push_to_hub and self.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"hub_strategy is {HubStrategy(self.hub_strategy).value!r}, which publishes optimizer "
                "states and pickles: choose 'every_save' or 'end'."
            )
        if self.eval_views not in ("nine", "center"):
            raise ValueError(f"eval_views is {self.eval_views!r}: it must be 'nine' or 'center'.")
        if getattr(self.accelerator_config, "split_batches", False):
            raise ValueError("accelerator_config.split_batches would divide scenes among processes: leave it off.")

    def ignored_options(self, *, own_optimizer: bool, own_schedule: bool, own_loss: bool) -> list[str]:
        """Return the options that were set but have no effect, each with the reason.

        The arguments tell whether the trainer was given an optimizer, a schedule or a loss function.
        """
        reasons = {
            "label_smoothing_factor": (self.label_smoothing_factor != 0, "scores are numbers, not classes"),
            "train_sampling_strategy": (
                self.train_sampling_strategy != "random",
                "scene_sampling decides how batches are drawn",
            ),
            "length_column_name": (self.length_column_name != "length", "images have no length"),
            "optim": (own_optimizer and self.optim is not None, "the trainer was given an optimizer"),
            "lr_ratio": (own_optimizer and self.lr_ratio != 1, "the trainer was given an optimizer"),
            "optim_args": (self.optim_args is not None and self.optim is None, "it needs optim"),
            "optim_target_modules": (self.optim_target_modules is not None and self.optim is None, "it needs optim"),
            "lr_scheduler_type": (
                own_schedule and self.lr_scheduler_type is not None,
                "the trainer was given a schedule",
            ),
            "lr_scheduler_kwargs": (
                bool(self.lr_scheduler_kwargs) and self.lr_scheduler_type is None,
                "it needs lr_scheduler_type",
            ),
            "warmup_epochs": (
                bool(self.warmup_epochs) and self.lr_scheduler_type in WITHOUT_WARMUP,
                f"the schedule {self.lr_scheduler_type!s} has no warm-up",
            ),
            "loss_type": (own_loss and self.loss_type != type(self).loss_type, "compute_loss_func replaces it"),
        }
        return [f"{name} ({reason})" for name, (is_set, reason) in reasons.items() if is_set]
