"""Model cards: what a repository on the Hub says about its model, written from facts alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from sind_hf.data.manifests.catalog import find
from sind_hf.files import counted, write_text
from sind_hf.hub.model_facts import ModelFacts, SetResult

CARD = "README.md"
FIGURES = "figures"
MARKER = (
    "<!-- sind-hf wrote this card and writes it anew with every push. Remove this line, and the card is yours: it is "
    "then pushed as it stands. -->"
)
TASK = "image-quality-assessment"
METRICS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "within_scene_srcc": "SRCC within scenes",
    "within_scene_plcc": "PLCC within scenes",
}
FEW_IMAGES = 30  # below this number of test images the card warns
CHANCE = (
    "With so few, chance alone can move a correlation by 0.2 or more: read these figures as a check that training "
    "worked, not as a measure of the model."
)
SMALL_SET = 100  # below this number the third decimal of a correlation says nothing
WITH_RANGE = "Scores are never clipped: very good and very bad images can lie outside the range."
WITHOUT_RANGE = "Scores are on no declared scale: compare them with each other only, not with scores of other models."
_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_TRAINING = {
    "learning_rate": "learning rate",
    "lr_ratio": "learning rate of the head over that of the backbone",
    "weight_decay": "weight decay",
    "ema_decay": "decay of the averaged weights",
    "per_device_train_batch_size": "batch size per process",
    "gradient_accumulation_steps": "batches per optimizer step",
    "processes": "processes",
    "epochs": "epochs",
    "steps": "optimizer steps",
    "seed": "seed",
}


@dataclass(frozen=True)
class Example:
    """An image that a card shows with its score."""

    path: str  # relative to the card
    score: float  # by the card's model
    credit: str | None = None  # author and license of the image


def model_card(
    facts: ModelFacts,
    repo_id: str,
    *,
    figures: Sequence[str] = (),
    example: Example | None = None,
    license: str | None = None,
    language: str | list[str] | None = None,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    title: str | None = None,
) -> ModelCard:
    """Write the card of a model.

    Args:
        facts: Facts about the model; the card says which are unknown.
        repo_id: Repository of the card, for its snippets.
        figures: Paths of figures, relative to the card.
        example: Image to show with its score.
        license: License of the weights, one of the Hub's identifiers, such as `mit`.
        language: Language for the Hub's metadata.
        tags: Further tags.
        datasets: Hub repositories of the training data. Default: the names of the training sets.
        title: Title. Default: the name of the repository.

    Returns:
        The card; `card.data.eval_results` holds each defined metric of each test set.
    """
    title = title or repo_id.split("/")[-1]
    results = evaluation_results(facts)
    data = ModelCardData(
        base_model=facts.base_model,
        datasets=list(datasets) or [name for name in facts.trained_on if is_repo_id(name)] or None,
        eval_results=results or None,
        language=language,
        library_name="transformers",
        license=license,
        metrics=[name for name in METRICS if any(_is_number(test.metrics.get(name)) for test in facts.tests)] or None,
        model_name=title if results else None,
        tags=["sind", TASK, "no-reference", "iqa", *tags],
    )
    config, limits = facts.config, _range(facts.config)
    known = [find(name) for name in facts.trained_on]
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        marker=MARKER,
        title=plain(title),
        repo_id=repo_id,
        backbone=plain((config.get("vision_config") or {}).get("model_type", "of an unknown kind")),
        size_text=_size_text(facts),
        scale=f"the scale {limits} of the training scores" if limits else "no declared scale",
        range_limit=WITH_RANGE if limits else WITHOUT_RANGE,
        view_size=config.get("view_size") or 224,
        example=example,
        example_text=None if example is None else _example_text(example, limits),
        scores=_score_rows(facts),
        protocol_text=_protocol_text(facts),
        results=_result_rows(facts.tests),
        warnings=[
            f"{plain(test.dataset)} has only {test.images} test images. {CHANCE}"
            for test in facts.tests
            if (test.images or FEW_IMAGES) < FEW_IMAGES
        ],
        has_intervals=any(test.intervals for test in facts.tests),
        has_before=any(test.before for test in facts.tests),
        figures=[(path, f"Opinion scores over predicted scores: {Path(path).stem}") for path in figures],
        training=_training_rows(facts),
        alignment_text=_alignment_text(facts),
        license_text=_license_text(license, facts),
        data_licenses=[
            f"{fact.display_name}: {plain(fact.license)} ({fact.home_page})" for fact in known if fact is not None
        ],
        versions=plain(", ".join(f"{name} {version}" for name, version in facts.versions.items())),
    )


def evaluation_results(facts: ModelFacts) -> list[EvalResult]:
    """Return the defined metrics of every test set, in the form of the Hub's model index."""
    results = []
    kinds: dict[str, int] = {}
    for test in facts.tests:
        # The Hub allows only the characters of its repository names here, and tells sets apart by them.
        kind = re.sub(r"[^\w.-]+", "-", test.dataset, flags=re.ASCII).strip("-.") or "dataset"
        kinds[kind] = kinds.get(kind, 0) + 1
        about = {
            "protocol": facts.protocol,
            "fold": facts.fold,
            "part": test.part,
            "images": test.images,
            "views": facts.training.get("eval_views"),
        }
        for name, shown in METRICS.items():
            value = test.metrics.get(name)
            if _is_number(value):
                results.append(
                    EvalResult(
                        task_type=TASK,
                        task_name="No-reference image quality assessment",
                        dataset_type=kind if kinds[kind] == 1 else f"{kind}-{kinds[kind]}",
                        dataset_name=test.dataset,
                        dataset_split="test",
                        dataset_args={key: item for key, item in about.items() if item is not None},
                        metric_type=name,
                        metric_name=shown,
                        metric_value=value,
                    )
                )
    return results


