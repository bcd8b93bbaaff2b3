"""Facts about a trained model, read from its folder or collected by the trainer."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open

from sind_hf.bundled import bundled_checkpoint
from sind_hf.checkpoints import check_folder
from sind_hf.configuration_sind import BUNDLED
from sind_hf.run_record import read_config, read_record

BEFORE = "before_training"  # in a record: the metrics of the start checkpoint, by test set
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of BatchNorm; they are not trained
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class SetResult:
    """The result on one test set.

    Attributes:
        dataset: Name of the set.
        metrics: Values by lower-case name (`srcc`, `plcc`, …); None if a metric is not defined.
        images: Number of images; None if unknown.
        part: Part of the dataset that was tested on, in words; None if unknown.
        intervals: 95 % bootstrap intervals (low, high) over the images, by the name of the metric.
        before: Values of the start checkpoint on the same images, by name; empty if it was not tested.
    """

    dataset: str
    metrics: Mapping[str, float | None]
    images: int | None = None
    part: str | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    before: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFacts:
    """Facts for a model card. Unknown facts are None or empty, and the card says so.

    Attributes:
        config: The model's `config.json`.
        tests: Results.
        protocol: leave-one-out, cross-set, random-split, or another origin of the results.
        fold: Name of the protocol's fold.
        trained_on: Number of training images by dataset; None if unknown.
        scenes: Number of scenes in training.
        training: Options of the training by name (those of `SindTrainingArguments`), and `epochs`, `steps`,
            `processes`.
        start: Start of the training, in words.
        base_model: Hub repository of the model that training started from.
        versions: Versions of the software that trained.
        parameters: Number of values in the weights, BatchNorm statistics not counted.
        file_size: Size of the weights in bytes.
    """

    config: Mapping[str, Any]
    tests: tuple[SetResult, ...] = ()
    protocol: str | None = None
    fold: str | None = None
    trained_on: Mapping[str, int | None] = field(default_factory=dict)
    scenes: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    base_model: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = None
    file_size: int | None = None


def facts_from_folder(folder: str | os.PathLike[str]) -> ModelFacts:
    """Read what a checkpoint folder says about its model.

    Args:
        folder: Checkpoint folder with `config.json`. The record `results.json` of its run is read if it exists,
            otherwise `config.yaml`, which says how the model was to be trained.

    Raises:
        ValueError: If the folder holds no SIND checkpoint, or a file of the run cannot be read.
    """
    path = Path(folder)
    check_folder(str(path))
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if (record := read_record(path)) is not None:
        facts = _facts_of_record(config, record)
    else:
        options = read_config(path) or {}
        start, base_model = _start(options.get("model") or {})
        facts = ModelFacts(config, training=options.get("training") or {}, start=start, base_model=base_model)
    parameters, file_size = measure_weights(path)
    return replace(facts, parameters=parameters, file_size=file_size)


def measure_weights(folder: Path) -> tuple[int | None, int | None]:
    """Return the number of parameters and the size in bytes of a folder's weights; None if they cannot be read."""
    parameters = size = 0
    files = list(folder.glob("model*.safetensors"))
    try:
        for file in files:
            size += file.stat().st_size
            with safe_open(file, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118  (not a mapping)
                    if not name.endswith(_STATISTICS):
                        parameters += math.prod(weights.get_slice(name).get_shape())
    except (OSError, SafetensorError):
        return None, None
    return (parameters, size) if files else (None, None)


def _facts_of_record(config: Mapping[str, Any], record: Mapping[str, Any]) -> ModelFacts:
    groups = {name: record["config"].get(name) or {} for name in ("model", "data", "training", "experiment")}
    images, origins = record.get("test_images") or {}, record.get("sides_from") or {}
    described, before = record.get("tests") or {}, record.get(BEFORE) or {}
    tests = tuple(
        SetResult(
            name,
            dict(values),
            images.get(name),
            _part(name, record, groups["data"], origins.get(name)),
            _intervals(described.get(name)),
            dict(before.get(name) or {}),
        )
        for name, values in record["metrics"].items()
    )
    return ModelFacts(
        config,
        tests=tests,
        training=dict(groups["training"])
        | {name: record[name] for name in ("seed", "epochs", "steps", "processes") if record.get(name) is not None},
        versions=dict(record.get("versions") or {}),
        **facts_of_run(record),
    )


def _intervals(described: Mapping[str, Any] | None) -> dict[str, tuple[float, float]]:
    """Return the defined intervals that a record holds about one test set."""
    found = (described or {}).get("interval") or {}
    return {
        name: (float(bounds[0]), float(bounds[1])) for name, bounds in found.items() if bounds and None not in bounds
    }


def facts_of_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configured run knows beyond its trainer, as fields of `ModelFacts`.

    The record of the run has `config` and `train_images`; that of a fold also has `protocol` and `fold`.
    """
    start, base_model = _start(record["config"].get("model") or {})
    return {
        "protocol": record.get("protocol") or "single run",
        "fold": record.get("fold"),
        "trained_on": dict(record["train_images"]),
        "start": start,
        "base_model": base_model,
    }


def _part(name: str, record: Mapping[str, Any], data: Mapping[str, Any], origin: str | None) -> str:
    """Say which part of a dataset a test set was."""
    if "fold" not in record:
        held_out = data.get("hold_out_scenes") or []
        if name.endswith("_held_out") and held_out:
            return f"scenes held out of training: {', '.join(map(str, held_out))}"
        return "all images of its manifest"
    part = f"test side of the fold {record['fold']}"
    return f"{part} ({without_paths(origin, data)})" if origin else part


def without_paths(text: str, options: Mapping[str, Any] | None = None) -> str:
    """Replace the paths in a text by their last part, so that a card tells nothing of the machine.

    Paths among the options of the run are found in the text even when they contain spaces.
    """
    for value in _strings(options or {}):
        if "/" in value or "\\" in value:
            text = text.replace(value, _last_part(value))
    return " ".join(_last_part(word) if _is_absolute(word) else word for word in text.split())


def local_path_in(document: Any) -> str | None:
    """Return the first absolute path among the strings of a JSON document, None if there is none."""
    return next(filter(_is_absolute, _strings(document)), None)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sorted((text for item in items for text in _strings(item)), key=len, reverse=True)


def _is_absolute(word: str) -> bool:
    return os.path.isabs(word) or word.startswith("~") or PureWindowsPath(word).is_absolute()


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _start(model: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Describe what training started from; the second value is its Hub repository, or None."""
    for key, what in (("backbone", "the backbone"), ("checkpoint", "the SIND checkpoint")):
        if name := model.get(key):
            return describe_start(str(name), what)
    return ("random weights", None) if model.get("vision_config") else (None, None)


def describe_start(name: str, what: str) -> tuple[str, str | None]:
    """Describe what training started from: a Hub repository by its name, a folder by its last part.

    Args:
        name: Folder, Hub repository or `"bundled"`.
        what: Kind of the start, such as "the backbone".

    Returns:
        The words, and the Hub repository: `name` itself, or the base model that the folder's card declares.
    """
    if name in (BUNDLED, bundled_checkpoint()):
        return "the checkpoint that is bundled with sind-hf", None
    if _HUB_ID.fullmatch(name) and not Path(name).exists():
        return f"{what} {name}", name
    return f"{what} in a local folder, {_last_part(name)}", _declared_base_model(Path(name))


def _declared_base_model(folder: Path) -> str | None:
    """Return the base model that the card of a local checkpoint declares."""
    try:
        card = ModelCard((folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (OSError, ValueError):
        return None
    base = card.data.to_dict().get("base_model")
    name = base[0] if isinstance(base, list) and base else base
    return name if isinstance(name, str) and _HUB_ID.fullmatch(name) else None
