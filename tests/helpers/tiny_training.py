"""A training set, models and trainers small enough to train in tests, in this process or in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.training.trainer import SindTrainer
from sind_hf.training.training_args import SindTrainingArguments

SCENES = ("animals", "food", "night")
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "clip": {
        "model_type": "clip_vision_model",
        "image_size": 56,
        "patch_size": 14,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 8,
        "attention_dropout": 0.5,
    },
}


def make_images(folder: Path, count: int = 24) -> Dataset:
    """Images whose noise grows as their score falls; scenes in turn, each on a scale of its own."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"image": [], "score": [], "scene": []}
    for index in range(count):
        quality = rng.random()
        smooth = np.linspace(40, 200, 64)[None, :, None] * np.linspace(0.5, 1, 48)[:, None, None]
        noise = rng.normal(0, 60 * (1 - quality), (48, 64, 3))
        path = folder / f"{index:03}.png"
        Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(path)
        scene = index % len(SCENES)
        rows["image"].append(str(path))
        rows["score"].append(10 * (scene + 1) * quality + 20 * scene)
        rows["scene"].append(SCENES[scene])
    return Dataset.from_dict(rows)


def make_model(backbone: str = "resnet", seed: int = 0, **config: Any) -> SindModel:
    torch.manual_seed(seed)
    return SindModel(SindConfig(vision_config=dict(BACKBONES[backbone]), **{"view_size": 56} | config))


def make_processor() -> SindImageProcessor:
    return SindImageProcessor(size={"height": 56, "width": 56})


def make_arguments(folder: Path, **options: Any) -> SindTrainingArguments:
    quick = {
        "learning_rate": 1e-2,
        "warmup_epochs": 0.5,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "eval_views": "center",
        "calibrate": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return SindTrainingArguments(output_dir=str(folder), **quick | options)


def make_trainer(
    folder: Path,
    train: Dataset | None,
    model: SindModel | None = None,
    callbacks: list[TrainerCallback] | None = None,
    eval_dataset: Any = None,
    trainer_class: type[SindTrainer] = SindTrainer,
    **options: Any,
) -> SindTrainer:
    return trainer_class(
        model=make_model() if model is None else model,
        args=make_arguments(folder, **options),
        train_dataset=train,
        eval_dataset=eval_dataset,
        processing_class=make_processor(),
        callbacks=callbacks,
    )


class StopAt(TrainerCallback):
    """Stop the training after some optimizer step, as a killed job would stop, but at a known place."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = True
            control.should_training_stop = True


def train_with_a_stop(
    folder: Path,
    train: Dataset,
    backbone: str,
    stop: int,
    trainer_class: type[SindTrainer] = SindTrainer,
    **options: Any,
) -> tuple[Path, Path]:
    """Train once straight and once stopped after `stop` steps and resumed by a fresh trainer.

    Returns:
        The last checkpoints of the two.
    """
    options = {"save_strategy": "steps", "save_steps": options["max_steps"]} | options
    last = f"checkpoint-{options['max_steps']}"
    make_trainer(folder / "straight", train, make_model(backbone), trainer_class=trainer_class, **options).train()
    stopped = make_trainer(
        folder / "resumed", train, make_model(backbone), [StopAt(stop)], trainer_class=trainer_class, **options
    )
    stopped.train()
    # Other weights and another random state: all that counts has to come from the checkpoint.
    fresh = make_trainer(folder / "resumed", train, make_model(backbone, 1), trainer_class=trainer_class, **options)
    torch.rand(5)
    fresh.train(resume_from_checkpoint=str(folder / "resumed" / f"checkpoint-{stop}"))
    return folder / "straight" / last, folder / "resumed" / last
