"""Training SIND with transformers' Trainer: scene batches, aligned losses, averaged weights, exact resumption."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast
from datasets import Dataset, IterableDataset
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import IterableDataset as TorchIterableDataset
from transformers import (
    EvalPrediction,
    SchedulerType,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, BestRun, EvalLoopOutput, HPSearchBackend, TrainOutput

from sind_hf import metrics
from sind_hf.calibration import Calibration, fit_affine
from sind_hf.distributed import worker_deaths_named
from sind_hf.files import atomic_folder
from sind_hf.image_processing_sind import ImageError, SindImageProcessor
from sind_hf.losses import UNALIGNED, by_scene
from sind_hf.modeling_sind import SindModel, SindOutput
from sind_hf.training.batches import BatchingTrainer, collate_single
from sind_hf.training.callbacks import DataWait, StopOnSignal, TrainingInterrupted
from sind_hf.training.checkpoint_files import (
    removed_unless_whole,
    require_undamaged,
    sync_after_state,
    whole_checkpoints,
)
from sind_hf.training.ema import ExponentialMovingAverage
from sind_hf.training.training_args import SindTrainingArguments

logger = logging.getLogger(__name__)

_PAIRWISE = ("rank", "fidelity", "kld")
_LARGEST_BLOCK = 2048  # images that a pairwise loss compares at once: about 100 MB

# Checkpoints hold the averaged weights as the model; those that training goes on from lie beside them.
TRAINING_WEIGHTS = "training_weights.safetensors"


class SindTrainer(BatchingTrainer):
    """Fine-tune a `SindModel` on an HF Dataset whose pictures belong to scenes.

    The dataset needs a column for the image, one for its score (higher better) and, for scene sampling, one for its
    scene; their names are options of `SindTrainingArguments`. Batches hold `scene_sampling` distinct scenes, and the
    loss is applied within each (method: scene sampling, losses). Evaluation and saving use the averaged weights; after
    `train()` the model holds them. Metrics are `srcc`, `plcc`, `krcc`, `rmse`, the logistic `plcc`s, and the means
    within scenes. The best checkpoint is the one with the highest `srcc`, unless `metric_for_best_model` names another
    metric.

    `eval_loss` is the training loss over the whole evaluation set, scene by scene; with a `compute_loss_func`, it is
    the mean over the batches. `rmse` is in the unit of the opinion scores; on scores that are not calibrated, as those
    during a training, it is taken after the best rising line from scores to opinion scores (the losses `l1`, `l2` and
    `huber` need no calibration for it).

    The arguments are those of `Trainer`, in the same order.

    Args:
        model: The model to train; or give `model_init`.
        args: Options; default: the published recipe, with the output folder `tmp_trainer`.
        data_collator: Joins samples to batches.
        train_dataset: Images with scores and scenes; one that is streamed cannot be trained on.
        eval_dataset: Images with scores, or several such datasets by name.
        processing_class: Makes the views; required.
        model_init: Makes the model anew for every training, as `hyperparameter_search` needs.
        compute_loss_func: Replaces `args.loss_type`: called with the model's output, the labels (float32) and
            `num_items_in_batch`.
        compute_metrics: Replaces the metrics. `label_ids` are the labels and scene IDs, or the labels alone with
            `args.label_names=["labels"]`.
        callbacks: Further callbacks.
        optimizers: Optimizer and schedule, each or None.
        optimizer_cls_and_kwargs: Class and arguments of the optimizer.
        preprocess_logits_for_metrics: Changes the scores that the metrics see.

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
        ValueError: When the dataset lacks a column, is streamed, holds a score that is not a number, or has too few
            scenes; when `args` are not `SindTrainingArguments`; when the best metric names no evaluation set.
    """

    def __init__(
        self,
        model: SindModel | None = None,
        args: SindTrainingArguments | None = None,
        data_collator: Callable[..., dict[str, Any]] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: SindImageProcessor | None = None,
        model_init: Callable[..., SindModel] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Optimizer | None, LRScheduler | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
    ) -> None:
        if args is None:
            args = SindTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, SindTrainingArguments):
            raise ValueError(
                f"args is of the class {type(args).__name__}: pass SindTrainingArguments, which take the same options "
                "and those of SIND."
            )
        if processing_class is None:
            raise ValueError("SindTrainer needs processing_class=SindImageProcessor(...): it makes the views.")
        _require_rows("train_dataset", train_dataset)
        for name, dataset in eval_dataset.items() if isinstance(eval_dataset, Mapping) else [("", eval_dataset)]:
            _require_rows(f"eval_dataset {name}".strip(), dataset)
        if model is not None:
            _require_view_size(model, processing_class)
        self.ema: ExponentialMovingAverage | None = None
        self._predicted: list[tuple[Tensor, ...]] = []
        self._group_rates: list[float] = []
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or (collate_single if args.device.type == "mps" else default_collate),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics or self._quality_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        _require_view_size(self.model, processing_class)  # one of model_init
        if args.ema_decay and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError("The averaged weights need the whole model on each process: set ema_decay=0 under FSDP.")
        # Our losses are a mean per micro-batch, which the Trainer divides by their number; one that is passed in is
        # given `num_items_in_batch` and divides by itself, as with the Trainer.
        self.loss_is_scaled_for_ga = False if compute_loss_func is None else None
        self._name_best_metric()
        ignored = args.ignored_options(
            own_optimizer=optimizers[0] is not None,
            own_schedule=optimizers[1] is not None,
            own_loss=compute_loss_func is not None,
        )
        if ignored:
            warnings.warn(f"These training options have no effect: {'; '.join(ignored)}.", stacklevel=2)
        self.add_callback(_Bookkeeping(self))
        self.data_wait = DataWait()
        self._signals = StopOnSignal()
        self.add_callback(self._signals)

    def _name_best_metric(self) -> None:
        """Complete `metric_for_best_model` by the name of the evaluation set, where the sets have names."""
        metric = self.args.metric_for_best_model
        if metric is None or not isinstance(self.eval_dataset, Mapping) or not self.eval_dataset:
            return
        metric = metric.removeprefix("eval_")
        full = [f"{name}_{metric}" for name in self.eval_dataset]
        if any(metric.startswith(f"{name}_") for name in self.eval_dataset):
            return
        if len(full) > 1:
            raise ValueError(
                f"metric_for_best_model is {metric!r}, but there are {len(full)} evaluation sets: choose one, as in "
                f"{' or '.join(map(repr, full))}."
            )
        self.args.metric_for_best_model = full[0]

    # --- optimisation --------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Return the optimizer asked for, else Adam with L2 weight decay (published recipe).

        The backbone's learning rate is that of the head divided by `lr_ratio`.
        """
        if self.optimizer is None:
            trained = model or self.model
            args = self.args
            published = args.published_schedule and args.optim is None and self.optimizer_cls_and_kwargs is None
            if published:
                self.optimizer = torch.optim.Adam(
                    [parameter for parameter in trained.parameters() if parameter.requires_grad],
                    lr=args.learning_rate,
                    betas=(args.adam_beta1, args.adam_beta2),
                    eps=args.adam_epsilon,
                    weight_decay=args.weight_decay,
                    fused=args.device.type == "cuda" or None,
                )
            else:
                super().create_optimizer(model)
            if published or args.lr_ratio != 1:
                self._separate_backbone(self.optimizer, trained)  # type: ignore[arg-type]
        return super().create_optimizer(model)

    def _separate_backbone(self, optimizer: Optimizer, model: nn.Module) -> None:
        """Divide the optimizer's groups into backbone and head, each with its learning rate."""
        head = _head_parameters(model)
        groups = []
        for group in optimizer.param_groups:
            for of_head, ratio in ((False, self.args.lr_ratio), (True, 1.0)):
                members = [parameter for parameter in group["params"] if (id(parameter) in head) == of_head]
                if members:
                    groups.append(group | {"params": members, "lr": group["lr"] / ratio})
        optimizer.param_groups[:] = groups

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Return the schedule asked for, else the published one: linear warm-up, then a cosine over *all* steps."""
        if self.lr_scheduler is None:
            args, optimizer = self.args, optimizer or self.optimizer
            warmup = self._warmup_steps(num_training_steps)
            if args.lr_scheduler_type is None:
                self.lr_scheduler = LambdaLR(
                    optimizer,  # type: ignore[arg-type]
                    lambda step: learning_rate_factor(step, warmup, num_training_steps),
                )
            else:
                options: dict[str, Any] = dict(args.lr_scheduler_kwargs or {})  # type: ignore[arg-type]  # parsed
                if args.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY):
                    options = {"mode": "max" if args.greater_is_better else "min"} | options
                self.lr_scheduler = get_scheduler(
                    args.lr_scheduler_type,
                    optimizer=optimizer,  # type: ignore[arg-type]
                    num_warmup_steps=warmup,
                    num_training_steps=num_training_steps,
                    scheduler_specific_kwargs=options,
                )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _warmup_steps(self, num_training_steps: int) -> int:
        warmup = self.args.get_warmup_steps(num_training_steps)
        if not warmup and self.args.warmup_epochs:
            if not self._updates_per_epoch:  # outside of train()
                self.get_train_dataloader()
                self._release_train_loader()
            warmup = round(self.args.warmup_epochs * self._updates_per_epoch)
        return warmup

    def _get_learning_rate(self) -> float:
        # Noted before the schedule goes on, as the Trainer does with the rate of the first group.
        self._group_rates = [float(group["lr"]) for group in self.optimizer.param_groups]  # type: ignore[union-attr]
        return super()._get_learning_rate()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | int | None]:
        """Fetch the batches of one update, and count the time that takes."""
        with self.data_wait.fetching():
            return super().get_batch_samples(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with `data_wait`, the share of the time spent waiting for data, and both learning rates if they differ.

        `learning_rate` is then that of the head; `learning_rate_backbone` and `learning_rate_head` name both.
        """
        if "loss" in logs:
            logs["data_wait"] = round(self.data_wait.share(), 4)
        if "learning_rate" in logs and len(set(self._group_rates)) > 1:
            head = _head_parameters(self.model)
            for group, rate in zip(self.optimizer.param_groups, self._group_rates, strict=True):  # type: ignore[union-attr]
                part = "head" if any(id(parameter) in head for parameter in group["params"]) else "backbone"
                logs[f"learning_rate_{part}"] = rate
            logs["learning_rate"] = logs.get("learning_rate_head", logs["learning_rate"])
        super().log(logs, start_time)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, SindOutput]:
        """Score the batch and apply the loss within each of its scenes (over the batch without scene sampling)."""
        if self.compute_loss_func is not None:
            batch = {name: inputs[name] for name in ("pixel_values", "local_pixel_values")}
            batch["labels"] = inputs["labels"].float()
            loss, outputs = super().compute_loss(model, batch, True, num_items_in_batch)
            self._require_number(loss, outputs["quality"], inputs)
            return (loss, outputs) if return_outputs else loss
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

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train; afterwards the model holds the averaged weights and, with `calibrate`, calibrated scores.

        Where something fails after the last step, such as the calibration, the model is saved to `args.output_dir`
        before the error is raised.

        Args:
            resume_from_checkpoint: A checkpoint of this training, or True for the last whole one in its folder.
            trial: Trial of a hyperparameter search.
            ignore_keys_for_eval: Fields of the model's output that evaluations leave out.

        Raises:
            ValueError: When the checkpoint is damaged, the loss is not finite, an image cannot be read, a loader
                process dies or a checkpoint cannot be saved; the message names images, files and folder.
            TrainingInterrupted: When a signal (Ctrl-C, SIGTERM) asked for the end; a checkpoint was saved first.
        """
        self.ema = None
        self.data_wait = DataWait()
        self.logged_in_training = self.logged_on_other_scale = 0
        self.control.should_training_stop = False
        if resume_from_checkpoint is True:  # the Trainer would take the newest, whether or not it is whole
            whole = whole_checkpoints(str(self.args.output_dir))
            if not whole:
                raise ValueError(f"{self.args.output_dir}: there is no checkpoint to go on from.")
            resume_from_checkpoint = str(whole[-1])
        if resume_from_checkpoint:
            require_undamaged(resume_from_checkpoint)
        with self._saved_when_trained():
            try:
                with _one_line_errors(self.args.output_dir), self._signals.listening():
                    output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
            finally:
                self._release_train_loader()
            if (number := self._signals.received) is not None:
                step, name = self.state.global_step, signal.Signals(number).name
                raise TrainingInterrupted(
                    f"interrupted by {name} after step {step}: all of it is in "
                    f"{self.args.output_dir}/checkpoint-{step}, resume to go on.",
                    number,
                )
            if self.ema is not None:
                self.ema.copy_to(self.model)
                self.ema = None
            if self.args.calibrate:
                self.calibrate()
        self.logged_in_training = len(self.state.log_history)
        return output

    @contextmanager
    def _saved_when_trained(self) -> Iterator[None]:
        """Save the model when something fails after the last step, and let the error pass."""
        try:
            yield
        except BaseException:
            stopped = self._signals.received is not None or self.hp_search_backend is not None
            if self.control.should_training_stop and not stopped:
                folder = self.args.output_dir
                try:
                    self.save_model(_internal_call=True)
                except (OSError, ValueError) as error:
                    logger.warning("the training is finished, but its model cannot be saved: %s", error)
                else:
                    logger.warning("the training is finished; its model is saved in %s, without calibration", folder)
            raise

    def hyperparameter_search(
        self,
        hp_space: Callable[..., dict[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        backend: str | HPSearchBackend | None = None,
        hp_name: Callable[..., str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Search for hyperparameters, see `Trainer.hyperparameter_search`; the trainer needs a `model_init`.

        Args:
            hp_space: Returns the options of a trial.
            compute_objective: Returns what is compared; default: the SRCC, averaged over the evaluation sets.
            n_trials: Number of trials.
            direction: "minimize" or "maximize"; default: "maximize" for the SRCC, else "minimize".
            backend: Name of the search library.
            hp_name: Returns the name of a trial.
            **kwargs: Passed to the search library.

        Raises:
            ValueError: When the SRCC is to be minimized.
        """
        if compute_objective is None:
            if direction not in (None, "maximize"):
                raise ValueError(
                    f"direction is {direction!r}, but the default objective is the SRCC, which grows with quality: "
                    "leave direction out, or pass compute_objective."
                )
            compute_objective, direction = mean_srcc, "maximize"
        return super().hyperparameter_search(
            hp_space, compute_objective, n_trials, direction or "minimize", backend, hp_name, **kwargs
        )

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate with the averaged weights, the same ones on all processes; the loss is that of the whole set."""
        self._predicted = []
        with self._averaged(), _one_line_errors(self.args.output_dir):
            # BatchNorm's statistics are each process's own; those of the main process are the ones that get saved.
            broadcast(list(self.model.buffers()))
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        if self._predicted and self.compute_loss_func is None and output.metrics is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = self.evaluation_loss(*self._collected())
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Score a batch, and keep its scores, labels and scenes for what is computed over the whole set."""
        loss, scores, labels = super().prediction_step(model, inputs, False, ignore_keys)
        if "labels" in inputs:
            quality: Any = scores[0] if isinstance(scores, tuple) else scores
            own = (quality, inputs["labels"], inputs["scene_ids"])
            gathered = self.accelerator.gather_for_metrics(tuple(value.to(quality.device) for value in own))
            self._predicted.append(tuple(value.cpu() for value in gathered))
        return (loss, None, None) if prediction_loss_only else (loss, scores, labels)

    def _collected(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return the scores, labels and scenes of the last evaluation."""
        quality, labels, scenes = (torch.cat(parts).numpy() for parts in zip(*self._predicted, strict=True))
        return quality.astype(np.float64), labels.astype(np.float64), scenes

    def evaluation_loss(
        self, quality: NDArray[np.float64], labels: NDArray[np.float64], scenes: NDArray[np.int64]
    ) -> float:
        """Return `eval_loss`: the training loss over a whole set of images, scene by scene.

        Without scene sampling the set is one scene, as a batch is in training. Scenes with one image tell an aligned
        loss nothing and are left out. Pairwise losses are averaged over blocks of at most 2,048 images of a scene.

        Args:
            quality: Scores, (n,).
            labels: Opinion scores, (n,).
            scenes: Scene of each image, (n,).

        Returns:
            The loss; NaN where an aligned loss has no scene with two images.
        """
        name = self.args.loss_type
        groups = [np.flatnonzero(scenes == scene) for scene in np.unique(scenes)]
        if not self.args.scene_sampling:
            groups = [np.arange(len(quality))]
        losses = []
        for members in groups:
            if len(members) == 1 and name not in UNALIGNED:
                continue
            blocks = -(-len(members) // _LARGEST_BLOCK) if any(part in name for part in _PAIRWISE) else 1
            found = [
                by_scene(torch.from_numpy(quality[part]), torch.from_numpy(labels[part]), None, name).item()
                for part in (members[start::blocks] for start in range(blocks))
            ]
            losses.append(np.mean(found))
        return float(np.mean(losses)) if losses else float("nan")

    @property
    def _on_scale(self) -> bool:
        """Whether scores are on the scale of the opinion scores, so that a difference between them means something."""
        config = self.model.config
        calibrated = (config.score_scale, config.score_shift) != (1, 0)
        return calibrated or (self.compute_loss_func is None and self.args.loss_type in UNALIGNED)

    def _quality_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        return quality_metrics(prediction, on_scale=self._on_scale)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with self.ema.averaged(self.model) if self.ema is not None else nullcontext():
            yield

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        self._leave_old_scale()
        if self.args.ema_decay and self.ema is None:
            self.ema = ExponentialMovingAverage(self.model, self.args.ema_decay)
        return prepared

    def _leave_old_scale(self) -> None:
        """Let the config, which every checkpoint holds, say what is trained, and nothing of an earlier calibration."""
        config = self.model.config
        config.score_range = None
        if self.compute_loss_func is None:
            config.loss_type = self.args.loss_type
            if self.args.loss_type not in UNALIGNED:
                config.score_scale, config.score_shift = 1.0, 0.0

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
            dataset: Images with scores; default: the training set, thinned to `args.calibration_images`.

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
        # `fp16_full_eval` and `bf16_full_eval` convert the model for good, except while training.
        in_train, self.is_in_train = self.is_in_train, True
        try:
            output = self.evaluation_loop(self._evaluation_loader(pictures, "center"), "Calibration", False)
        finally:
            self.compute_metrics, self.is_in_train = compute_metrics, in_train
        # Ends the progress bar, which a later evaluation would otherwise go on with.
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, output.metrics)
        config = self.model.config
        quality, labels, _ = self._collected()
        raw = (quality - config.score_shift) / config.score_scale
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


def quality_metrics(prediction: EvalPrediction, on_scale: bool = True) -> dict[str, float]:
    """Return the metrics of one evaluation, by lower-case name, the means within scenes included.

    Args:
        prediction: Scores; labels and, where there are any, scene IDs; as arrays or as lists of them by batch.
        on_scale: Whether scores are on the scale of the labels. False: `rmse` is taken after the best rising line.
    """
    scores, label_ids = prediction.predictions, prediction.label_ids
    if isinstance(scores, list):
        scores = np.concatenate(scores)
        together = [np.concatenate(parts) for parts in zip(*map(_as_tuple, label_ids), strict=True)]
        label_ids = tuple(together)
    labels, *scenes = _as_tuple(label_ids)
    report = metrics.report(np.asarray(scores, np.float64), labels, scene=scenes[0].tolist() if scenes else None)
    flat = {name: value for name, value in report.items() if isinstance(value, float)}
    if not on_scale:
        rise = max(0.0, np.nan_to_num(flat["plcc"]))
        flat["rmse"] = float(np.std(labels) * np.sqrt(1 - rise**2))
    if len(report.get("by_scene", ())) > 1:
        flat |= {f"within_scene_{name}": report["within_scene"][name] for name in ("srcc", "plcc")}
    return flat


def mean_srcc(metrics: Mapping[str, float]) -> float:
    """Return the SRCC of an evaluation, averaged over its sets: what a hyperparameter search maximizes."""
    values = [value for name, value in metrics.items() if re.fullmatch(r"eval_(?!.*within_scene_)(.+_)?srcc", name)]
    if not values:
        raise ValueError("The evaluation has no metric 'srcc' to search by: pass compute_objective.")
    return float(np.mean(values))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _head_parameters(model: nn.Module) -> set[int]:
    """Return the identities of the head's parameters."""
    return {id(parameter) for name, parameter in model.named_parameters() if "quality_head." in name}


def _require_rows(role: str, dataset: Any) -> None:
    if isinstance(dataset, (IterableDataset, TorchIterableDataset)):
        raise ValueError(
            f"{role} is streamed, but batches are drawn from whole scenes, which needs all rows at hand: load it "
            "without streaming."
        )


def _require_view_size(model: SindModel, processor: SindImageProcessor) -> None:
    size, side = processor.size, model.config.view_size
    if (size["height"], size["width"]) != (side, side):
        raise ValueError(
            f"The model was made for views of {side} pixels, the image processor makes {size['height']}x"
            f"{size['width']}: pass SindImageProcessor(size={{'height': {side}, 'width': {side}}})."
        )
