"""What alignment is worth on human opinions: the four studies trained on together, with five losses.

The backbone keeps its ImageNet weights and its features are computed once, so that a training is one of SIND's linear
head alone and hundreds of them take minutes. All losses get the same start, batches and number of steps; only what is
done to labels and scores within a domain differs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from backbone import MEAN, STD, features, load_backbone
from studies import STUDIES, Study
from torch import Tensor, nn
from views import Views

from sind_hf.experiments.bootstrap import bootstrap_mean
from sind_hf.files import write_json
from sind_hf.losses import by_scene
from sind_hf.metrics import srcc
from training import FOLDS, fold_of, keep_memory

_DRAWN = 1  # views per image at random places, besides the centered ones; both are trained on
_STEPS, _RATE, _DECAY = 300, 1e-3, 0.05
_GROUPS, _IMAGES = 4, 8  # groups in the batch of a study, images of a group
_SEEDS = 3
_LEFT_OUT = ", left out"  # ends the name of a test on a whole study

Labels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """What a training does to the opinions of a study.

    Attributes:
        loss: Name of a loss of `sind_hf.losses.LOSSES`.
        labels: `standardized` (mean 0 and deviation 1 in each study), `mapped` (each study's range to 1–5), or `raw`.
        domain: What is aligned on its own: a `study`, or a `group` (scene or generator) of it.
    """

    loss: str
    labels: str
    domain: str


RECIPES = {
    "l1, standardized by study": Recipe("l1", "standardized", "study"),
    "l1, ranges mapped to 1–5": Recipe("l1", "mapped", "study"),
    "plcc by study": Recipe("plcc", "raw", "study"),
    "scale_shift by study": Recipe("scale_shift", "raw", "study"),
    "scale_shift by scene": Recipe("scale_shift", "raw", "group"),
}


@dataclass(frozen=True)
class Rated:
    """A study as features and opinions.

    Attributes:
        centered: Features of the centered views, (n, 2C).
        drawn: Features to train on: of the centered views and of views at random places, (n, k, 2C).
        opinions: Mean opinion scores, (n,), higher is better.
        groups: Scene, generator or image, (n,).
        styles: Style of the prompt, (n,); empty where a study has none.
    """

    centered: Tensor
    drawn: Tensor
    opinions: Labels
    groups: npt.NDArray[np.str_]
    styles: npt.NDArray[np.str_]


def alignment_study(studies: Path, data: Path, output: Path) -> dict[str, Any]:
    """Train with every recipe, and test on scenes, generators and styles that the training did not see.

    Args:
        studies: Folder of the four studies.
        data: Folder with their views.
        output: Folder for the features and for `alignment.json`.

    Returns:
        For each recipe the mean SRCC of each test, its bootstrap interval over folds, and SRCC under annotator bias.
    """
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rated = {name: _load(studies, data / "studies" / name, output / f"{name}.pt") for name in STUDIES}
    rows = {name: _measured(rated, recipe, 0.0) for name, recipe in RECIPES.items()}
    found: dict[str, Any] = {"tests": rows}
    found["bias"] = {
        name: {str(strength): _measured(rated, recipe, strength, STUDIES[:2]) for strength in (1.0, 2.0)}
        for name, recipe in RECIPES.items()
    }
    write_json(output / "alignment.json", found)
    return found


def _measured(
    rated: Mapping[str, Rated], recipe: Recipe, strength: float, tests: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the mean SRCC over folds and seeds of each test, with the values of the folds and an interval."""
    values: dict[str, dict[str, list[float]]] = {}
    for fold, held_out in _folds(rated, whole=not tests):
        for seed in range(_SEEDS):
            head = _train(rated, held_out, recipe, seed, strength)
            for test, score in _scored(head, rated, held_out):
                if not tests or test in tests:
                    values.setdefault(test, {}).setdefault(fold, []).append(score)
    rows = {}
    for test, folds in values.items():
        means = {fold: float(np.mean(scores)) for fold, scores in folds.items()}
        interval = bootstrap_mean(list(means.values()))
        rows[test] = {"srcc": float(np.mean(list(means.values()))), "interval": interval, "folds": means}
    return rows


def _folds(
    rated: Mapping[str, Rated], whole: bool
) -> Iterator[tuple[str, dict[str, tuple[str, npt.NDArray[np.bool_]]]]]:
    """Yield the name of each fold and, by study, the name of its test and the images that are held out.

    Args:
        rated: The studies.
        whole: Whether to hold out styles and whole studies as well.
    """
    agiqa = rated["agiqa3k"]
    generators = np.unique(agiqa.groups)
    for fold in range(max(FOLDS, len(generators))):
        held_out = {}
        for name in STUDIES[:3]:
            members = np.array([fold_of(group) == fold for group in rated[name].groups])
            if members.any():
                held_out[name] = name, members
        if fold < len(generators):
            held_out["agiqa3k"] = "unseen generator", agiqa.groups == generators[fold]
        yield str(fold), held_out
    if whole:
        for style in np.unique(agiqa.styles[agiqa.styles != ""]):
            yield str(style), {"agiqa3k": ("unseen style", agiqa.styles == style)}
        for name, study in rated.items():
            yield f"without {name}", {name: (name + _LEFT_OUT, np.ones(len(study.opinions), bool))}


def _scored(
    head: nn.Linear, rated: Mapping[str, Rated], held_out: Mapping[str, tuple[str, npt.NDArray[np.bool_]]]
) -> Iterator[tuple[str, float]]:
    for name, (test, members) in held_out.items():
        with torch.no_grad():
            scores = head(rated[name].centered[torch.from_numpy(members)])[:, 0].double().numpy()
        yield test, srcc(scores, rated[name].opinions[members])


def _train(
    rated: Mapping[str, Rated],
    held_out: Mapping[str, tuple[str, npt.NDArray[np.bool_]]],
    recipe: Recipe,
    seed: int,
    strength: float,
) -> nn.Linear:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    seen = {name: np.flatnonzero(~held_out[name][1]) if name in held_out else np.arange(len(study.opinions))
            for name, study in rated.items()}  # fmt: skip
    labels = {name: _labels(rated[name], seen[name], recipe, strength, seed) for name in rated if len(seen[name])}
    head = nn.Linear(rated["agiqa3k"].centered.shape[1], 1)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, 3.0 if recipe.labels == "mapped" else 0.0)  # the middle of the labels
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        losses = []
        for name, study in rated.items():
            if not len(seen[name]):
                continue
            chosen, groups = _batch(study, seen[name], rng)
            views = study.drawn[chosen, torch.from_numpy(rng.integers(0, study.drawn.shape[1], len(chosen)))]
            ids = torch.tensor(groups) if recipe.domain == "group" and len(set(groups)) < len(groups) else None
            losses.append(by_scene(head(views)[:, 0], torch.tensor(labels[name][chosen]), ids, recipe.loss))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        schedule.step()
    return head


