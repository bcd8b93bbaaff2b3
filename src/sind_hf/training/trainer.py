"""Training SIND with transformers' Trainer: scene batches, aligned losses, averaged weights, exact resumption."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import default_collate
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, TrainOutput

from sind_hf import metrics
from sind_hf.calibration import Calibration, fit_affine
from sind_hf.data.worker_deaths import worker_deaths_named
from sind_hf.files import atomic_folder
from sind_hf.image_processing_sind import ImageError
from sind_hf.losses import by_scene
from sind_hf.modeling_sind import SindModel, SindOutput
from sind_hf.training.arguments import SindTrainingArguments
from sind_hf.training.batches import BatchingTrainer, collate_single
from sind_hf.training.checkpoints import removed_unless_whole, require_undamaged, sync_after_state, whole_checkpoints
from sind_hf.training.data_wait import DataWait
from sind_hf.training.ema import ExponentialMovingAverage
from sind_hf.training.interruption import StopOnSignal, TrainingInterrupted

# Checkpoints hold the averaged weights as the model; those that training goes on from lie beside them.
TRAINING_WEIGHTS = "training_weights.safetensors"


class SindTrainer(BatchingTrainer):
    """Fine-tune a `SindModel` on an HF Dataset whose pictures belong to scenes.

    The dataset needs a column for the image, one for its score (higher better) and, for scene sampling, one for its
    scene; their names are options of `SindTrainingArguments`. Batches hold `scene_sampling` distinct scenes, and the
    loss is applied within each (method: scene sampling, losses). Evaluation and saving use the averaged weights; after
    `train()` the model holds them. Metrics are `srcc`, `plcc`, `krcc`, `rmse`, the logistic `plcc`s, and the means
    within scenes.

    Example:
        ```python
        trainer = SindTrainer(
            model=SindModel.from_backbone("openai/clip-vit-base-patch16"),
            args=SindTrainingArguments("runs/koniq", scene_sampling=2, loss_type="scale_shift"),
            train_dataset=train,
            eval_dataset={"koniq10k": test},
            processing_class=SindImageProcessor(),
        )
        trainer.train()
        trainer.save_model()
        ```

    Raises:
        ValueError: When the dataset lacks a column, holds a score that is no number, or has too few scenes.
    """

    loss_is_scaled_for_ga = False  # a mean per micro-batch: the Trainer divides by their number

    def __init__(self, model: SindModel, args: SindTrainingArguments, **kwargs: Any) -> None:
        if kwargs.get("processing_class") is None:
            raise ValueError("SindTrainer needs processing_class=SindImageProcessor(...): it makes the views.")
        size, side = kwargs["processing_class"].size, model.config.view_size
        if (size["height"], size["width"]) != (side, side):
            raise ValueError(
                f"The model was made for views of {side} pixels, the image processor makes {size['height']}x"
                f"{size['width']}: pass SindImageProcessor(size={{'height': {side}, 'width': {side}}})."
            )
        kwargs.setdefault("data_collator", collate_single if args.device.type == "mps" else default_collate)
        kwargs.setdefault("compute_metrics", quality_metrics)
        self.ema: ExponentialMovingAverage | None = None
        super().__init__(model=model, args=args, **kwargs)
        if args.ema_decay and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError("The averaged weights need the whole model on each process: set ema_decay=0 under FSDP.")
        self.add_callback(_Bookkeeping(self))
        self.data_wait = DataWait()
        self._signals = StopOnSignal()
        self.add_callback(self._signals)

    # --- optimisation --------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Return Adam with L2 weight decay, the backbone's learning rate divided by `lr_ratio` (published recipe)."""
        if self.optimizer is None and self.args.published_schedule:
            head: list[nn.Parameter] = []
            backbone: list[nn.Parameter] = []
            for name, parameter in (model or self.model).named_parameters():
                if parameter.requires_grad:
                    (head if "quality_head." in name else backbone).append(parameter)
            groups = [
                {"params": parameters, "lr": rate}
                for parameters, rate in (
                    (backbone, self.args.learning_rate / self.args.lr_ratio),
                    (head, self.args.learning_rate),
                )
                if parameters
            ]
            self.optimizer = torch.optim.Adam(
                groups,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                weight_decay=self.args.weight_decay,
                fused=self.args.device.type == "cuda" or None,
            )
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Return the published schedule: linear warm-up per step from 0, then a cosine over *all* steps."""
        if self.lr_scheduler is None and self.args.published_schedule:
            warmup = self.args.get_warmup_steps(num_training_steps)
            if not warmup and self.args.warmup_epochs:
                if not self._updates_per_epoch:  # outside of train()
                    self.get_train_dataloader()
                    self._release_train_loader()
                warmup = round(self.args.warmup_epochs * self._updates_per_epoch)
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer,  # type: ignore[arg-type]
                lambda step: learning_rate_factor(step, warmup, num_training_steps),
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | int | None]:
        """Fetch the batches of one update, and count the time that takes."""
        with self.data_wait.fetching():
            return super().get_batch_samples(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; beside a training loss stands `data_wait`, the share of the time that went into waiting for data."""
        if "loss" in logs:
            logs["data_wait"] = round(self.data_wait.share(), 4)
        super().log(logs, start_time)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, SindOutput]:
        """Score the batch and apply the loss within each of its scenes (over the batch without scene sampling)."""
        outputs = model(inputs["pixel_values"], inputs["local_pixel_values"])
        scene_ids = inputs["scene_ids"] if self.args.scene_sampling else None
        loss = by_scene(outputs["quality"], inputs["labels"], scene_ids, self.args.loss_type)
        self._require_number(loss, outputs["quality"], inputs)
        return (loss, outputs) if return_outputs else loss

    def _require_number(self, loss: Tensor, quality: Tensor, inputs: dict[str, Tensor]) -> None:
        """Stop where the loss of a training batch is no number; the message names pictures and says what to do."""
        if "row" not in inputs or torch.isfinite(loss):
            return
        rows = inputs["row"]
        bad = ~torch.isfinite(quality)
        names = [self._train_views.image_name(row) for row in rows[bad if bad.any() else ~bad].tolist()]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        what = "the scores of these pictures are no numbers" if bad.any() else "in the batch of these pictures"
        before = whole_checkpoints(str(self.args.output_dir))
        kept = f"; the last checkpoint is {before[-1]}" if before else ""
        raise ValueError(
            f"The loss is {loss.item()} after step {self.state.global_step}, {what}: {shown}. Lower learning_rate "
            f"({self.args.learning_rate:g}), or train in float32{kept}."
        )

    # --- the averaged weights ------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train; afterwards the model holds the averaged weights and, with `calibrate`, calibrated scores.

        Args:
            resume_from_checkpoint: A checkpoint of this training, or True for the last whole one in its folder.
            *args: Of `Trainer.train`.
            **kwargs: Of `Trainer.train`.

        Raises:
            ValueError: When the checkpoint is damaged, the loss is no number, a picture cannot be read, a loader
                process dies or a checkpoint cannot be saved; the message names pictures, files and folder.
            TrainingInterrupted: When a signal (Ctrl-C, SIGTERM) asked for the end; a checkpoint was saved first.
        """
        self.ema = None
        self.data_wait = DataWait()
        self.logged_in_training = self.logged_on_other_scale = 0
        if resume_from_checkpoint is True:  # the Trainer would take the newest, whether or not it is whole
            whole = whole_checkpoints(str(self.args.output_dir))
            if not whole:
                raise ValueError(f"{self.args.output_dir}: there is no checkpoint to go on from.")
            resume_from_checkpoint = str(whole[-1])
        if resume_from_checkpoint:
            require_undamaged(resume_from_checkpoint)
        try:
            with _one_line_errors(self.args.output_dir), self._signals.listening():
                output = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self._release_train_loader()
        if (number := self._signals.received) is not None:
            step, name = self.state.global_step, signal.Signals(number).name
            raise TrainingInterrupted(
                f"interrupted by {name} after step {step}: all of it is in {self.args.output_dir}/checkpoint-{step}, "
                "resume to go on.",
                number,
            )
        if self.ema is not None:
            self.ema.copy_to(self.model)
            self.ema = None
        if self.args.calibrate:
            self.calibrate()
        else:  # whatever scale the model came with, its scores have left it
            self.model.config.score_range = None
        self.logged_in_training = len(self.state.log_history)
        return output

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate with the averaged weights, the same ones on all processes."""
        with self._averaged(), _one_line_errors(self.args.output_dir):
            # BatchNorm's statistics are each process's own; those of the main process are the ones that get saved.
            broadcast(list(self.model.buffers()))
            return super().evaluation_loop(*args, **kwargs)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with self.ema.averaged(self.model) if self.ema is not None else nullcontext():
            yield

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.args.ema_decay and self.ema is None:
            self.ema = ExponentialMovingAverage(self.model, self.args.ema_decay)
        return prepared

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # the Trainer looks only after a step, and would take one
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        with self._averaged():
            if not self.args.should_save:
                super()._save(output_dir, state_dict)
                return
            with atomic_folder(output_dir or str(self.args.output_dir)) as folder:
                super()._save(str(folder), state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output = Path(str(self._get_output_dir(trial=trial)))
        before = whole_checkpoints(output)
        checkpoint = output / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with (
            removed_unless_whole(checkpoint, before[-1] if before else None),
            sync_after_state(self.state, checkpoint),
        ):
            super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.ema is not None and self.args.should_save:
            weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
            save_file(weights, os.path.join(output_dir, TRAINING_WEIGHTS), metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = os.path.join(resume_from_checkpoint, TRAINING_WEIGHTS)
        if os.path.exists(path):
            if self.args.ema_decay:
                self.ema = ExponentialMovingAverage(self.model, self.args.ema_decay)
            self.model.load_state_dict(load_file(path))
        # A model that was calibrated after an earlier stop would go on training on another scale.
        saved = type(self.model.config).from_pretrained(resume_from_checkpoint)
        for name in ("score_scale", "score_shift"):
            setattr(self.model.config, name, getattr(saved, name))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.ema is not None:
            self.ema.restart(self.model)

    # --- calibration ---------------------------------------------------------------------------------------------

    def calibrate(self, dataset: Dataset | None = None) -> Calibration:
        """Fit `score_scale` and `score_shift`, so that scores read on the scale of the training scores.

        An affine least-squares fit of the raw scores (averaged weights, center views) to the opinion scores. Where
        the slope is not positive the calibration stays 1 and 0, with a warning, and no range is declared.

        Args:
            dataset: Pictures with scores; default: the training set, thinned to `args.calibration_images`.

        Returns:
            The calibration, which `model.config` now holds, with `args.score_range`.
        """
        pictures: Any = self.train_dataset if dataset is None else dataset
        if pictures is None:
            raise ValueError("Calibration needs pictures with scores: pass a dataset.")
        limit = self.args.calibration_images
        if limit and len(pictures) > limit:
            pictures = pictures.select(np.linspace(0, len(pictures) - 1, limit).round().astype(int))
        # Metrics of training pictures would be computed for nothing, and warn of scenes that the thinning cut short.
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        try:
            output = self.evaluation_loop(self._evaluation_loader(pictures, "center"), "Calibration", False)
        finally:
            self.compute_metrics = compute_metrics
        # Ends the progress bar, which a later evaluation would otherwise go on with.
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, output.metrics)
        config = self.model.config
        raw = (np.asarray(output.predictions, np.float64) - config.score_shift) / config.score_scale
        labels, _ = output.label_ids  # type: ignore[misc]
        calibration = fit_affine(raw, labels)
        config.score_scale, config.score_shift = calibration.scale, calibration.shift
        config.score_range = self.args.score_range if calibration != Calibration() else None
        self.logged_on_other_scale = len(self.state.log_history)
        return calibration


class _Bookkeeping(TrainerCallback):
    """What has to happen at fixed points of the Trainer's loop."""

    def __init__(self, trainer: SindTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer itself does not reach the sampler when it resumes inside an epoch on several processes.
        if self.trainer.train_sampler is not None:
            self.trainer.train_sampler.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.ema is not None and not self.trainer.accelerator.optimizer_step_was_skipped:
            self.trainer.ema.update(self.trainer.model, state.global_step + 1)


@contextmanager
def _one_line_errors(output_dir: str | None) -> Iterator[None]:
    """A picture's error comes out of a DataLoader's worker inside a traceback, whose last line it is: take it out."""
    try:
        with worker_deaths_named(f"resume from the last checkpoint in {output_dir}, where there is one"):
            yield
    except ImageError as error:
        *traceback, last = str(error).rstrip().splitlines()
        if not traceback:
            raise
        raise ImageError(last.removeprefix(f"{ImageError.__module__}.{ImageError.__qualname__}: ")) from error


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Share of the full learning rate after `step` optimizer steps (paper: warm-up and cosine).

    Linear from 0 to 1 over `warmup` steps, then `0.5·(1 + cos(π·(step - warmup) / total))`: as published, the cosine
    runs over all steps, so that it does not reach 0 at the end.
    """
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / total))


def quality_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return the metrics of one evaluation, by lower-case name, the means within scenes included."""
    labels, scenes = prediction.label_ids  # type: ignore[misc]
    report = metrics.report(np.asarray(prediction.predictions, np.float64), labels, scene=scenes.tolist())
    flat = {name: value for name, value in report.items() if isinstance(value, float)}
    if len(report["by_scene"]) > 1:
        flat |= {f"within_scene_{name}": report["within_scene"][name] for name in ("srcc", "plcc")}
    return flat
