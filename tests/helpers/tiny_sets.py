"""Data sets, backbones and configurations small enough to run whole protocols in tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel

from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.experiments.config import RunConfig, parse_config

SIDE = 64  # of the images
DISTORTIONS = ("jpeg", "blur")


def write_image(path: Path, quality: float, seed: int) -> None:
    """A ramp under noise: the less quality in [0, 1], the more noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, SIDE)[None, :, None] * np.linspace(0.5, 1, SIDE)[:, None, None]
    noise = rng.normal(0, 60 * (1 - quality), (SIDE, SIDE, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8)).save(path)


def make_set(
    root: Path | None, name: str, scenes: Sequence[int] = (), per_scene: int = 4, references: int = 0
) -> Manifest:
    """A small version of a data set of the catalog.

    Args:
        root: Where its images are written; None for none.
        name: Name in the catalog.
        scenes: Offsets of the domain ids; default: the first two.
        per_scene: Images of each scene (without references), or of each reference.
        references: Number of reference images, for sets that have them.
    """
    facts = CATALOG[name]
    low, high = facts.score_range or (0.0, 1.0)
    ids = list(facts.domains) or [facts.domain_base, facts.domain_base + 1]
    ids = [facts.domain_base + offset for offset in scenes] if scenes else ids[:2]
    rng = np.random.default_rng(facts.domain_base)
    entries = []
    count = references * per_scene if references else len(ids) * per_scene
    for index, rank in enumerate(rng.permutation(count).tolist()):
        quality = (rank + 0.5) / count
        domain = ids[index % len(ids)]
        image = f"{facts.prefix}img{index:03}.png"
        share = quality if facts.higher_is_better else 1 - quality
        entries.append(
            ManifestEntry(
                image,
                low + (high - low) * float(share),
                facts.domains.get(domain, f"scene {domain}"),
                domain,
                f"{facts.prefix}ref{index // per_scene}.png" if references else None,
            )
        )
        if root is not None:
            write_image(root / image, quality, int(rng.integers(1 << 30)))
    names = {domain: facts.domains.get(domain, f"scene {domain}") for domain in ids}
    score = ScoreInfo(facts.score_name, facts.score_range, facts.higher_is_better)
    return Manifest(name, entries, score, names, bool(references))


def write_published(path: Path, entries: Iterable[ManifestEntry]) -> None:
    """A file as it was published with the paper: no version, no name, no meaning of the scores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [
        {"image": entry.image, "score": entry.score, "scene": entry.scene, "domain_id": entry.domain_id}
        for entry in entries
    ]
    path.write_text(json.dumps({"files": files}))


def save_tiny_clip(folder: Path) -> Path:
    """A whole CLIP checkpoint of a few thousand weights; views of 56 pixels."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 16, "max_position_embeddings": 8, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 0}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)).save_pretrained(folder)
    return folder


def save_tiny_resnet(folder: Path) -> Path:
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])).save_pretrained(folder)
    return folder


def make_config(output: Path, image_root: Path, *, data: dict[str, Any], **groups: dict[str, Any]) -> RunConfig:
    """A configuration that trains in a blink; `training` and `experiment` add to it."""
    training = {
        "output_dir": str(output),
        "num_train_epochs": 2,
        "warmup_epochs": 0.5,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "scene_sampling": 2,
        "eval_views": "center",
        "use_cpu": True,
        "seed": 0,
    }
    source = {
        "model": {
            "vision_config": {
                "model_type": "resnet",
                "embedding_size": 16,
                "hidden_sizes": [16, 32],
                "depths": [1, 1],
            },
            "view_size": 56,
        }
        | groups.get("model", {}),
        "data": {"image_root": str(image_root)} | data,
        "training": training | groups.get("training", {}),
        "experiment": groups.get("experiment", {}),
    }
    return parse_config(source, "test")
