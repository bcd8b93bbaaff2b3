"""Images per second through SindTrainer, from images and from prepared data, and how long it waits for them.

    python scripts/benchmarks/epoch.py [--backbone vit-b16] [--batch-size 64] [--workers 4] [--bf16] [--compile]

Makes JPEG images of the size of SPAQ's (4000×3000), prepares them, and trains on them; scenes are made up. `data
wait` is the share of the time in which the training stands still for its data, `epoch` what an epoch of the published
cross-set run (8,897 images) would take at that rate. The first step of each training is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rounds import machine, make_photographs
from train_step import BACKBONES
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sind_hf import SindConfig, SindImageProcessor, SindModel, SindTrainer, SindTrainingArguments
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.data.prepared.folder import load_prepared
from sind_hf.data.prepared.prepare import prepare

SPAQ_TRAINING_IMAGES = 8897
SCENES = 8


class Clock(TrainerCallback):
    """The time from the end of the first step to that of the last."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def train(dataset: Dataset, options: argparse.Namespace, folder: Path, side: int = 224) -> tuple[float, float]:
    """Return images per second and the share of waiting; `side` is that of the views."""
    torch.manual_seed(0)
    clock = Clock()
    switches: dict[str, Any] = {"bf16": options.bf16, "torch_compile": options.compile}
    trainer = SindTrainer(
        model=SindModel(SindConfig(vision_config=BACKBONES[options.backbone])),
        args=SindTrainingArguments(
            str(folder),
            per_device_train_batch_size=options.batch_size,
            scene_sampling=2,
            max_steps=options.steps + 1,
            dataloader_num_workers=options.workers,
            logging_steps=options.steps + 1,
            calibrate=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **switches,
        ),
        train_dataset=dataset,
        processing_class=SindImageProcessor(size={"height": side, "width": side}),
        callbacks=[clock],
    )
    trainer.train()
    waits = [entry["data_wait"] for entry in trainer.state.log_history if "data_wait" in entry]
    return options.steps * options.batch_size / (clock.ends[-1] - clock.ends[0]), waits[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="vit-b16")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of torch, on a CPU")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, which takes minutes to begin")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        paths = make_photographs(root, tuple(options.size), options.images)
        entries = [ManifestEntry(p.name, float(i), f"scene {i % SCENES}", i % SCENES) for i, p in enumerate(paths)]
        manifest = Manifest("generated", entries)
        prepare(manifest, root, root / "prepared", workers=max(1, options.workers))
        sets = {"images": manifest.to_dataset(root), "prepared data": load_prepared(root / "prepared")}
        for name, dataset in sets.items():
            rate, wait = train(dataset, options, root / "run")
            rows.append(f"| {name} | {rate:.1f} | {wait:.0%} | {SPAQ_TRAINING_IMAGES / rate / 60:.1f} min |")
    what = f"{options.backbone}, batches of {options.batch_size}, {options.workers} loaders"
    print(f"Training through SindTrainer on {options.size[0]}×{options.size[1]} JPEG, {what} ({machine()})\n")
    print("| from | images/s | data wait | epoch of 8,897 |")
    print("| --- | ---: | ---: | ---: |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