def _batch(study: Rated, seen: npt.NDArray[np.intp], rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Draw images of a few groups, and the number of each one's group; where groups are images, draw images."""
    names = np.unique(study.groups[seen])
    if len(names) == len(seen):
        chosen = rng.choice(seen, _GROUPS * _IMAGES, replace=False).tolist()
        return chosen, list(range(len(chosen)))
    chosen, groups = [], []
    for number, name in enumerate(rng.choice(names, min(_GROUPS, len(names)), replace=False)):
        members = seen[study.groups[seen] == name]
        drawn = rng.choice(members, min(_IMAGES, len(members)), replace=False).tolist()
        chosen += drawn
        groups += [number] * len(drawn)
    return chosen, groups


def _labels(study: Rated, seen: npt.NDArray[np.intp], recipe: Recipe, strength: float, seed: int) -> Labels:
    opinions = with_annotator_bias(study.opinions, study.groups, strength, seed)
    if recipe.labels == "standardized":
        return (opinions - opinions[seen].mean()) / opinions[seen].std()
    if recipe.labels == "mapped":
        low, high = opinions[seen].min(), opinions[seen].max()
        return 1 + 4 * (opinions - low) / (high - low)
    return opinions


def with_annotator_bias(opinions: Labels, groups: npt.NDArray[np.str_], strength: float, seed: int = 0) -> Labels:
    """Return opinions as if other people, with another habit, had rated each scene.

    With m the median opinion of a scene and σ the standard deviation of all, an opinion y becomes
    `m + exp(strength·u)·(y - m) + strength·σ·v`; u is uniform in [-1, 1] and v standard normal, drawn once per scene.
    The order within a scene stays. Where every image is its own group, nothing changes.

    Args:
        opinions: Mean opinion scores, (n,).
        groups: Scene of each, (n,).
        strength: 0 changes nothing; 1 moves scenes against each other by as much as images differ.
        seed: Seed of u and v, which are the same for every strength.
    """
    names = np.unique(groups)
    biased, rng = opinions.copy(), np.random.default_rng(seed)
    for name in names if len(names) < len(groups) else ():
        u, v = rng.uniform(-1, 1), rng.standard_normal()
        members = groups == name
        median = np.median(opinions[members])
        biased[members] = median + np.exp(strength * u) * (opinions[members] - median) + strength * opinions.std() * v
    return biased


def _load(studies: Path, views: Path, file: Path) -> Rated:
    study = Study(views)
    styles = np.full(len(study), "", dtype=object)
    if (table := studies / views.name / "AGIQA-3K" / "data.csv").is_file():
        with table.open(newline="", encoding="utf-8") as lines:
            style_of = {row["name"]: row.get("style", "") for row in csv.DictReader(lines)}
        styles = np.array([style_of[Path(image).name] for image in study.images])
    if not file.is_file():
        torch.save(_features(study), file)
    centered, drawn = torch.load(file, weights_only=True)
    return Rated(centered, drawn, study.labels, study.groups, styles)


@torch.inference_mode()
def _features(views: Views, batch_size: int = 16) -> tuple[Tensor, Tensor]:
    """Return mean cells of the global and the local view: of centered views, and of some at random places."""
    keep_memory()
    backbone = load_backbone().to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)

    def computed(pair: tuple[Tensor, Tensor]) -> Tensor:
        pixels = torch.cat(pair).float().div_(255).sub_(MEAN).div_(STD)
        cells = features(backbone, pixels.contiguous(memory_format=torch.channels_last))
        return torch.cat(cells.mean((2, 3)).chunk(2), 1)

    centered, drawn = [], []
    for first in range(0, len(views), batch_size):
        part = range(first, min(first + batch_size, len(views)))
        centered.append(computed(views.centered(part)))
        drawn.append(torch.stack([centered[-1], *(computed(views.drawn(part, rng)) for _ in range(_DRAWN))], 1))
    return torch.cat(centered), torch.cat(drawn)


def alignment_markdown(found: Mapping[str, Any]) -> str:
    """Return the tables of an alignment study."""
    lines: list[str] = []
    tests = list(next(iter(found["tests"].values())))
    whole = [test for test in tests if test.endswith(_LEFT_OUT)]
    for group in ([test for test in tests if test not in whole], whole):
        if group:
            lines += ["| trained with | " + " | ".join(group) + " |", "| --- |" + " ---: |" * len(group)]
            for name, row in found["tests"].items():
                lines.append(f"| {name} | " + " | ".join(_cell(row[test]) for test in group) + " |")
            lines.append("")
    studies = list(next(iter(next(iter(found["bias"].values())).values())))
    header = [f"{test}, bias {strength}" for test in studies for strength in (0, 1, 2)]
    lines += ["| trained with | " + " | ".join(header) + " |", "| --- |" + " ---: |" * len(header)]
    for name, row in found["tests"].items():
        biased = [row, *found["bias"][name].values()]
        cells = (f"{each[test]['srcc']:.3f}" for test in studies for each in biased)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['srcc']:.3f}" + (f" ({low:.2f}–{high:.2f})" if low < high else "")
