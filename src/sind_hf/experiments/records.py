"""What is kept of a run: its metrics, where they came from, and every score behind them."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import datasets
import numpy as np
import torch
import transformers
import yaml
from datasets import Dataset, Image

from sind_hf import metrics
from sind_hf.experiments.bootstrap import bootstrap_intervals
from sind_hf.files import atomic_file, open_text, read_text
from sind_hf.version import __version__

RESULTS = "results.json"
CONFIG = "config.yaml"
CORRELATIONS = ("srcc", "plcc")
# What may differ when a run is continued: where it lies, how it is watched, which part of it is done here.
_FREE = {
    ("training", "output_dir"),
    ("training", "run_name"),
    ("training", "report_to"),
    ("training", "disable_tqdm"),
    ("training", "dataloader_num_workers"),
    ("training", "per_device_eval_batch_size"),
    ("experiment", "name"),
    ("experiment", "folds"),
}


@dataclass(frozen=True)
class Scores:
    """The scores of one test set, in its order.

    Attributes:
        images: Name of each picture.
        predictions: The model's scores.
        targets: Opinion scores, higher better.
        scenes: Scene of each picture.
        references: Reference of each picture, None where the set has none.
    """

    images: list[str]
    predictions: list[float]
    targets: list[float]
    scenes: list[str]
    references: list[str | None] | None = None

    def report(self) -> dict[str, Any]:
        """See `sind_hf.metrics.report`."""
        return metrics.report(self.predictions, self.targets, scene=self.scenes, reference=self.references)


def collect_scores(dataset: Dataset, predictions: Sequence[float], image_root: str) -> Scores:
    """Put a model's scores beside the names, opinion scores and scenes of the pictures.

    Args:
        dataset: As `run_data` opens it.
        predictions: One score per row.
        image_root: What the names of the pictures are relative to.
    """
    plain = dataset.with_format(None)
    if isinstance(plain.features["image"], Image):
        plain = plain.cast_column("image", Image(decode=False))
        paths = [image["path"] for image in plain["image"]]
    else:
        paths = list(plain["image"])
    root = os.path.realpath(image_root)
    names = [os.path.relpath(path, root) if path.startswith(root + os.sep) else path for path in paths]
    scenes = plain.features["scene"].int2str(list(plain["scene"]))
    references = list(plain["reference"]) if "reference" in plain.column_names else None
    return Scores(
        [name.replace(os.sep, "/") for name in names],
        [float(value) for value in predictions],
        [float(value) for value in plain["score"]],
        list(scenes),
        references,
    )


def write_scores(path: str | os.PathLike[str], scores: Scores) -> None:
    """Write scores as CSV: image, prediction, target, scene.

    Raises:
        ValueError: When it cannot be written.
    """
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "prediction", "target", "scene"])
        rows = zip(scores.images, scores.predictions, scores.targets, scores.scenes, strict=True)
        writer.writerows([image, repr(prediction), repr(target), scene] for image, prediction, target, scene in rows)


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Read what `write_scores` wrote.

    Raises:
        ValueError: When the file is missing or is no such table.
    """
    try:
        with open_text(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return Scores(
            [row["image"] for row in rows],
            [float(row["prediction"]) for row in rows],
            [float(row["target"]) for row in rows],
            [row["scene"] for row in rows],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no table of scores ({type(error).__name__}: {error}).") from None


def describe_scores(scores: Scores) -> dict[str, Any]:
    """Return what a record holds about one test set beyond the Trainer's metrics.

    Returns:
        `by_scene` (metrics within each scene), `pair_accuracy` where there are references, and `interval`: 95 %
        bootstrap intervals over the pictures, [low, high], of `srcc`, `plcc` and their mean `srcc_plcc`.
    """
    report = scores.report()
    found = {name: report[name] for name in ("by_scene", "pair_accuracy") if name in report}
    intervals = bootstrap_intervals(scores.predictions, scores.targets)
    return found | {"interval": {name: list(bounds) for name, bounds in intervals.items()}}


def training_history(log: Sequence[Mapping[str, Any]], tests: Sequence[str]) -> dict[str, Any]:
    """Sort the Trainer's log by what it is about.

    Returns:
        `loss`: epoch, loss and learning rate along the training; `tests`: for each test set the metrics by epoch.
    """
    curve = [
        {name: entry[name] for name in ("epoch", "loss", "learning_rate") if name in entry}
        for entry in log
        if "loss" in entry
    ]
    epochs: dict[str, dict[float, dict[str, float]]] = {name: {} for name in tests}
    for entry in log:
        for name in tests:
            values = by_name(entry, f"eval_{name}_")
            if "srcc" in values:  # a later entry of an epoch is the final evaluation
                epochs[name][entry["epoch"]] = {"epoch": entry["epoch"], **_correlations(values)}
    return {
        "loss": curve,
        "tests": {name: [found[epoch] for epoch in sorted(found)] for name, found in epochs.items()},
    }


def best_epoch(history: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Return the epoch of the highest SRCC; None where there is no defined one. Chosen on the test set: no result."""
    defined = [entry for entry in history if np.isfinite(entry["srcc"])]
    return dict(max(defined, key=lambda entry: (entry["srcc"], -entry["epoch"]))) if defined else None


def by_name(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def load_records(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of all finished folds below a folder, in the order in which they were run.

    Raises:
        ValueError: When a record cannot be read.
    """
    records = []
    for path in sorted(Path(folder).rglob(RESULTS)):
        record = load_record(path)
        if "fold" in record:
            records.append(record)
    return sorted(records, key=lambda record: (record.get("position", 0), record.get("seed", 0)))


def load_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one record.

    Raises:
        ValueError: When it cannot be read.
    """
    try:
        record = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot read this record ({error}); remove it to run the fold again.") from None
    if not isinstance(record, dict) or "metrics" not in record:
        raise ValueError(f"{path}: is no record of a run; remove it to run the fold again.")
    return record


def require_same_config(path: Path, source: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to continue what was begun with another configuration.

    Args:
        path: The `config.yaml` of the folder; nothing is checked where there is none.
        source: The configuration at hand, values by group and key.

    Raises:
        ValueError: When they differ in anything that results depend on; the message names the first difference.
    """
    if not path.is_file():
        return
    try:
        found = yaml.safe_load(read_text(path))
        there = {group: dict(values or {}) for group, values in found.items()}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
        raise ValueError(f"{path}: cannot be read; choose another training.output_dir.") from None
    for group in sorted(set(source) | set(there)):
        here = source.get(group, {})
        for key in sorted(set(here) | set(there.get(group, {}))):
            old, new = there.get(group, {}).get(key), here.get(key)
            if (group, key) not in _FREE and old != new:
                raise ValueError(
                    f"{path.parent} was made with {group}.{key}={old!r}, this configuration has {new!r}: choose "
                    "another training.output_dir, or go on with the configuration of that folder."
                )


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "sind_hf": __version__,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, transformers, datasets, accelerate)},
    }


def git_revision() -> str | None:
    """Return the revision of the working directory's git repository, None outside one."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _correlations(values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[name] for name in CORRELATIONS if name in values}
