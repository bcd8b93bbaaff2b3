"""Checkpoints, and run folders as `sind-hf train` leaves them, with what must not leave the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sind_hf import SindConfig, SindImageProcessor, SindModel

# Small views and few weights; scores differ clearly between images.
VISION = {
    "model_type": "clip_vision_model",
    "image_size": 56,
    "patch_size": 14,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 8,
}

METRICS = {
    "srcc": 0.8125,
    "plcc": 0.7931,
    "krcc": 0.6214,
    "rmse": 8.75,
    "plcc_logistic5": 0.81,
    "within_scene_srcc": 0.7,
    "within_scene_plcc": None,
    "runtime": 12.0,
}
SECRETS = ("/home/somebody", "hf_SecretSecretSecret")


def save_checkpoint(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = SindConfig(vision_config=dict(VISION), view_size=56, initializer_range=1.0, score_range=[0, 100])
    config.score_scale, config.score_shift = 10.0, 50.0
    SindModel(config).save_pretrained(folder)
    SindImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


def make_record(**changes: Any) -> dict[str, Any]:
    record = {
        "name": "koniq",
        "seed": 3,
        "metrics": {
            "koniq10k_held_out": dict(METRICS),
            "livec": {"srcc": 0.5, "plcc": 0.25, "krcc": 0.125, "rmse": 20},
        },
        "train_images": {"koniq10k": 8058},
        "test_images": {"koniq10k_held_out": 2015, "livec": 1162},
        "epochs": 35.0,
        "steps": 4400,
        "processes": 2,
        "versions": {"sind_hf": "0.1.0", "torch": "2.13.0"},
        "config": {
            "model": {"backbone": "openai/clip-vit-base-patch16"},
            "data": {
                "image_root": "/home/somebody/my images",
                "json_dir": "/home/somebody/data json",
                "hold_out_scenes": ["Animal", "Plant: tall"],
            },
            "training": {
                "output_dir": "/home/somebody/runs/koniq",
                "loss_type": "scale_shift",
                "scene_sampling": 2,
                "learning_rate": 1e-5,
                "lr_ratio": 1.0,
                "ema_decay": 0.99,
                "per_device_train_batch_size": 64,
                "eval_views": "nine",
                "hub_token": "hf_SecretSecretSecret",
            },
            "experiment": {"name": "koniq"},
        },
    }
    return record | changes


def make_run(folder: Path, **changes: Any) -> Path:
    """Put a record, scores, resumption states and other things of the machine beside a checkpoint."""
    record = make_record(**changes)
    (folder / "results.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text("training: {hub_token: hf_SecretSecretSecret}\n")
    rows = [f"/home/somebody/{number}.png,{40 + number},{20 + 3 * number},Animal" for number in range(12)]
    (folder / "scores_koniq10k_held_out.csv").write_text("image,prediction,target,scene\n" + "\n".join(rows) + "\n")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", ".env"):
        (folder / name).write_text("hf_SecretSecretSecret /home/somebody")
    (folder / "checkpoint-4").mkdir()
    for name in ("optimizer.pt", "model.safetensors", "config.json", "training_weights.safetensors"):
        (folder / "checkpoint-4" / name).write_text("hf_SecretSecretSecret")
    (folder / "runs").mkdir()
    (folder / "runs" / "events.out").write_text("/home/somebody")
    return folder
