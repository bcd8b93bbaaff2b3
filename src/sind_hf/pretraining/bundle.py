"""The results of the recipe, and the folder that comes with the package."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sind_hf import metrics
from sind_hf.data.manifest import Manifest
from sind_hf.experiments.evaluation import evaluate_manifest
from sind_hf.files import atomic_file, write_json
from sind_hf.pretraining.ladders import LadderResult, score_ladders
from sind_hf.pretraining.recipe import HELD_OUT_EVERY, Recipe
from sind_hf.pretraining.steps import UNSEEN
from sind_hf.scoring.checkpoints import load_checkpoint

LADDERS = (
    "gaussian_blur",
    "lens_blur",
    "motion_blur",
    "downscaling",
    "white_noise",
    "high_iso_noise",
    "jpeg",
    "webp",
    "avif",
    "jpeg2000",
)
FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
CHECKPOINTS = {
    "crops": "pretrained",
    "crops and ladders": "laddered",
    "order of levels": "ordered",
    "mean of both": "middle",
    "whole ladders": "whole_ladders",
    "whole ladders again": "whole_ladders_again",
    "mean of these three": "late",
    "ladders of JPEG": "jpeg_ladders",
    "ladders of JPEG again": "jpeg_ladders_again",
    "mean of these two": "later",
    "all of it once more": "last",
    "once more, again": "last_again",
    "mean of the last two": "averaged",
    "the same, head fitted to the crops": "refitted",
    "with opinions": "fitted",
}


def measure(recipe: Recipe) -> dict[str, Any]:
    """Test the checkpoints of the recipe on what they did not see.

    Returns:
        `held_out`: by checkpoint, agreement with the full-reference indices on crops of photographs that were held
        out; `study`: of the checkpoints without opinions, on all pictures, and of the folds with opinions, where every
        picture is scored by the model that did not see its scene; `ladders`: see `score_ladders`, of the checkpoint
        with opinions on the photographs that were held out; `cost`: size in bytes, seconds to load, and seconds for
        a picture on one core.
    """
    output = recipe.output
    held_out, study = (Manifest.load(output / f"{name}.json") for name in ("held_out", "study"))
    found: dict[str, Any] = {"held_out": {}, "study": {}}
    for name, folder in CHECKPOINTS.items():
        model, processor = load_checkpoint(str(output / folder), device="cpu")
        crops = evaluate_manifest(model, processor, held_out, output / "prepared", views="center")
        found["held_out"][name] = _short(crops.report)
        if name != "with opinions":
            whole = evaluate_manifest(model, processor, study, output / "prepared", views="nine")
            found["study"][name] = _short(whole.report)
    found["study"]["with opinions, unseen scenes"] = _unseen(output / UNSEEN)
    files = list(recipe.files().items())[::HELD_OUT_EVERY]
    model, processor = load_checkpoint(str(output / "fitted"), device="cpu")
    found["ladders"] = [asdict(result) for result in score_ladders(model, processor, dict(files), LADDERS)]
    found["cost"] = _cost(output / "fitted", [path for _, path in files])
    write_json(output / "bundled_results.json", found)
    return found


def _short(report: dict[str, Any]) -> dict[str, float]:
    within = report["within_scene"]
    return {name: report[name] for name in ("srcc", "plcc", "n")} | {"within_scene_srcc": within["srcc"]}


def _unseen(path: Path) -> dict[str, float]:
    """Every picture of the study by the head that did not see its scene: all at once, and by fold."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores, opinions = ([float(row[name]) for row in rows] for name in ("score", "opinion"))
    pooled = _short(metrics.report(scores, opinions, scene=[row["scene"] for row in rows]))
    folds = [
        [index for index, row in enumerate(rows) if row["fold"] == fold] for fold in {row["fold"] for row in rows}
    ]
    by_fold = [metrics.srcc([scores[i] for i in fold], [opinions[i] for i in fold]) for fold in folds]
    return pooled | {"srcc_folds_mean": float(np.mean(by_fold)), "srcc_folds_std": float(np.std(by_fold, ddof=1))}


def _cost(folder: Path, pictures: Sequence[Path]) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.perf_counter()
        model, processor = load_checkpoint(str(folder), device="cpu")
        loaded = time.perf_counter()
        model.score([str(path) for path in pictures], processor, batch_size=1)
        scored = time.perf_counter()
    finally:
        torch.set_num_threads(threads)
    size = sum((folder / name).stat().st_size for name in FILES)
    return {"bytes": size, "load_seconds": loaded - started, "picture_seconds": (scored - loaded) / len(pictures)}


def results_markdown(found: dict[str, Any]) -> str:
    """Return the tables of `measure` as Markdown."""
    lines = ["| pictures | model | SRCC | SRCC within scenes | PLCC |", "| --- | --- | ---: | ---: | ---: |"]
    for pictures, group in (
        ("crops of photographs held out", "held_out"),
        (f"the study, {found['study']['crops']['n']} pictures", "study"),
    ):
        for name, row in found[group].items():
            shown = (row["srcc"], row["within_scene_srcc"], row["plcc"])
            lines.append(f"| {pictures} | {name} | " + " | ".join(f"{value:.3f}" for value in shown) + " |")
    lines += ["", "| ladder | photographs | falls at every step | of all steps | mean score, level 0 to 5 |"]
    lines.append("| --- | ---: | ---: | ---: | --- |")
    for row in map(lambda values: LadderResult(**values), found["ladders"]):
        scores = " ".join(f"{score:.2f}" for score in row.scores)
        lines.append(f"| {row.kind} | {row.ladders} | {row.monotone:.0%} | {row.steps:.1%} | {scores} |")
    cost = found["cost"]
    lines += [
        "",
        f"{cost['bytes'] / 1e6:.1f} MB; loaded in {cost['load_seconds']:.2f} s; "
        f"{cost['picture_seconds'] * 1e3:.0f} ms for a photograph on one core.",
    ]
    return "\n".join([*lines, ""])


def write_bundle(recipe: Recipe, folder: Path) -> list[Path]:
    """Copy the checkpoint with opinions, without what names this machine or is not needed to score.

    Args:
        recipe: That was run.
        folder: Of the package's checkpoint; its `README.md` is left alone.

    Returns:
        The files.
    """
    written = []
    for name in FILES:
        target = folder / name
        if name.endswith(".json"):
            document = json.loads((recipe.output / "fitted" / name).read_text(encoding="utf-8"))
            document.pop("_name_or_path", None)
            write_json(target, document)
        else:
            with atomic_file(target) as temporary:
                shutil.copyfile(recipe.output / "fitted" / name, temporary)
        written.append(target)
    return written
