"""Model cards: what a repository on the Hub says about its model, from facts alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.manifests.catalog import get as catalog_facts
from sind_hf.files import write_text
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


def model_card(
    facts: ModelFacts,
    repo_id: str,
    *,
    figures: Sequence[str] = (),
    licence: str | None = None,
    language: str | list[str] | None = None,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    title: str | None = None,
) -> ModelCard:
    """Write the card of a model.

    Args:
        facts: What is known; what is not is named as unknown.
        repo_id: Where the card will lie, for its snippets.
        figures: Paths of figures, relative to the card.
        licence: Of the weights, one of the Hub's identifiers, such as `mit`.
        language: Metadata of the Hub.
        tags: Further tags.
        datasets: Hub repositories of the training data.
        title: Default: the name of the repository.

    Returns:
        The card; `card.data.eval_results` holds each defined metric of each test set.
    """
    title = title or repo_id.split("/")[-1]
    results = evaluation_results(facts)
    data = ModelCardData(
        base_model=facts.base_model,
        datasets=list(datasets) or None,
        eval_results=results or None,
        language=language,
        library_name="transformers",
        license=licence,
        metrics=[name for name in METRICS if any(_is_number(test.metrics.get(name)) for test in facts.tests)] or None,
        model_name=title if results else None,
        tags=["sind", TASK, "no-reference", "iqa", *tags],
    )
    config = facts.config
    known = [_catalogued(name) for name in facts.trained_on]
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        marker=MARKER,
        title=plain(title),
        repo_id=repo_id,
        backbone=plain((config.get("vision_config") or {}).get("model_type", "of an unknown kind")),
        range_text=_range_text(config),
        range_limit=_range_limit(config),
        view_size=config.get("view_size") or 224,
        scores=_score_rows(facts),
        protocol_text=_protocol_text(facts),
        results=_result_rows(facts.tests),
        figures=[(path, f"Opinion scores over predicted scores: {Path(path).stem}") for path in figures],
        training=_training_rows(facts),
        alignment_text=_alignment_text(facts),
        licence_text=_licence_text(licence, facts),
        data_licences=[
            f"{fact.display_name}: {plain(fact.licence)} ({fact.home_page})" for fact in known if fact is not None
        ],
        versions=plain(", ".join(f"{name} {version}" for name, version in facts.versions.items())),
    )


def evaluation_results(facts: ModelFacts) -> list[EvalResult]:
    """Return the defined metrics of every test set as the Hub's model index has them."""
    results = []
    kinds: dict[str, int] = {}
    for test in facts.tests:
        # The Hub takes names like those of its repositories, and tells sets apart by them.
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
    """Say whether a card may be written anew: it carries our marker."""
    return MARKER in card


def write_card(card: ModelCard, folder: str | os.PathLike[str]) -> bool:
    """Write a card as `README.md`, unless the folder has one that somebody else wrote.

    Returns:
        Whether it was written.
    """
    path = Path(folder) / CARD
    if path.exists() and not is_ours(path.read_text(encoding="utf-8", errors="replace")):
        return False
    write_text(path, str(card))
    return True


def plain(text: object) -> str:
    """Return text as Markdown shows it, in one line; whoever named a dataset does not lay out the card."""
    return re.sub(r"([\\|<`*\[\]])", r"\\\1", " ".join(str(text).split()))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _catalogued(name: str) -> DatasetFacts | None:
    try:
        return catalog_facts(name)
    except ValueError:
        return None


def _range(config: Mapping[str, Any]) -> str | None:
    limits = config.get("score_range")
    return f"{limits[0]:g} to {limits[1]:g}" if limits else None


def _range_text(config: Mapping[str, Any]) -> str:
    limits = _range(config)
    return f"scores are on the scale {limits} of the training scores" if limits else "scores are on no declared scale"


def _range_limit(config: Mapping[str, Any]) -> str:
    if _range(config):
        return "Scores are never clipped: very good and very bad pictures can lie outside the range."
    return "Scores are on no declared scale: compare them with each other, never with scores of other models."


def _score_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    scale, shift = facts.config.get("score_scale", 1.0), facts.config.get("score_shift", 0.0)
    if (scale, shift) == (1, 0):
        calibration = "none: scores are the network's raw output"
    else:
        calibration = f"score = {scale:.6g} · raw {'+' if shift >= 0 else '-'} {abs(shift):.6g}"
    branches = {
        "patch": "a resized view of the whole picture, and 7×7 fragments of it at their full resolution",
        "class": "a resized view of the whole picture, and 7×7 fragments of it at their full resolution",
        "none": "a resized view of the whole picture",
    }
    maps = "a 7×7 quality map per picture" if facts.config.get("local_branch") == "patch" else "none"
    return [
        ("direction", "higher is better, always"),
        ("range", _range(facts.config) or "none declared"),
        ("calibration", calibration),
        ("what is looked at", branches.get(str(facts.config.get("local_branch")), "unknown")),
        ("quality maps", maps),
    ]


def _protocol_text(facts: ModelFacts) -> str:
    text = f"Protocol: {plain(facts.protocol)}" if facts.protocol else "Protocol: not on record"
    if facts.fold:
        text += f", fold {plain(facts.fold)}"
    views = {"nine": "nine pairs of views per picture, averaged", "center": "one pair of center views per picture"}
    if (chosen := facts.training.get("eval_views")) in views:
        text += f"; {views[chosen]}"
    return f"{text}."


def _result_rows(tests: Sequence[SetResult]) -> list[dict[str, Any]]:
    names = [name for name in METRICS if any(name in test.metrics for test in tests)]
    return [
        {
            "dataset": plain(test.dataset),
            "images": "unknown" if test.images is None else f"{test.images:,}",
            "metrics": [METRICS[name] for name in names],
            "cells": [_shown(test.metrics[name]) if name in test.metrics else "" for name in names],
            "part": plain(test.part) if test.part else None,
        }
        for test in tests
    ]


def _shown(value: float | None) -> str:
    return f"{value:.4f}" if value is not None and _is_number(value) else "not defined"


def _training_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    options = facts.training
    if not options and not facts.trained_on:
        return []
    data = ", ".join(
        plain(name) if count is None else f"{plain(name)} ({count:,} pictures)"
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
            "within\n  scenes. Differences between pictures of different scenes are less certain."
        )
    return "Differences between pictures of one kind are more certain than those between kinds."


def _licence_text(licence: str | None, facts: ModelFacts) -> str:
    sources = "those of the training data" + (f" and of {plain(facts.base_model)}" if facts.base_model else "")
    if licence is None:
        return f"Nobody declared a licence of the weights: ask before you use them, and mind {sources}."
    return f"Weights: {plain(licence)}. Mind the licences behind them as well: {sources}."
