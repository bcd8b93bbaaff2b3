"""Train SIND with transformers' Trainer: scene batches, aligned losses, averaged weights, exact resumption."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    BestRun,
    EvalLoopOutput,
    HPSearchBackend,
    IntervalStrategy,
    TrainOutput,
)

from sind_hf import metrics
from sind_hf.calibration import Calibration, fit_affine
from sind_hf.data.sampling import EpochBatchSampler, SceneBatchSampler, ShuffledBatchSampler
from sind_hf.data.views import ViewDataset
from sind_hf.distributed import worker_deaths_named
from sind_hf.files import atomic_folder
from sind_hf.image_processing_sind import ImageError, SindImageProcessor, ViewMode
from sind_hf.losses import UNALIGNED, by_scene
from sind_hf.modeling_sind import SindModel, SindOutput
from sind_hf.training.callbacks import DataWait, StopOnSignal, TrainingInterrupted, TrainingScores
from sind_hf.training.checkpoint_files import (
    ADAPTER_CONFIG,
    removed_unless_whole,
    require_undamaged,
    save_base_model,
    sync_after_state,
    whole_checkpoints,
)
from sind_hf.training.ema import ExponentialMovingAverage
from sind_hf.training.hub_mixin import HubMixin
from sind_hf.training.training_args import WITHOUT_WARMUP, SindTrainingArguments

logger = logging.getLogger(__name__)

_PAIRWISE = ("rank", "fidelity", "kld")
_LARGEST_BLOCK = 2048  # images that a pairwise loss compares at once: about 100 MB

# The model of a checkpoint has the averaged weights; this file beside it has the weights that training continues with.
TRAINING_WEIGHTS = "training_weights.safetensors"


class SindTrainer(HubMixin, Trainer):
    """Fine-tune a `SindModel` on a Hugging Face dataset whose images belong to scenes.

    The dataset needs a column of images, a column of scores (higher is better) and, for scene sampling, a column of
    scenes. The names of the columns are options of `SindTrainingArguments`. A batch holds `scene_sampling` distinct
    scenes, and the loss is computed within each scene. Evaluation and saving use the averaged weights; after `train()`
    the model has them. The metrics are `srcc`, `plcc`, `krcc`, `rmse`, the logistic `plcc`s, and the means within
    scenes. The best checkpoint is the one with the highest `srcc`, unless `metric_for_best_model` names another
    metric.

    `eval_loss` is the training loss over the whole evaluation set, scene by scene. With a `compute_loss_func` it is
    the mean over the batches. `rmse` is in the unit of the opinion scores. For scores without calibration, such as
    those during training, it is measured after fitting the best rising line from scores to opinion scores (the losses
    `l1`, `l2` and `huber` need no calibration).

    The logs of a training hold, beside the loss: `train_srcc` and `train_plcc` of the training images since the last
    log, the learning rate of every group of parameters, and `data_wait`, the share of the time spent waiting for data.

    A model with adapters of PEFT is saved as adapter and base model in one folder, with the calibration.
    `SindModel.from_pretrained` loads both from there.

    The arguments are those of `Trainer`, in the same order. These differ from it or have a meaning of their own:

    Args:
        args: Training options. Default: the published recipe, with the output folder `tmp_trainer`.
        train_dataset: Images with scores and scenes. A streamed dataset is refused.
        eval_dataset: Images with scores, or several such datasets by name.
        processing_class: Image processor that makes the views; required.
        compute_loss_func: Loss that replaces `args.loss_type`. It is called with the model's output, the labels
            (float32) and `num_items_in_batch`.
        compute_metrics: Function that replaces the metrics. `label_ids` are the labels and scene IDs, or only the
            labels with `args.label_names=["labels"]`. If the best checkpoint is chosen by `srcc` and the function
            does not return it, the trainer adds it.

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
        ValueError: If the dataset lacks a column, is streamed, has a score that is not a number, or has too few
            scenes; if `args` are not `SindTrainingArguments`; if the best metric names no evaluation set.
    """

    train_sampler: EpochBatchSampler | None = None
    _updates_per_epoch = 0

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
                f"args is of the class {type(args).__name__}: pass SindTrainingArguments, which has the same "
                "options and those of SIND."
            )
        if processing_class is None:
            raise ValueError("SindTrainer needs processing_class=SindImageProcessor(...), which makes the views.")
        _require_rows("train_dataset", train_dataset)
        for name, dataset in eval_dataset.items() if isinstance(eval_dataset, Mapping) else [("", eval_dataset)]:
            _require_rows(f"eval_dataset {name}".strip(), dataset)
        if model is not None:
            _require_view_size(model, processing_class)
        self.ema: ExponentialMovingAverage | None = None
        self._predicted: list[tuple[Tensor, ...]] = []
        self._group_rates: list[float] = []
        self._training_scores = TrainingScores()
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
        _require_view_size(self.model, processing_class)  # model_init has made it now
        if args.ema_decay and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError("The averaged weights need the whole model in each process: set ema_decay=0 under FSDP.")
        # Our losses are means over a micro-batch, and the Trainer divides them by the number of micro-batches. A
        # user's loss gets `num_items_in_batch` and divides by itself, as with the Trainer.
        self.loss_is_scaled_for_ga = False if compute_loss_func is None else None
        self._complete_best_metric()
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

    def _complete_best_metric(self) -> None:
        """Put the name of the evaluation set before `metric_for_best_model`, if the sets have names."""
        metric = self.args.metric_for_best_model
        if metric is None or not isinstance(self.eval_dataset, Mapping) or not self.eval_dataset:
            return
        metric = metric.removeprefix("eval_")
        full = [f"{name}_{metric}" for name in self.eval_dataset]
        if any(metric.startswith(f"{name}_") for name in self.eval_dataset):
            return
        if len(full) > 1:
            raise ValueError(
                f"metric_for_best_model is {metric!r}, but there are {len(full)} evaluation sets: choose one, for "
                f"example {' or '.join(map(repr, full))}."
            )
        self.args.metric_for_best_model = full[0]

    # --- batches -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Return the training batches, each with `scene_sampling` scenes.

        Raises:
            ValueError: If there is no training set, or its scene column is missing or has too few scenes.
        """
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset.")
        dataset = self._train_views = self._views(self.train_dataset, "train")
        # In one process with several GPUs (DataParallel) a batch is divided among them, so it holds scenes for all.
        scenes = self.args.scene_sampling * max(1, self.args.n_gpu)
        if not scenes:
            sampler: EpochBatchSampler = ShuffledBatchSampler(
                len(dataset), self._train_batch_size, seed=self._data_seed
            )
        elif dataset.scenes is None:
            raise ValueError(
                f"scene_sampling is {self.args.scene_sampling}, but the training set has no column "
                f"{self.args.scene_column!r}: set scene_column to its scene column, or set scene_sampling=0."
            )
        elif len(dataset.scene_names or []) < scenes:
            raise ValueError(
                f"scene_sampling asks for {scenes} scenes per batch, but the column {self.args.scene_column!r} holds "
                f"{len(dataset.scene_names or [])}: lower scene_sampling, or set it to 0 for batches without scenes."
            )
        else:
            sampler = SceneBatchSampler(dataset.scenes.tolist(), self._train_batch_size, scenes, seed=self._data_seed)
        self.train_sampler = sampler
        loader = self.accelerator.prepare(DataLoader(dataset, batch_sampler=sampler, **self._loader_options()))
        self._updates_per_epoch = math.ceil(len(loader) / self.args.gradient_accumulation_steps)
        return loader

    def _release_train_loader(self) -> None:
        """Drop the training batches, so that persistent workers end with the training."""
        self.callback_handler.train_dataloader = None
        self.accelerator._dataloaders.clear()

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Return evaluation batches in the order of the dataset, with the views `args.eval_views`.

        Raises:
            ValueError: If there is no evaluation set.
        """
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]  # type: ignore[index]
        if dataset is None:
            raise ValueError("Evaluation needs an eval_dataset.")
        return self._evaluation_loader(dataset, self.args.eval_views)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return prediction batches in the order of the dataset, with the views `args.eval_views`.

        The dataset needs no scores. Without them, predictions have no labels and no metrics.
        """
        with_scores = _has_scores(test_dataset, self.args.score_column)
        return self._evaluation_loader(test_dataset, self.args.eval_views, with_scores)

    def _evaluation_loader(self, dataset: Dataset, mode: ViewMode, with_scores: bool = True) -> DataLoader:
        views = self._views(dataset, mode, with_scores)
        loader = DataLoader(views, batch_size=self.args.eval_batch_size, **self._loader_options(persistent=False))
        return self.accelerator.prepare(loader)

    def _views(self, dataset: Dataset, mode: ViewMode, with_scores: bool = True) -> ViewDataset:
        # Training without scenes ignores the scene column; evaluation always reports on scenes.
        with_scenes = with_scores and (mode != "train" or self.args.scene_sampling)
        return ViewDataset(
            dataset,
            self.processing_class,
            mode,
            seed=self._data_seed,
            image_column=self.args.image_column,
            score_column=self.args.score_column if with_scores else None,
            scene_column=self.args.scene_column if with_scenes else None,
            with_rows=mode == "train",
        )

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _loader_options(self, persistent: bool = True) -> dict[str, Any]:
        workers = self.args.dataloader_num_workers
        return {
            "num_workers": workers,
            "collate_fn": self.data_collator,
            "pin_memory": self.args.dataloader_pin_memory and torch.cuda.is_available(),
            "persistent_workers": persistent and self.args.dataloader_persistent_workers and workers > 0,
            "prefetch_factor": self.args.dataloader_prefetch_factor if workers else None,
            "multiprocessing_context": self.args.dataloader_multiprocessing_context if workers else None,
            "in_order": self.args.dataloader_in_order,
            # Without a generator of its own, starting an iteration draws from the global random state. Evaluations
            # and resumption with persistent workers would then change the dropout that follows.
            "generator": torch.Generator(),
        }

    # --- optimization --------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Return the chosen optimizer, by default Adam with L2 weight decay (published recipe).

        The backbone's learning rate is the head's divided by `lr_ratio`.
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
        """Divide the groups of the optimizer into backbone and head, each with its own learning rate."""
        head = _head_parameters(model)
        groups = []
        for group in optimizer.param_groups:
            for of_head, ratio in ((False, self.args.lr_ratio), (True, 1.0)):
                members = [parameter for parameter in group["params"] if (id(parameter) in head) == of_head]
                if members:
                    groups.append(group | {"params": members, "lr": group["lr"] / ratio})
        optimizer.param_groups[:] = groups

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Return the chosen schedule, by default the published one: linear warm-up, then a cosine over *all* steps."""
        if self.lr_scheduler is None:
            args, optimizer = self.args, optimizer or self.optimizer
            warmup = self._warmup_steps(num_training_steps)
            if 2 * warmup > num_training_steps and args.lr_scheduler_type not in WITHOUT_WARMUP:
                logger.warning(
                    "The warm-up takes %d of the %d steps, more than half of the training: lower warmup_epochs (%g) "
                    "or warmup_steps (%g), or train for more epochs.",
                    *(warmup, num_training_steps, args.warmup_epochs, args.warmup_steps),
                )
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
            if not self._updates_per_epoch:  # called outside train()
                self.get_train_dataloader()
                self._release_train_loader()
            warmup = round(self.args.warmup_epochs * self._updates_per_epoch)
        return warmup

    def _get_learning_rate(self) -> float:
        # Read before the schedule advances, as the Trainer does for the first group.
        self._group_rates = [float(group["lr"]) for group in self.optimizer.param_groups]  # type: ignore[union-attr]
        return super()._get_learning_rate()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | int | None]:
        """Fetch the batches of one update and measure how long that takes."""
        with self.data_wait.fetching():
            return super().get_batch_samples(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the Trainer's values, and for every entry with a training loss those that SIND adds.

        These are `train_srcc` and `train_plcc` (left out if they are not defined), `data_wait`, and, if the optimizer
        has several groups, `learning_rate_backbone` and `learning_rate_head`; `learning_rate` is then the head's.
        Groups with different rates inside one of the two parts are logged as `learning_rate_group_0` and so on.
        """
        if "loss" in logs:
            logs |= self._training_scores.correlations(self.accelerator.gather)
            logs["data_wait"] = round(self.data_wait.share(), 4)
        if "learning_rate" in logs and len(self._group_rates) > 1:
            logs |= self._rates_by_group()
            logs["learning_rate"] = logs.get("learning_rate_head", logs["learning_rate"])
        super().log(logs, start_time)

    def _rates_by_group(self) -> dict[str, float]:
        head = _head_parameters(self.model)
        found: dict[str, set[float]] = {}
        for group, rate in zip(self.optimizer.param_groups, self._group_rates, strict=True):  # type: ignore[union-attr]
            part = "head" if any(id(parameter) in head for parameter in group["params"]) else "backbone"
            found.setdefault(f"learning_rate_{part}", set()).add(rate)
        if all(len(rates) == 1 for rates in found.values()):
            return {name: rates.pop() for name, rates in found.items()}
        return {f"learning_rate_group_{number}": rate for number, rate in enumerate(self._group_rates)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, SindOutput]:
        """Score the batch and compute the loss within each scene, or over the batch without scene sampling."""
        if self.compute_loss_func is not None:
            batch = {name: inputs[name] for name in ("pixel_values", "local_pixel_values")}
            batch["labels"] = inputs["labels"].float()
            loss, outputs = super().compute_loss(model, batch, True, num_items_in_batch)
        else:
            outputs = model(inputs["pixel_values"], inputs["local_pixel_values"])
            scene_ids = inputs["scene_ids"] if self.args.scene_sampling else None
            loss = by_scene(outputs["quality"], inputs["labels"], scene_ids, self.args.loss_type)
        self._require_finite(loss, outputs["quality"], inputs)
        if model.training and self.args.logging_strategy != IntervalStrategy.NO:
            self._training_scores.add(outputs["quality"], inputs["labels"])
        return (loss, outputs) if return_outputs else loss

    def _require_finite(self, loss: Tensor, quality: Tensor, inputs: dict[str, Tensor]) -> None:
        """Stop if the loss of a training batch is NaN or infinite, with the names of its images."""
        if "row" not in inputs or torch.isfinite(loss):
            return
        rows = inputs["row"]
        bad = ~torch.isfinite(quality)
        names = [self._train_views.image_name(row) for row in rows[bad if bad.any() else ~bad].tolist()]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        what = "these images got scores that are NaN or infinite" if bad.any() else "in the batch of these images"
        before = whole_checkpoints(str(self.args.output_dir))
        kept = f"; the last checkpoint is {before[-1]}" if before else ""
        raise ValueError(
            f"The loss is {loss.item()} after step {self.state.global_step}, {what}: {shown}. Lower learning_rate "
            f"({self.args.learning_rate:g}), or train in float32{kept}."
        )

    # --- training ------------------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train the model, which then has the averaged weights and, with `calibrate`, calibrated scores.

        If something fails after the last step, such as the calibration, the model is saved to `args.output_dir`
        before the error is raised.

        Args:
            resume_from_checkpoint: Checkpoint of this training. True: the last complete one in `args.output_dir`.
            trial: Trial of a hyperparameter search.
            ignore_keys_for_eval: Fields of the model's output that evaluations leave out.

        Returns:
            Steps, mean loss and times, as with `Trainer`.

        Raises:
            ValueError: If the checkpoint is damaged, the loss is not finite, an image cannot be read, a loader
                process dies or a checkpoint cannot be saved; the message names images, files and folder.
            TrainingInterrupted: If a signal (Ctrl-C, SIGTERM) ended the training; a checkpoint was saved first.
        """
        self.ema = None
        self.data_wait = DataWait()
        self._training_scores = TrainingScores()
        self.logged_in_training = self.logged_on_other_scale = 0
        self.control.should_training_stop = False
        if resume_from_checkpoint is True:  # the Trainer would take the newest one even if it is incomplete
            whole = whole_checkpoints(str(self.args.output_dir))
            if not whole:
                raise ValueError(f"{self.args.output_dir}: there is no checkpoint to resume from.")
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
                    f"interrupted by {name} after step {step}: everything is saved in "
                    f"{self.args.output_dir}/checkpoint-{step}; resume to continue.",
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
        """Save the model if something fails after the last step, and let the error pass."""
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
        """Search for hyperparameters as `Trainer.hyperparameter_search` does; the trainer needs a `model_init`.

        Without `compute_objective`, the search maximizes the SRCC, averaged over the evaluation sets. With it, the
        default of `direction` is "minimize".

        Raises:
            ValueError: If the SRCC is to be minimized.
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

    # --- evaluation ----------------------------------------------------------------------------------------------

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate the averaged weights, which are the same in all processes; the loss is that of the whole set."""
        self._predicted = []
        with self._averaged(), _one_line_errors(self.args.output_dir):
            # Each process has its own BatchNorm statistics; the main process saves its own.
            broadcast(list(self.model.buffers()))
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        if self._predicted and output.metrics is not None:
            if self.compute_loss_func is None:
                output.metrics[f"{metric_key_prefix}_loss"] = self.evaluation_loss(*self._collected())
            # A user's compute_metrics may lack the SRCC, by which checkpoints are compared by default.
            best = f"{metric_key_prefix}_srcc".removeprefix("eval_")
            if best == (self.args.metric_for_best_model or "").removeprefix("eval_"):
                quality, labels, _ = self._collected()
                output.metrics.setdefault(f"{metric_key_prefix}_srcc", metrics.srcc(quality, labels))
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        try:
            return super()._determine_best_metric(metrics, trial)
        except KeyError:
            known = sorted(name.removeprefix("eval_") for name in metrics if name.startswith("eval_"))
            raise ValueError(
                f"metric_for_best_model is {self.args.metric_for_best_model!r}, which the evaluation does not return: "
                f"choose one of {', '.join(known)}."
            ) from None

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Score a batch and keep its scores, labels and scenes for what is computed over the whole set."""
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
        """Return `eval_loss`, the training loss over a whole set of images, scene by scene.

        Without scene sampling the set counts as one scene, as a batch does in training. An aligned loss needs two
        images, so scenes with one image are left out. Pairwise losses are averaged over blocks of at most 2,048
        images of a scene.

        Args:
            quality: Scores, (n,).
            labels: Opinion scores, (n,).
            scenes: Scene of each image, (n,).

        Returns:
            The loss; NaN if an aligned loss finds no scene with two images.
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
        """Whether the scores are on the scale of the opinion scores, so that they can be subtracted."""
        config = self.model.config
        calibrated = (config.score_scale, config.score_shift) != (1, 0)
        return calibrated or (self.compute_loss_func is None and self.args.loss_type in UNALIGNED)

    def _quality_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        return quality_metrics(prediction, on_scale=self._on_scale)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.ema is None else self.ema.averaged(self.model)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        self._leave_old_scale()
        if self.args.ema_decay and self.ema is None:
            self.ema = ExponentialMovingAverage(self.model, self.args.ema_decay)
        return prepared

    def _leave_old_scale(self) -> None:
        """Write the loss into the config, which every checkpoint contains, and remove an earlier calibration."""
        config = self.model.config
        config.score_range = None
        if self.compute_loss_func is None:
            config.loss_type = self.args.loss_type
            if self.args.loss_type not in UNALIGNED:
                config.score_scale, config.score_shift = 1.0, 0.0

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # the Trainer checks only after taking one step more
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
                if (folder / ADAPTER_CONFIG).exists():
                    save_base_model(self.model, folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output = Path(str(self._get_output_dir(trial=trial)))
        checkpoint = output / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with removed_unless_whole(checkpoint), sync_after_state(self.state, checkpoint):
            super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.ema is not None and self.args.should_save:
            weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
            save_file(weights, os.path.join(output_dir, TRAINING_WEIGHTS), metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trained: Any = self.model
        if hasattr(trained, "get_base_model"):  # a PeftModel: the folder also has its base model, which stays
            trained.load_adapter(resume_from_checkpoint, trained.active_adapter, is_trainable=True)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = os.path.join(resume_from_checkpoint, TRAINING_WEIGHTS)
        if os.path.exists(path):
            if self.args.ema_decay:
                self.ema = ExponentialMovingAverage(self.model, self.args.ema_decay)
            self.model.load_state_dict(load_file(path))
        # A model that was calibrated after an earlier stop would continue on another scale.
        saved = type(self.model.config).from_pretrained(resume_from_checkpoint)
        for name in ("score_scale", "score_shift"):
            setattr(self.model.config, name, getattr(saved, name))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.ema is not None:
            self.ema.restart(self.model)

    # --- calibration ---------------------------------------------------------------------------------------------

    def calibrate(self, dataset: Dataset | None = None) -> Calibration:
        """Fit `score_scale` and `score_shift`, so that scores are on the scale of the training scores.

        This is an affine least-squares fit of the raw scores (averaged weights, center views) to the opinion scores.
        If the slope is not positive, the calibration stays 1 and 0, with a warning, and no range is declared.

        Args:
            dataset: Images with scores. Default: `args.calibration_images` images of the training set, evenly spread.

        Returns:
            The calibration, which `model.config` now holds together with `args.score_range`.

        Raises:
            ValueError: If there is neither a dataset nor a training set.
        """
        images: Any = self.train_dataset if dataset is None else dataset
        if images is None:
            raise ValueError("Calibration needs images with scores: pass a dataset.")
        limit = self.args.calibration_images
        if limit and len(images) > limit:
            images = images.select(np.linspace(0, len(images) - 1, limit).round().astype(int))
        # Nobody reads metrics of training images, and they would warn of scenes of which one image was selected.
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        # `fp16_full_eval` and `bf16_full_eval` convert the model permanently, except during training.
        in_train, self.is_in_train = self.is_in_train, True
        try:
            output = self.evaluation_loop(self._evaluation_loader(images, "center"), "Calibration", False)
        finally:
            self.compute_metrics, self.is_in_train = compute_metrics, in_train
        # Ends the progress bar, which a later evaluation would otherwise continue.
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
    """Sets the epoch of the sampler, and updates the averaged weights after every optimizer step."""

    def __init__(self, trainer: SindTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer does not reach the sampler if it resumes inside an epoch in several processes.
        if self.trainer.train_sampler is not None:
            self.trainer.train_sampler.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.ema is not None and not self.trainer.accelerator.optimizer_step_was_skipped:
            self.trainer.ema.update(self.trainer.model, state.global_step + 1)


@contextmanager
def _one_line_errors(output_dir: str | None) -> Iterator[None]:
    """Shorten the error of an image to one line: a loader process wraps it in a traceback, as its last line."""
    try:
        with worker_deaths_named(f"resume from the last checkpoint in {output_dir}, if there is one"):
            yield
    except ImageError as error:
        *traceback, last = str(error).rstrip().splitlines()
        if not traceback:
            raise
        raise ImageError(last.removeprefix(f"{ImageError.__module__}.{ImageError.__qualname__}: ")) from error


def collate_single(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join samples into a batch with float32 labels: Apple's GPUs lack float64, which keeps close scores apart."""
    batch = default_collate(samples)
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in batch.items()}


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Return the share of the full learning rate after `step` optimizer steps (paper: warm-up and cosine).

    It rises linearly from 0 to 1 over `warmup` steps, then follows `0.5·(1 + cos(π·(step - warmup) / total))`. As
    published, the cosine runs over all steps, so that it does not reach 0 at the end.
    """
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / total))


def quality_metrics(prediction: EvalPrediction, on_scale: bool = True) -> dict[str, float]:
    """Return the metrics of one evaluation by lower-case name, including the means within scenes.

    Args:
        prediction: Scores as predictions; labels and optionally scene IDs as label IDs. Arrays, or lists of arrays by
            batch.
        on_scale: Whether the scores are on the scale of the labels. False: `rmse` is measured after fitting the best
            rising line.
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
    """Return the SRCC of an evaluation, averaged over its sets, which a hyperparameter search maximizes."""
    values = [value for name, value in metrics.items() if re.fullmatch(r"eval_(?!.*within_scene_)(.+_)?srcc", name)]
    if not values:
        raise ValueError("The evaluation has no metric 'srcc' to search by: pass compute_objective.")
    return float(np.mean(values))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _head_parameters(model: nn.Module) -> set[int]:
    """Return the `id` of every parameter of the head."""
    return {id(parameter) for name, parameter in model.named_parameters() if "quality_head." in name}


def _has_scores(dataset: Dataset, column: str) -> bool:
    """Whether a dataset has any score at all; if only some are missing, that is an error reported elsewhere."""
    if not isinstance(dataset, Dataset):
        return True  # ViewDataset refuses it
    return column in dataset.column_names and any(score is not None for score in dataset.with_format(None)[column])


def _require_rows(role: str, dataset: Any) -> None:
    if isinstance(dataset, (IterableDataset, TorchIterableDataset)):
        raise ValueError(
            f"{role} is streamed, but batches are drawn from whole scenes, which needs all rows: load it without "
            "streaming."
        )


def _require_view_size(model: SindModel, processor: SindImageProcessor) -> None:
    size, side = processor.size, model.config.view_size
    if (size["height"], size["width"]) != (side, side):
        raise ValueError(
            f"The model was made for views of {side} pixels, but the image processor makes {size['height']}x"
            f"{size['width']}: pass SindImageProcessor(size={{'height': {side}, 'width': {side}}})."
        )