def is_ours(card: str) -> bool:
    """Say whether sind-hf wrote a card, and so may replace it: the card carries our marker."""
    return MARKER in card


def write_card(card: ModelCard, folder: str | os.PathLike[str]) -> bool:
    """Write a card as `README.md`, unless the folder has one that somebody else wrote.

    Returns:
        Whether it was written.
    """
    if has_own_card(folder):
        return False
    write_text(Path(folder) / CARD, str(card))
    return True


def has_own_card(folder: str | os.PathLike[str]) -> bool:
    """Say whether a folder has a `README.md` that sind-hf did not write."""
    path = Path(folder) / CARD
    return path.exists() and not is_ours(path.read_text(encoding="utf-8", errors="replace"))


def plain(text: object) -> str:
    """Escape text for Markdown, in one line, so that a dataset's name cannot change the layout of the card."""
    return re.sub(r"([\\|<`*\[\]])", r"\\\1", " ".join(str(text).split()))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def is_repo_id(name: str) -> bool:
    """Say whether the Hub accepts a name among the datasets of a card."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _range(config: Mapping[str, Any]) -> str | None:
    limits = config.get("score_range")
    return f"{limits[0]:g} to {limits[1]:g}" if limits else None


def _score_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    scale, shift = facts.config.get("score_scale", 1.0), facts.config.get("score_shift", 0.0)
    if (scale, shift) == (1, 0):
        calibration = "none: scores are the network's raw output"
    else:
        calibration = f"score = {scale:.6g} · raw {'+' if shift >= 0 else '-'} {abs(shift):.6g}"
    short_side = 3 * int(facts.config.get("view_size") or 224)
    both = (
        f"a resized view of the whole image, and 7×7 fragments of it after its short side became {short_side} pixels"
    )
    branches = {"patch": both, "class": both, "none": "a resized view of the whole image"}
    maps = "a 7×7 quality map per image" if facts.config.get("local_branch") == "patch" else "none"
    return [
        ("direction", "higher is better, always"),
        ("range", _range(facts.config) or "none declared"),
        ("calibration", calibration),
        ("input", branches.get(str(facts.config.get("local_branch")), "unknown")),
        ("quality maps", maps),
    ]


def _protocol_text(facts: ModelFacts) -> str:
    text = f"Protocol: {plain(facts.protocol)}" if facts.protocol else "Protocol: not on record"
    if facts.fold:
        text += f", fold {plain(facts.fold)}"
    views = {"nine": "nine pairs of views per image, averaged", "center": "one pair of center views per image"}
    if (chosen := facts.training.get("eval_views")) in views:
        text += f"; {views[chosen]}"
    return f"{text}."


def _result_rows(tests: Sequence[SetResult]) -> list[dict[str, Any]]:
    names = [name for name in METRICS if any(name in test.metrics for test in tests)]
    rows = []
    for test in tests:
        row = {
            "dataset": plain(test.dataset),
            "images": "unknown" if test.images is None else f"{test.images:,}",
            "metrics": [METRICS[name] for name in names],
            "cells": [_shown(test, name) for name in names],
            "part": plain(test.part) if test.part else None,
        }
        rows.append(row)
        if test.before:
            cells = [_shown(replace(test, metrics=test.before, intervals={}), name) for name in names]
            rows.append(row | {"dataset": f"{row['dataset']}, before training", "cells": cells, "part": None})
    return rows


def _shown(test: SetResult, name: str) -> str:
    """Return the cell of one metric, with as many decimals as the number of images supports."""
    if name not in test.metrics:
        return ""
    value = test.metrics[name]
    if value is None or not _is_number(value):
        return "not defined"
    decimals = 2 if test.images is not None and test.images < SMALL_SET else 3
    if name not in test.intervals:
        return f"{value:.{decimals}f}"
    low, high = test.intervals[name]
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def _size_text(facts: ModelFacts) -> str | None:
    if facts.parameters is None or facts.file_size is None:
        return None
    count = _in_units(facts.parameters, {"billion": 1e9, "million": 1e6}) or f"{facts.parameters:,}"
    return f"{count} parameters, {shown_size(facts.file_size)} of weights"


def shown_size(size: int) -> str:
    """Return a number of bytes as text, such as `12.3 MB`."""
    return _in_units(size, {"GB": 1e9, "MB": 1e6, "kB": 1e3}) or f"{size} bytes"


def _in_units(number: int, units: Mapping[str, float]) -> str | None:
    return next((f"{number / unit:.1f} {name}" for name, unit in units.items() if number >= unit), None)


def _example_text(example: Example, limits: str | None) -> str:
    text = f"The model gives this image **{example.score:.2f}**"
    text += f" on its scale of {limits}." if limits else "."
    return f"{text} ({plain(example.credit)})" if example.credit else text


def _training_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    options = facts.training
    if not options and not facts.trained_on:
        return []
    data = ", ".join(
        plain(name) if count is None else f"{plain(name)} ({counted(count, 'image')})"
        for name, count in facts.trained_on.items()
    )
    rows = [("training data", data or "not on record")]
    if facts.scenes is not None:
        rows.append(("scenes told apart", f"{facts.scenes:,}"))
    if facts.start:
        rows.append(("started from", plain(facts.start)))
    if loss := options.get("loss_type"):
        rows.append(("loss", f"`{plain(loss)}`"))
    if (sampling := options.get("scene_sampling")) is not None:
        text = f"{sampling} scenes per batch; the loss is computed within each" if sampling else "none"
        rows.append(("scene sampling", text))
    for name, shown in _TRAINING.items():
        value = options.get(name)
        if value is not None and (name, value) not in (("lr_ratio", 1), ("gradient_accumulation_steps", 1)):
            rows.append((shown, f"{value:g}" if isinstance(value, (int, float)) else plain(value)))
    return rows


def _alignment_text(facts: ModelFacts) -> str:
    if facts.training.get("scene_sampling") and str(facts.training.get("loss_type")).startswith("scale_shift"):
        return (
            "Training aligned the scores of every scene by scale and shift: the model learned order and distances "
            "within\n  scenes. Differences between images of different scenes are less certain."
        )
    return "Differences between images of one kind are more certain than those between kinds."


def _license_text(license: str | None, facts: ModelFacts) -> str:
    sources = "those of the training data" + (f" and of {plain(facts.base_model)}" if facts.base_model else "")
    if license is None:
        return f"No license of the weights is declared: ask before you use them, and check {sources}."
    return f"Weights: {plain(license)}. Check the licenses behind them as well: {sources}."
