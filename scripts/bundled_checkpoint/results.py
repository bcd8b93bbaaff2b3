"""Figures of the recipe and of the checkpoint, and their tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration import FILES
from crops import Crops
from ladders import LadderResult, score_ladders
from studies import STUDIES, Study

from sind_hf import SindImageProcessor, SindModel, load
from sind_hf.data.synthetic import packaged_photographs
from sind_hf.distributed import keep_freed_memory
from sind_hf.files import write_json
from sind_hf.metrics import srcc
from training import TrainingSettings, fold_of, held_out, load_trained

_FOLD = {"fold": 0, "generators": ("glide", "DALLE2"), "steps": 600}
_FROM_IMAGENET = {
    "start": None,
    "crops_only": 0.0,
    "within_generators": 0.5,
    "studies": {"video_codec_mos": 0.2, "blur_jpeg_acr": 0.15, "underwater_mos": 0.25, "agiqa3k": 0.4},
}
#: What each test changes in the settings of the training. `longer` continues `fold`; `longest` continues `longer`.
TESTS: dict[str, dict[str, Any]] = {
    "fold": {**_FOLD, **_FROM_IMAGENET},
    "l1": {**_FOLD, **_FROM_IMAGENET, "loss": "l1"},
    "longer": {**_FOLD, "start": "test_fold", "steps": 300},
    "longest": {
        **_FOLD,
        "start": "test_longer",
        "steps": 1500,
        "crops_only": 0.2,
        "studies": {"video_codec_mos": 0.12, "blur_jpeg_acr": 0.13, "underwater_mos": 0.2, "agiqa3k": 0.55},
    },
    **{f"without_{name}": {**_FROM_IMAGENET, "without": name, "steps": 150} for name in STUDIES},
}
KINDS = (
    *("gaussian_blur", "lens_blur", "motion_blur", "downscaling", "white_noise", "high_iso_noise"),
    *("jpeg", "webp", "avif", "jpeg2000"),
)
_MOST_CROPS = 1000
#: Photographs of scikit-image; its textures and images of instruments have no quality that anybody would rate.
PHOTOGRAPHS = ("astronaut", "camera", "cat", "coffee", "motorcycle", "rocket")


def held_out_figures(settings: TrainingSettings, data: Path, training: Path) -> dict[str, Any]:
    """Return SRCC on all that a training did not see, and write it beside the training.

    AGIQA-3K also gets the mean of SRCC within each generator, which tells more than SRCC over all of them.
    """
    network = load_trained(training)
    found: dict[str, Any] = {}
    for name in STUDIES:
        study = Study(data / "studies" / name)
        members = np.flatnonzero(held_out(study.groups.tolist(), name, settings))
        if not len(members):
            continue
        scores = network.score(study, members.tolist())
        opinions, groups = study.labels[members], study.groups[members]
        found[name] = {"images": len(members), "srcc": srcc(scores, opinions)}
        if name == "agiqa3k":
            each = {group: srcc(scores[groups == group], opinions[groups == group]) for group in np.unique(groups)}
            found[name] |= {"within": float(np.mean(list(each.values()))), "generators": each}
    if settings.fold is not None:
        crops = Crops(data / "crops")
        members = np.flatnonzero([fold_of(name) == settings.fold for name in crops.photographs])[:_MOST_CROPS]
        scores = network.score(crops, members.tolist())
        found["crops"] = {"images": len(members), "srcc": srcc(scores, crops.labels[members])}
    write_json(training / "figures.json", found)
    return found


def measure_checkpoint(folder: Path) -> dict[str, Any]:
    """Return ladders of photographs that no training saw, plain and on white, and size and time of a checkpoint."""
    model, processor = SindModel.from_pretrained(folder).eval(), SindImageProcessor.from_pretrained(folder)
    packaged = packaged_photographs()
    photographs = {name: packaged[name] for name in PHOTOGRAPHS}
    ladders = [
        asdict(result)
        for bordered in (False, True)
        for result in score_ladders(model, processor, photographs, KINDS, bordered=bordered)
    ]
    return {"ladders": ladders, "cost": measure_cost(folder, list(photographs.values()))}


def measure_cost(folder: Path, images: list[Path]) -> dict[str, float]:
    """Return bytes on disk, seconds to load, and seconds per image with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        keep_freed_memory()  # as `sind-hf score` does
        started = time.perf_counter()
        model = load(str(folder), device="cpu")
        loaded = time.perf_counter()
        model.score(str(images[0]))  # the first image takes longer than the others
        warm = time.perf_counter()
        model.score([str(path) for path in images], batch_size=1)
        scored = time.perf_counter()
    finally:
        torch.set_num_threads(threads)
    size = sum((folder / name).stat().st_size for name in FILES)
    return {"bytes": size, "load_seconds": loaded - started, "image_seconds": (scored - warm) / len(images)}


def results_markdown(found: Mapping[str, Any]) -> str:
    """Return figures as Markdown tables."""
    lines: list[str] = []
    sets = {name: row for name, row in found.items() if name in (*STUDIES, "crops")}
    if sets:
        lines += ["| held out | images | SRCC |", "| --- | ---: | ---: |"]
        for name, row in sets.items():
            within = f" ({row['within']:.3f} within generators)" if "within" in row else ""
            lines.append(f"| {name} | {row['images']} | {row['srcc']:.3f}{within} |")
    if "ladders" in found:
        lines += ["| ladder | photographs | falls at every step | of all steps | mean score, level 0 to 5 |"]
        lines += ["| --- | ---: | ---: | ---: | --- |"]
        for result in (LadderResult(**values) for values in found["ladders"]):
            name = f"{result.kind}, on white" if result.bordered else result.kind
            scores = " ".join(f"{score:.2f}" for score in result.scores)
            lines.append(f"| {name} | {result.ladders} | {result.monotone:.0%} | {result.steps:.1%} | {scores} |")
    if "cost" in found:
        cost = found["cost"]
        lines += [
            "",
            f"{cost['bytes'] / 1e6:.1f} MB; loaded in {cost['load_seconds']:.2f} s; "
            f"{cost['image_seconds'] * 1e3:.0f} ms per image with one thread.",
        ]
    return "\n".join(lines)
