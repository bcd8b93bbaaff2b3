"""Parts of a run's record: scores, history and versions; and the check that a resumed run is configured the same."""

from __future__ import annotations

import csv
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
from datasets import Dataset, Image

from sind_hf import __version__, metrics
from sind_hf.experiments.bootstrap import bootstrap_intervals
from sind_hf.files import atomic_file, open_text
from sind_hf.run_record import CONFIG, RESULTS, read_config, read_record

CORRELATIONS = ("srcc", "plcc")
LOGGED = ("learning_rate", "learning_rate_backbone", "learning_rate_head", "train_srcc", "train_plcc")
# Keys that may change when a run is resumed: its folder, its logging, and the part of it that is run.
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
        images: Names.
        predictions: Scores by the model.
        targets: Opinion scores; higher is better.
        scenes: Scene of each image.
        references: Reference of each image; None if the set has no references.
    """

    images: list[str]
    predictions: list[float]
    targets: list[float]
    scenes: list[str]
    references: list[str | None] | None = None

    def report(self) -> dict[str, Any]:
        """Return the metrics of the scores, as `sind_hf.metrics.report` does."""
        return metrics.report(self.predictions, self.targets, scene=self.scenes, reference=self.references)


def collect_scores(dataset: Dataset, predictions: Sequence[float], image_root: str) -> Scores:
    """Join a model's scores with the names, opinion scores and scenes of the images.

    Args:
        dataset: Test set, as `sind_hf.data.training_sets` opens it.
        predictions: Score of each row.
        image_root: Folder that the names of the images are relative to.
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
        ValueError: If the file cannot be written.
    """
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "prediction", "target", "scene"])
        rows = zip(scores.images, scores.predictions, scores.targets, scores.scenes, strict=True)
        writer.writerows([image, repr(prediction), repr(target), scene] for image, prediction, target, scene in rows)


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Read the scores that `write_scores` wrote.

    Raises:
        ValueError: If the file is missing or is not such a table.
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
        raise ValueError(f"{path}: cannot read this table of scores ({type(error).__name__}: {error}).") from None


def describe_scores(scores: Scores) -> dict[str, Any]:
    """Return the part of a record about one test set that the Trainer's metrics lack.

    Returns:
        `by_scene` (metrics within each scene), `pair_accuracy` if there are references, and `interval`: 95 %
        bootstrap intervals over the images, [low, high], of `srcc`, `plcc` and their mean `srcc_plcc`.
    """
    report = scores.report()
    found = {name: report[name] for name in ("by_scene", "pair_accuracy") if name in report}
    intervals = bootstrap_intervals(scores.predictions, scores.targets)
    return found | {"interval": {name: list(bounds) for name, bounds in intervals.items()}}


def training_history(log: Sequence[Mapping[str, Any]], tests: Sequence[str]) -> dict[str, Any]:
    """Divide the Trainer's log into the curve of the training and the metrics of every test set.

    Args:
        log: Log of the Trainer. The evaluation before the first step is left out; see `metrics_before_training`.
        tests: Names of the test sets.

    Returns:
        `loss`: epoch, loss, learning rates and correlations along the training; `tests`: by test set, the metrics by
        epoch.
    """
    curve = [
        {name: entry[name] for name in ("epoch", "loss", *LOGGED) if name in entry} for entry in log if "loss" in entry
    ]
    epochs: dict[str, dict[float, dict[str, float]]] = {name: {} for name in tests}
    for entry in log:
        if entry.get("step") == 0:
            continue
        for name in tests:
            values = by_name(entry, f"eval_{name}_")
            if "srcc" in values:  # the final evaluation replaces an earlier one of the last epoch
                correlations = {metric: values[metric] for metric in CORRELATIONS if metric in values}
                epochs[name][entry["epoch"]] = {"epoch": entry["epoch"], **correlations}
    return {
        "loss": curve,
        "tests": {name: [found[epoch] for epoch in sorted(found)] for name, found in epochs.items()},
    }


def metrics_before_training(log: Sequence[Mapping[str, Any]], tests: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the metrics of the evaluation before the first step by test set; empty if there was none.

    `rmse` is left out: scores have no calibration during training.
    """
    start = {name: value for entry in log if entry.get("step") == 0 for name, value in entry.items()}
    found = {name: by_name(start, f"eval_{name}_") for name in tests}
    return {
        name: {metric: value for metric, value in values.items() if metric != "rmse"}
        for name, values in found.items()
        if "srcc" in values
    }


def missing_within_scenes(record: Mapping[str, Any], test: str) -> str | None:
    """Say why a test set of a record has no metrics within scenes; None if it has them."""
    if record["metrics"][test].get("within_scene_srcc") is not None:
        return None
    scenes = record["tests"][test].get("by_scene", {})
    if len(scenes) < 2:
        return "its images belong to one scene, so these figures would repeat the others"
    if all(values["n"] < 2 for values in scenes.values()):
        return f"each of its {len(scenes)} scenes has one image, and a correlation needs two"
    return f"the scores are constant within each of its {len(scenes)} scenes"


def best_epoch(history: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Return the epoch of the highest SRCC; None if no SRCC is defined. It is chosen on the test set: not a result."""
    defined = [entry for entry in history if np.isfinite(entry["srcc"])]
    return dict(max(defined, key=lambda entry: (entry["srcc"], -entry["epoch"]))) if defined else None


def by_name(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose names start with a prefix, by their names without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def load_records(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of all finished folds in a folder, in the order in which they were run.

    Raises:
        ValueError: If a record cannot be read.
    """
    found = [read_record(path.parent) for path in sorted(Path(folder).rglob(RESULTS))]
    records = [record for record in found if record is not None and "fold" in record]
    return sorted(records, key=lambda record: (record.get("position", 0), record.get("seed", 0)))


def require_same_config(folder: Path, source: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to resume a run whose folder has a `config.yaml` with another configuration than `source`.

    Raises:
        ValueError: If they differ in a value that results depend on; the message names the first difference.
    """
    earlier = read_config(folder)
    if earlier is None:
        return
    for group in sorted(set(source) | set(earlier)):
        here, there = source.get(group, {}), earlier.get(group, {})
        for key in sorted(set(here) | set(there)):
            old, new = there.get(key), here.get(key)
            if (group, key) not in _FREE and old != new:
                raise ValueError(
                    f"{folder} was made with {group}.{key}={old!r}, this configuration has {new!r}: choose another "
                    f"training.output_dir, or resume with {folder / CONFIG}."
                )


def versions() -> dict[str, str]:
    """Return the versions of the software that results depend on."""
    return {
        "sind_hf": __version__,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, transformers, datasets, accelerate)},
    }


def git_revision() -> str | None:
    """Return the revision of the git repository of the working directory; None outside a repository."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
