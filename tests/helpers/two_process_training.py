"""Script of test_two_processes.py, which runs it on two ranks with a folder for the results."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset

from helpers.tiny_training import make_model, make_trainer, train_with_a_stop
from sind_hf.training.trainer import SindTrainer

# name -> (backbone, step to stop at, options); six batches an epoch are three for each process
RESUMPTIONS = {
    "inside-an-epoch": ("resnet", 2, {"max_steps": 7}),
    "between-epochs": ("clip", 3, {"max_steps": 7}),
    "dropout": ("clip", 2, {"max_steps": 7}),
    "accumulation": ("clip", 1, {"max_steps": 5, "gradient_accumulation_steps": 2}),
    "persistent-workers": (
        "clip",
        2,
        {"max_steps": 7, "dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    ),
}
COUNTS = (3, 4, 5, 23)  # images to evaluate; two processes with batches of two make four at a time


def evaluation_options() -> dict[str, object]:
    return {
        "per_device_eval_batch_size": 2,
        "max_steps": 15,
        "ema_decay": 0.8,
        "calibrate": True,
        "score_range": [0.0, 50.0],
    }


def evaluate(trainer: SindTrainer, images: Dataset) -> dict[str, object]:
    metrics = trainer.evaluate({str(count): images.select(range(count)) for count in COUNTS})
    predictions = {count: trainer.predict(images.select(range(count))).predictions.tolist() for count in COUNTS}
    return {"metrics": metrics, "predictions": predictions}


class BatchLog(SindTrainer):
    """Notes which images reach the loss, known by their scores."""

    seen: list[list[float]]

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            self.seen.append(inputs["labels"].tolist())
        return super().compute_loss(model, inputs, *args, **kwargs)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    images = Dataset.load_from_disk(folder / "images")
    for name, (backbone, stop, options) in RESUMPTIONS.items():
        train_with_a_stop(folder / name, images, backbone, stop, **options)

    # BatchNorm's statistics differ between the processes; the scores must not.
    trainer = make_trainer(
        folder / "trained", images, make_model("resnet"), trainer_class=BatchLog, **evaluation_options()
    )
    trainer.seen = []
    trainer.train()
    trainer.save_model()
    record = evaluate(trainer, images) | {"batches": trainer.seen}
    record["config"] = {name: getattr(trainer.model.config, name) for name in ("score_scale", "score_shift")}
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(record))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
