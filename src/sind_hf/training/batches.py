"""The trainer's batches: scenes for training, the data set's order for evaluation."""

from __future__ import annotations

import math
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from sind_hf.data.sampling import EpochBatchSampler, SceneBatchSampler, ShuffledBatchSampler
from sind_hf.data.views import ViewDataset
from sind_hf.image_processing_sind import ViewMode
from sind_hf.training.hub_mixin import PublishingTrainer


class BatchingTrainer(PublishingTrainer):
    """A `Trainer` that groups the pictures of an HF Dataset by scene (method: scene sampling) and cuts their views.

    Columns and sampling are options of `SindTrainingArguments`; the views are those of `processing_class`.
    """

    train_sampler: EpochBatchSampler | None = None
    _updates_per_epoch = 0

    def get_train_dataloader(self) -> DataLoader:
        """Return the training batches: `scene_sampling` scenes each, grouped from the scene column."""
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset.")
        dataset = self._train_views = self._views(self.train_dataset, "train")
        # One process with several GPUs (DataParallel) cuts a batch up: it then holds the scenes of all of them.
        scenes = self.args.scene_sampling * max(1, self.args.n_gpu)
        if not scenes:
            sampler: EpochBatchSampler = ShuffledBatchSampler(
                len(dataset), self._train_batch_size, seed=self._data_seed
            )
        elif dataset.scenes is None:
            raise ValueError(
                f"scene_sampling is {self.args.scene_sampling}, but the training set has no column "
                f"{self.args.scene_column!r}: name its scene column, or set scene_sampling=0."
            )
        elif len(dataset.scene_names or []) < scenes:
            raise ValueError(
                f"scene_sampling asks for {scenes} scenes per batch, but the column {self.args.scene_column!r} holds "
                f"{len(dataset.scene_names or [])}: lower it, or set it to 0 for batches without scenes."
            )
        else:
            sampler = SceneBatchSampler(dataset.scenes.tolist(), self._train_batch_size, scenes, seed=self._data_seed)
        self.train_sampler = sampler
        loader = self.accelerator.prepare(DataLoader(dataset, batch_sampler=sampler, **self._loader_options()))
        self._updates_per_epoch = math.ceil(len(loader) / self.args.gradient_accumulation_steps)
        return loader

    def _release_train_loader(self) -> None:
        """Drop the training batches, and with them persistent workers, which would outlive the training."""
        self.callback_handler.train_dataloader = None
        self.accelerator._dataloaders.clear()

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Return evaluation batches in the dataset's order, with the views `args.eval_views`."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]  # type: ignore[index]
        if dataset is None:
            raise ValueError("Evaluation needs an eval_dataset.")
        return self._evaluation_loader(dataset, self.args.eval_views)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return prediction batches in the dataset's order, with the views `args.eval_views`.

        The dataset needs no scores; without them, predictions have no labels and no metrics.
        """
        if _has_scores(test_dataset, self.args.score_column):
            return self._evaluation_loader(test_dataset, self.args.eval_views)
        options = self._view_options(self.args.eval_views) | {"score_column": None, "scene_column": None}
        return self._load_in_order(ViewDataset(test_dataset, **options))

    def _evaluation_loader(self, dataset: Dataset, mode: ViewMode) -> DataLoader:
        return self._load_in_order(self._views(dataset, mode))

    def _load_in_order(self, views: ViewDataset) -> DataLoader:
        loader = DataLoader(views, batch_size=self.args.eval_batch_size, **self._loader_options(persistent=False))
        return self.accelerator.prepare(loader)

    def _views(self, dataset: Dataset, mode: ViewMode) -> ViewDataset:
        return ViewDataset(dataset, **self._view_options(mode))

    def _view_options(self, mode: ViewMode) -> dict[str, Any]:
        # Batches without scenes need none; evaluation reports on scenes whatever the training did.
        scene_column = self.args.scene_column if mode != "train" or self.args.scene_sampling else None
        return {
            "processor": self.processing_class,
            "mode": mode,
            "seed": self._data_seed,
            "image_column": self.args.image_column,
            "score_column": self.args.score_column,
            "scene_column": scene_column,
            "with_rows": mode == "train",
        }

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
            # Its own, or starting an iteration would draw from the global state: then evaluations, and resumption
            # with persistent workers, would change the dropout of all that follows.
            "generator": torch.Generator(),
        }


def _has_scores(dataset: Dataset, column: str) -> bool:
    """Whether a dataset holds any score at all; where only some are missing, that is an error to be named."""
    if not isinstance(dataset, Dataset):
        return True  # refused elsewhere
    return column in dataset.column_names and any(score is not None for score in dataset.with_format(None)[column])


def collate_single(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join samples with labels in float32: Apple's GPUs have no float64, which keeps close opinion scores apart."""
    batch = default_collate(samples)
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in batch.items()}
