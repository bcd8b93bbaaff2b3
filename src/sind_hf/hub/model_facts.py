"""What is known about a trained model: read from its folder, or put together by the trainer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from sind_hf.checkpoints import check_folder

# What `sind_hf.experiments` leaves beside a checkpoint.
RECORD = "results.json"
CONFIGURATION = "config.yaml"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class SetResult:
    """The result on one test set.

    Attributes:
        dataset: Name of the set.
        metrics: By lower-case name (`srcc`, `plcc`, …); None where a metric is not defined.
        images: Number of pictures; None where it is not known.
        part: Which part of the dataset this was, in words; None where it is not known.
    """

    dataset: str
    metrics: Mapping[str, float | None]
    images: int | None = None
    part: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What a model card can say. What is not known is None or empty, and the card says so.

    Attributes:
        config: The model's `config.json`.
        tests: Results.
        protocol: leave-one-out, cross-set, random-split, or what else the results come from.
        fold: Of the protocol.
        trained_on: Number of training pictures by dataset; None where it is not known.
        scenes: Number of scenes that training told apart.
        training: Options of the training by name (those of `SindTrainingArguments`), and `epochs`, `steps`,
            `processes`.
        start: Where training started from, in words.
        base_model: Hub repository of the backbone.
        versions: Of the software that trained.
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


def facts_from_folder(folder: str | os.PathLike[str]) -> ModelFacts:
    """Read what a checkpoint folder says about its model.

    Args:
        folder: With `config.json`; where a run left them, its record `results.json` is read, or else `config.yaml`,
            which says how it was to be trained.

    Raises:
        ValueError: When there is no SIND checkpoint, or what a run left cannot be read.
    """
    path = Path(folder)
    check_folder(str(path))
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    record = read_record(path)
    if record is not None:
        return _facts_of_record(config, record)
    options = _read_configuration(path)
    return ModelFacts(config) if options is None else _facts_of_configuration(config, options)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a run folder, None where there is none.

    Raises:
        ValueError: When it cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); repair it, or move it away for a card without.") from None
    known = isinstance(record, dict) and all(
        isinstance(record.get(key), dict) for key in ("metrics", "config", "train_images")
    )
    if not known:
        raise ValueError(f"{path}: is no record of a run; move it away for a card without one.")
    return record


def _read_configuration(folder: Path) -> dict[str, Any] | None:
    path = folder / CONFIGURATION
    if not path.is_file():
        return None
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read ({text}); repair it, or move it away for a card without.") from None
    if not isinstance(options, dict) or not all(isinstance(group, dict) for group in options.values()):
        raise ValueError(f"{path}: is no configuration of a run; move it away for a card without one.")
    return options


def _facts_of_configuration(config: Mapping[str, Any], options: Mapping[str, Any]) -> ModelFacts:
    start, base_model = _start(options.get("model") or {})
    return ModelFacts(config, training=dict(options.get("training") or {}), start=start, base_model=base_model)


def _facts_of_record(config: Mapping[str, Any], record: Mapping[str, Any]) -> ModelFacts:
    groups = {name: record["config"].get(name) or {} for name in ("model", "data", "training", "experiment")}
    images, origins = record.get("test_images") or {}, record.get("sides_from") or {}
    tests = tuple(
        SetResult(name, dict(values), images.get(name), _part(name, record, groups["data"], origins.get(name)))
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


def facts_of_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configured run knows beyond its trainer, as fields of `ModelFacts`.

    Args:
        record: With `config` and `train_images`; of a fold also with `protocol` and `fold`.
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
        return "all pictures of its manifest"
    part = f"test side of the fold {record['fold']}"
    return f"{part} ({without_paths(origin, data)})" if origin else part


def without_paths(text: str, options: Mapping[str, Any] | None = None) -> str:
    """Replace the paths in a text by their last part: those of a card are nobody's business.

    Args:
        text: Any.
        options: Values among which are paths that the text may hold, spaces and all.
    """
    for value in _strings(options or {}):
        if "/" in value or "\\" in value:
            text = text.replace(value, _last_part(value))
    return " ".join(_last_part(word) if _is_absolute(word) else word for word in text.split())


def local_path_in(document: Any) -> str | None:
    """Return the first absolute path among the strings of a JSON document, None where there is none."""
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
    """Say what training started from; with the Hub repository where it was one."""
    for key, what in (("backbone", "the backbone"), ("checkpoint", "the SIND checkpoint")):
        if name := model.get(key):
            return described_start(str(name), what)
    return ("random weights", None) if model.get("vision_config") else (None, None)


def described_start(name: str, what: str) -> tuple[str, str | None]:
    """Say what training started from: a Hub repository by its name, a folder by its last part.

    Returns:
        The words, and the Hub repository where it is one.
    """
    if _HUB_ID.fullmatch(name) and not Path(name).exists():
        return f"{what} {name}", name
    return f"{what} in a local folder, {_last_part(name)}", None
