"""From a folder of photographs to a small checkpoint that scores pictures of any scene, in steps that can be resumed.

recipe = Recipe(photographs=Path("photos"), study=Path("study"), output=Path("runs/bundled"))
prepare_data(recipe, …)       # distorted crops with their scores, made and resized once
pretrain("pretrain", config, recipe)  # without opinions; then the other TRAININGS, each on from those before it
learn_opinions(recipe)        # of a study
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import PartialState
from transformers import TrainerCallback

from sind_hf.data.importing import import_manifest
from sind_hf.data.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.preparation import prepare
from sind_hf.data.splits import k_folds
from sind_hf.experiments.config import RunConfig
from sind_hf.experiments.records import RESULTS
from sind_hf.experiments.runner import run_training
from sind_hf.files import atomic_file, atomic_folder, sole_use
from sind_hf.image_processing_sind import SindImageProcessor
from sind_hf.modeling_sind import SindModel
from sind_hf.pretraining.averaging import average_checkpoints
from sind_hf.pretraining.crops import label_crops, make_crops
from sind_hf.pretraining.head import STRENGTH, Head, embed, fit_head
from sind_hf.pretraining.recipe import HELD_OUT, HELD_OUT_EVERY, IN_LADDERS, MEANS, SETS, TRAININGS, Recipe
from sind_hf.pretraining.trainer import PretrainingTrainer
from sind_hf.scoring.checkpoints import load_checkpoint

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]

STUDY = "study"
UNSEEN = "unseen_scenes.csv"
#: Sets of crops that have all kinds of distortion: the head is fitted to their scores before it sees an opinion.
CROPS = ("train", "more")
#: Weight of the ridge in that, see `fit_head`.
CROPS_STRENGTH = 3.0


@dataclass(frozen=True)
class OpinionFold:
    """Scenes that were left out, and what a head that did not see them makes of their pictures.

    Attributes:
        name: Of the fold.
        entries: Its pictures.
        scores: By the head, (n,).
        opinions: (n,), higher better.
    """

    name: str
    entries: list[ManifestEntry]
    scores: npt.NDArray[np.float64]
    opinions: npt.NDArray[np.float64]


def prepare_data(recipe: Recipe, *, view_size: int, stage: Stage, workers: int = 1) -> dict[str, str]:
    """Make, score and prepare the crops, and the pictures of the study.

    `output/` gets `crops/` with the manifests `train.json` and `held_out.json` (every tenth photograph), `more/` with
    `ladders.json` (the ladders in it, each a scene of its own) and `more.json` (the others), `whole/` with
    `whole.json` (ladders that begin with the crop as it is), `jpeg/` with `jpeg.json` (the same, of JPEG),
    `study.json`, and `prepared/` with all pictures. Beside the manifests lie the scores of fragments, in the order of
    their pictures (`train.npy`, …).

    Args:
        recipe: Where from and where to.
        view_size: Side of the views.
        workers: Processes.
        stage: Shows a stage's progress: `with stage("…") as update: update(done, total)`.

    Returns:
        Photographs that cannot be used, and why.

    Raises:
        ValueError: As `make_crops`, `import_manifest` and `prepare`.
    """
    files, output = recipe.files(), recipe.output
    output.mkdir(parents=True, exist_ok=True)
    with stage("distorting photographs") as update:
        failures = make_crops(files, output / "crops", recipe.crops, workers=workers, progress=update)
    names = [name for name in files if name not in failures]
    held_out = names[::HELD_OUT_EVERY]
    train = [name for name in names if name not in held_out]
    training_files = {name: files[name] for name in train}
    with stage("distorting them in more ways") as update:
        make_crops(training_files, output / "more", recipe.more, workers=workers, progress=update)
    with stage("distorting them from the original to the end") as update:
        make_crops(training_files, output / "whole", recipe.whole, workers=workers, progress=update)
    with stage("compressing them to the end") as update:
        make_crops(training_files, output / "jpeg", recipe.jpeg, workers=workers, progress=update)
    pictures: list[ManifestEntry] = []
    for name, (title, folder, part) in SETS.items():
        photographs = held_out if name == HELD_OUT else train
        manifest, fragments = label_crops(output / folder, photographs, among=output / "crops", part=part)
        entries = [replace(entry, image=f"{folder}/{entry.image}") for entry in manifest.entries]
        replace(manifest, dataset=title, entries=entries).save(output / f"{name}.json")
        with atomic_file(output / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, fragments)
        pictures += entries
    if recipe.study is not None:
        study = _linked_study(recipe, recipe.study)
        study.save(output / "study.json")
        pictures += study.entries
    everything = Manifest(
        "everything",
        [replace(entry, domain_id=0, scene="all") for entry in pictures],
        ScoreInfo("mixed", None),
    )
    with stage("resizing all pictures once") as update:
        prepare(everything, output, output / "prepared", view_size=view_size, workers=workers, progress=update)
    return failures


def read_study(folder: Path, score_range: tuple[float, float] | None = (1.0, 5.0)) -> Manifest:
    """Return the opinions of a study, as a manifest whose images are below its folder.

    The scene is the reference, too: no split separates the pictures of one.

    Args:
        folder: With `scores.csv` (image, mos, scene).
        score_range: Of the opinions, higher better.
    """
    score = ScoreInfo("MOS", score_range)
    found = import_manifest(folder / "scores.csv", dataset=folder.resolve().name, score=score).manifest
    return replace(found, entries=[replace(entry, reference=entry.scene) for entry in found.entries])


def _linked_study(recipe: Recipe, study: Path) -> Manifest:
    """The study as seen from the output folder, which gets a link to it: prepared pictures have one root."""
    link = recipe.output / STUDY
    if not link.exists():
        link.symlink_to(study.resolve(), target_is_directory=True)
    manifest = read_study(study, recipe.score_range)
    return replace(manifest, entries=[replace(entry, image=f"{STUDY}/{entry.image}") for entry in manifest.entries])


def pretrain(
    name: str, config: RunConfig, recipe: Recipe, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, Any]:
    """Train on distorted crops and ladders of them; goes on from the last checkpoint, or does nothing when done.

    Args:
        name: Of one of the `TRAININGS`.
        config: Of that training (`configs/bundled*.yaml`), with the recipe's `changes`.
        recipe: Whose data were prepared.
        callbacks: Of the Trainer.

    Returns:
        The record of the training, as `run_training`.

    Raises:
        ValueError: As `run_training`; or when the data are not prepared.
    """
    finished = Path(str(config.training.output_dir)) / RESULTS
    if finished.is_file():
        return json.loads(finished.read_text(encoding="utf-8"))
    if TRAININGS[name].start in MEANS:
        with PartialState().main_process_first():
            average(str(TRAININGS[name].start), recipe)
    root = recipe.output.resolve()
    fragments: dict[str, npt.NDArray[np.float32]] = {}
    ladders: list[str] = []
    for manifest in map(Path, config.data.train):
        scores = manifest.with_suffix(".npy")
        if not scores.is_file():
            raise ValueError(f"{recipe.output}: holds no prepared crops: make them first.")
        entries = Manifest.load(manifest).entries
        names = [str(root / entry.image) for entry in entries]
        fragments |= dict(zip(names, np.load(scores), strict=True))
        if manifest.stem in IN_LADDERS:
            ladders += names
    make_trainer = partial(PretrainingTrainer, fragments=fragments, ladders=ladders, order=TRAININGS[name].order)
    return run_training(config, resume=True, callbacks=callbacks, make_trainer=make_trainer)


def average(name: str, recipe: Recipe) -> Path:
    """Make one of the `MEANS`, unless it is there and newer than what it is the mean of; return its folder.

    Raises:
        ValueError: When another run is making it, or a part of it is missing.
    """
    folder, mean = recipe.output / name, MEANS[name]
    parts = [recipe.output / each for each in mean.of]
    weights = [part / "model.safetensors" for part in parts]
    with sole_use(folder):
        made = folder / "preprocessor_config.json"  # written last
        newest = max((file.stat().st_mtime_ns for file in weights if file.is_file()), default=0)
        if not made.is_file() or made.stat().st_mtime_ns < newest:
            pictures = [Manifest.load(recipe.output / f"{each}.json") for each in mean.data]
            model, processor = average_checkpoints(parts, pictures, recipe.output / "prepared")
            _save(model, processor, folder)
    return folder


def learn_opinions(recipe: Recipe, folds: int = 5, strength: float = STRENGTH) -> list[OpinionFold]:
    """Fit the head to the opinions of the study: once without each fold of scenes, then with all of them.

    What is fitted is the last of the `MEANS`, `output/averaged`, first to the scores of the crops: that is the
    checkpoint `output/refitted`, and what the opinions turn. Training asks so much of the order in ladders that it
    leaves the head worse with other crops than it could be.

    The folds tell how good the recipe is on scenes that it did not see. The last fit becomes the checkpoint
    `output/fitted`, which looks at nine pairs of views, being small, and scores on the scale of the study.

    On the way the scores of the ladders must go on falling, see `fit_head`.

    Args:
        recipe: With a study, after `pretrain`.
        folds: Of scenes.
        strength: See `fit_head`.

    Returns:
        The folds. `output/unseen_scenes.csv` keeps their scores, each by a head that did not see its scene.

    Raises:
        ValueError: When there is no such checkpoint, or its scores fall as the opinions rise.
    """
    output = recipe.output
    model, processor = load_checkpoint(str(average("averaged", recipe)), device="cpu")
    processor.views = "nine"
    crops = [Manifest.load(output / f"{name}.json") for name in CROPS]
    scored = np.concatenate([embed(model, processor, each, output / "prepared", "center") for each in crops])
    labels, spread = np.concatenate([each.oriented_scores() for each in crops]), scored.std(0)
    start = fit_head(Head.of(model), scored, labels, spread, CROPS_STRENGTH)
    start.put_into(model)
    _save(model, processor, output / "refitted")
    study = Manifest.load(output / f"{STUDY}.json")
    steps = _ladder_steps(model, processor, output)
    embeddings, opinions = embed(model, processor, study, output / "prepared"), np.array(study.oriented_scores())
    place = {entry.image: index for index, entry in enumerate(study.entries)}
    found = []
    for fold in k_folds(study, folds):
        seen, unseen = ([place[entry.image] for entry in part.entries] for part in (fold.train, fold.test))
        head = fit_head(start, embeddings[seen], opinions[seen], spread, strength, steps)
        entries = [study.entries[index] for index in unseen]
        found.append(OpinionFold(fold.name, entries, head(embeddings[unseen]), opinions[unseen]))
    _write_folds(found, output / UNSEEN)
    fit_head(start, embeddings, opinions, spread, strength, steps).put_into(model)
    model.config.score_range = list(recipe.score_range)
    _save(model, processor, output / "fitted")
    return found


def _save(model: SindModel, processor: SindImageProcessor, folder: Path) -> None:
    with atomic_folder(folder) as staged:
        model.save_pretrained(staged)
        processor.save_pretrained(staged)


def _ladder_steps(model: SindModel, processor: SindImageProcessor, output: Path) -> npt.NDArray[np.float64]:
    """(m, d): how embeddings change along the ladders, two levels of the eight at a time, in the order of labels."""
    steps = []
    for name, count in IN_LADDERS.items():
        ladders = Manifest.load(output / f"{name}.json")
        embeddings = embed(model, processor, ladders, output / "prepared", "center")
        rungs: dict[str | None, list[int]] = {}
        for index, entry in sorted(enumerate(ladders.entries), key=lambda each: -each[1].score):
            rungs.setdefault(entry.scene, []).append(index)
        steps += [embeddings[places[2:]] - embeddings[places[:-2]] for places in rungs.values()] * count
    return np.concatenate(steps)


def _write_folds(folds: Sequence[OpinionFold], path: Path) -> None:
    with atomic_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "scene", "fold", "opinion", "score"])
        for fold in folds:
            for entry, opinion, score in zip(fold.entries, fold.opinions, fold.scores, strict=True):
                writer.writerow([entry.image, entry.scene, fold.name, opinion, round(float(score), 6)])
