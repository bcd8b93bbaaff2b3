#!/usr/bin/env python3
"""The published command line on this package: the same flags, the same runs, resumable and recorded.

Example: accelerate launch --multi_gpu --num_processes 2 scripts/train_test_iqa.py --exp_type leave-one-out \
    --train_dataset spaq --test_dataset spaq --epochs 35 --lr 1e-5 --warmup_epoch 5 --weight_decay 1e-5 \
    --batch_size 64 --local_global --loss_type scale_shift --scene_sampling 2 --project_dir runs/loo_spaq
docs/reference/published_commands.md maps every flag. An interrupted run continues when its command is given again.
Exit codes: 0 done; 2 wrong usage, or nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sind_hf.cli import terminal
from sind_hf.cli.experiment import show_experiment, show_folds
from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.experiments.config import PROTOCOLS, RunConfig, parse_config
from sind_hf.losses import LOSSES

# The published names of backbones, which open_clip and torchvision know, and where transformers has the same weights.
BACKBONES = {
    "openai/ViT-B-16": "openai/clip-vit-base-patch16",
    "openai/ViT-L-14": "openai/clip-vit-large-patch14",
    "resnet50": "microsoft/resnet-50",
}


def build_parser() -> argparse.ArgumentParser:
    summary, _, example = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--clip_model", default="openai/ViT-B-16", help=f"{', '.join(BACKBONES)}, a Hub repository or a folder")
    add("--clip_freeze", action="store_true", help="train the head alone")
    add("--ema_decay", type=float, default=0.99, help="decay of the averaged weights (%(default)s)")
    add("--resume_from", help="folder of an interrupted run, or a checkpoint to start from")
    add("--start_epoch", type=int, default=0, help="checked against the checkpoint of --resume_from, which knows it")
    add("--load_from", help="SIND checkpoint (a folder) to start from")
    add("--train_dataset", nargs="+", required=True, help=f"one or more of {', '.join(CATALOG)}")
    add("--test_dataset", nargs="+", required=True, help="one or more of the same")
    add("--input_size", type=int, default=224, help="side of the views, a multiple of 56 (%(default)s)")
    add("--data_root", default="./data", help="folder of the images (%(default)s)")
    add("--json_dir", default="./data_json", help="folder of manifests and folds, ours or published (%(default)s)")
    add("--dataset_domain", action="store_true", help="align data sets instead of scenes")
    add("--epochs", type=int, default=35, help="(%(default)s)")
    add("--batch_size", type=int, default=64, help="per process (%(default)s)")
    add("--lr", type=float, default=1e-5, help="learning rate (%(default)s)")
    add("--lr_ratio", type=float, default=1.0, help="the backbone's learning rate is lr / lr_ratio (%(default)s)")
    add("--weight_decay", type=float, default=1e-5, help="(%(default)s)")
    add("--warmup_epoch", type=float, default=5, help="(%(default)s)")
    add("--mixed_precision", choices=["no", "fp16", "bf16"], default="no", help="(%(default)s)")
    add("--loss_type", choices=list(LOSSES), default="l1", help="(%(default)s)")
    add("--scene_sampling", type=int, default=0, help="scenes per process in a batch; 0: none (%(default)s)")
    add("--local_global", action="store_true", help="patch reasoning: class token and patch tokens of two views")
    add("--all_global", action="store_true", help="ablation of --local_global: class tokens of both views")
    add("--exp_type", choices=PROTOCOLS, required=True)
    add("--project_dir", default="./runs/train_test_iqa", help="checkpoints, records and tables (%(default)s)")
    ours = parser.add_argument_group("beyond the published flags")
    ours.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    ours.add_argument("--num_workers", type=int, default=4, help="processes that load images (%(default)s)")
    ours.add_argument("--k_folds", type=int, default=10, help="folds of EVA where json_dir has none (%(default)s)")
    ours.add_argument("--liqe_splits", help="folder of LIQE's split lists")
    ours.add_argument("--report_to", default="none", help="tensorboard, wandb, trackio … (%(default)s)")
    ours.add_argument("--dry_run", action="store_true", help="show the folds and train nothing")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    if parsed.all_global and not parsed.local_global:
        parser.error("--all_global is an ablation of --local_global: give both")
    return parsed


def config_of(flags: argparse.Namespace) -> RunConfig:
    """Return the configuration that means the same as the published flags.

    Raises:
        ValueError: If flags contradict each other, or the files that they name.
    """
    output, start = _starting_point(flags)
    # What EVA is published with: its other protocol, leave-one-out, does not look at it.
    folds = flags.k_folds if flags.exp_type == "random-split" and flags.train_dataset == ["eva"] else 0
    model = {"checkpoint": start} if start else {"backbone": BACKBONES.get(flags.clip_model, flags.clip_model)}
    if not start:
        model |= {"local_branch": _local_branch(flags), "view_size": flags.input_size}
    source: dict[str, dict[str, Any]] = {
        "model": model | {"freeze_backbone": flags.clip_freeze},
        "data": {
            "image_root": flags.data_root,
            "json_dir": flags.json_dir,
            "train": flags.train_dataset,
            "test": flags.test_dataset,
            "dataset_domain": flags.dataset_domain,
            "liqe_splits": flags.liqe_splits,
        },
        "training": {
            "output_dir": output,
            "loss_type": flags.loss_type,
            "scene_sampling": flags.scene_sampling,
            "ema_decay": flags.ema_decay,
            "num_train_epochs": float(flags.epochs),
            "warmup_epochs": flags.warmup_epoch,
            "per_device_train_batch_size": flags.batch_size,
            "learning_rate": flags.lr,
            "lr_ratio": flags.lr_ratio,
            "weight_decay": flags.weight_decay,
            "fp16": flags.mixed_precision == "fp16",
            "bf16": flags.mixed_precision == "bf16",
            "dataloader_num_workers": flags.num_workers,
            "report_to": flags.report_to,
            "seed": flags.seed,
        },
        "experiment": {"name": Path(output).name, "protocol": flags.exp_type, "k_folds": folds},
    }
    return parse_config(source, "command line")


def _local_branch(flags: argparse.Namespace) -> str:
    if not flags.local_global:
        return "none"
    return "class" if flags.all_global else "patch"


def _starting_point(flags: argparse.Namespace) -> tuple[str, str | None]:
    """The output folder, and the checkpoint that training starts from (None: the backbone)."""
    if flags.resume_from is None:
        if flags.start_epoch:
            raise ValueError("--start_epoch belongs to --resume_from: a checkpoint knows the epoch it was saved in.")
        return flags.project_dir, _checkpoint(flags.load_from)
    folder = Path(flags.resume_from)
    if (folder / "config.yaml").is_file():
        epochs = {_epoch(path) for path in folder.rglob("trainer_state.json")}
        if flags.start_epoch and flags.start_epoch not in epochs:
            raise ValueError(
                f"--start_epoch is {flags.start_epoch}, but the checkpoints in {folder} are of epoch "
                f"{', '.join(map(str, sorted(epochs))) or '(none)'}: leave the flag out."
            )
        return str(folder), _checkpoint(flags.load_from)
    if flags.start_epoch:
        raise ValueError(f"--start_epoch: {folder} holds weights alone; --resume_from a run's folder knows its epoch.")
    return flags.project_dir, _checkpoint(flags.resume_from)


def _epoch(state: Path) -> int:
    return round(json.loads(state.read_text(encoding="utf-8")).get("epoch") or 0)


def _checkpoint(path: str | None) -> str | None:
    if path and path.endswith((".pth", ".safetensors")):
        raise ValueError(
            f"{path}: make a checkpoint of published weights first, `sind-hf convert {path} FOLDER`, and name the "
            "folder."
        )
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    flags = parse(arguments)
    terminal.quiet_libraries()
    try:
        config = config_of(flags)
        if flags.local_global and "resnet" in flags.clip_model.lower():
            print(
                f"note: --local_global with --clip_model {flags.clip_model} trains another head here: the published "
                "code ignores the flag for ResNet and reads the pooled global view only; to repeat its runs, leave "
                "the flag out.",
                file=sys.stderr,
            )
        if flags.dry_run:
            show_folds(config)
        else:
            show_experiment(config)
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
