"""Building the manifest of a downloaded dataset, with a list of the missing images.

Scene sampling needs exactly one scene per image. Where the label files leave a choice, labels that the user supplies
take precedence. Without them SPAQ gets a seeded choice among the marked scenes, and the zero-shot datasets get scenes
from `sind_hf.data.scenes.labeling`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from sind_hf.data.manifests import catalog
from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.manifests.validation import Progress, image_problems, path_fault, score_fault
from sind_hf.data.readers.reader import Download, LabeledImage, Reader

FOLDER = "folder"
# The catalog is the only list of datasets: each has a module of its name here.
READERS: dict[str, Reader] = {
    name: import_module(f"sind_hf.data.readers.{name}").READER for name in (*CATALOG, FOLDER)
}

ScenePicker = Callable[[Sequence[Path], Sequence[Sequence[str]]], Sequence[str]]
"""Picks one scene for every image: (image files, scenes to choose from for each) -> scenes."""

SceneLabels = Mapping[str, str] | ScenePicker
"""Scene by manifest path or by file name, or a function that picks scenes, such as a CLIP model."""


@dataclass(frozen=True)
class BuildResult:
    """Result of a build.

    Attributes:
        manifest: The images that exist (with `verify`, that can be decoded).
        image_root: Folder that the image paths are relative to.
        missing: Paths of the images that the label files name and the disk lacks.
        unreadable: (path, reason) of existing images that cannot be used, and (row, reason) of unusable rows.
        notes: Notes for the user.
    """

    manifest: Manifest
    image_root: Path
    missing: list[str]
    unreadable: list[tuple[str, str]]
    notes: list[str]

    @property
    def complete(self) -> bool:
        """Whether every image that the label files name is in the manifest."""
        return not self.missing and not self.unreadable


def build(
    name: str,
    root: str | Path,
    *,
    verify: bool = False,
    scene_labels: SceneLabels | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    follow_links: bool = False,
    **options: Any,
) -> BuildResult:
    """Read the label files of a downloaded dataset, and look for every image that they name.

    Args:
        name: Name in `READERS`, or an alias of the catalog.
        root: The dataset's folder, or the folder that holds it. Image paths are relative to the latter.
        verify: Whether to decode every image.
        scene_labels: Scenes by image path or file name, or a function that picks them, for datasets whose label files
            leave the scene open (`spaq`, `koniq10k`, `livec`, `bid`).
        seed: Seed of the choice among several marked scenes (`spaq` without scene labels).
        progress: Called with (images done, images in all) after every image.
        follow_links: Whether symbolic links may lead out of the image root.
        **options: Options of the reader, e.g. `score="quality"` for `para` or `table="scores.csv"` for `folder`.

    Raises:
        ValueError: If the dataset or an option is unknown, a label file is missing or damaged, or no image is found.
    """
    facts = None if name == FOLDER else catalog.get(name)
    reader = READERS[name if facts is None else facts.name]
    unknown = sorted(set(options) - set(reader.options))
    if unknown:
        takes = f"its options are {', '.join(reader.options)}" if reader.options else "it takes none"
        raise ValueError(f"{reader.name}: unknown option {', '.join(unknown)}; {takes}")
    if facts is None:
        folders, home_page, domains, score = reader.folders, "", {}, ScoreInfo()
    else:
        folders, home_page = (facts.prefix.rstrip("/"), *reader.folders), facts.home_page
        domains = dict(facts.domains)
        score = ScoreInfo(facts.score_name, facts.score_range, facts.higher_is_better)
    download = Download.open(reader.name, root, folders, reader.labels, home_page)
    labels = reader.read(download, facts, **options)

    usable, missing, unreadable = _check(labels.images, download.root, verify, progress, follow_links)
    unreadable = [*labels.left_out, *unreadable]
    if not usable:
        raise ValueError(_nothing_usable(reader.name, labels.images, download.root, unreadable))
    names = domains if labels.domain_names is None else labels.domain_names
    chosen, scene_note = _choose_scenes(
        usable,
        scene_labels,
        ids={scene: domain_id for domain_id, scene in names.items()},
        without_label=reader.without_label,
        root=download.root,
        seed=seed,
    )
    if any(image.scenes for image in usable) and all(image.scene is None for image in chosen):
        names = {}  # the base ID of a dataset whose scenes are still open must not read as its first scene
    source = labels.source or download.source
    manifest = Manifest(
        dataset=labels.dataset or reader.name,
        entries=[_entry(image, names) for image in chosen],
        score=labels.score or score,
        domain_names=names,
        reference_based=any(image.reference is not None for image in labels.images),
        source=f"{source}; {scene_note}" if scene_note else source,
    )
    notes = [*labels.notes, scene_note] if scene_note else list(labels.notes)
    if scene_labels is not None and not scene_note:
        notes.append("scene labels not used: the label files leave no scene open")
    if facts is not None and facts.images not in (None, len(labels.images)):
        notes.append(f"the label files name {len(labels.images):,} images, the complete set has {facts.images:,}")
    return BuildResult(manifest, download.root, missing, unreadable, notes)


def _check(
    images: Sequence[LabeledImage], root: Path, verify: bool, progress: Progress | None, follow_links: bool
) -> tuple[list[LabeledImage], list[str], list[tuple[str, str]]]:
    """Sort the images into usable ones, missing ones, and unusable ones with the reason."""
    reasons = {index: fault for index, image in enumerate(images) if (fault := path_fault("image", image.image))}
    lookups = [index for index in range(len(images)) if index not in reasons]
    absent = set()
    for problem in image_problems([images[index].image for index in lookups], root, verify, progress, follow_links):
        if problem.entry is None:
            continue
        index = lookups[problem.entry - 1]
        reasons[index] = problem.what
        if problem.kind == "missing":
            absent.add(index)
    usable: dict[str, LabeledImage] = {}
    missing: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for index, image in enumerate(images):
        reason = reasons.get(index) or score_fault(image.score)
        if reason is None and image.image in usable:
            reason = "the label files name it twice; the first score counts"
        if index in absent:
            missing.append(image.image)
        elif reason is not None:
            unreadable.append((image.image, reason))
        else:
            usable[image.image] = image
    return list(usable.values()), missing, unreadable


def _entry(image: LabeledImage, names: Mapping[int, str]) -> ManifestEntry:
    scene = image.scene
    if scene is None and image.domain_id is not None:
        scene = names.get(image.domain_id)  # a distortion or a resolution takes the place of the scene
    return ManifestEntry(image.image, image.score, scene, image.domain_id, image.reference, image.distortion)


def _nothing_usable(
    name: str, images: Sequence[LabeledImage], root: Path, unreadable: Sequence[tuple[str, str]]
) -> str:
    if not images:
        return f"{name}: the label files below {root} name no images"
    if unreadable:
        path, reason = unreadable[0]
        return f"{name}: none of the {len(images)} images can be used; the first that exists is {path}: {reason}"
    return (
        f"{name}: none of the {len(images)} images that the label files name is in {root}; "
        f"the first should be {images[0].image}; unpack the images beside the label files"
    )


# --- scenes ------------------------------------------------------------------------------------------------------


def _choose_scenes(
    images: Sequence[LabeledImage],
    labels: SceneLabels | None,
    *,
    ids: Mapping[str, int],
    without_label: Literal["choice", "none"],
    root: Path,
    seed: int,
) -> tuple[list[LabeledImage], str]:
    """Give a scene and a domain ID to every image that has scenes to choose from.

    Also return the source of the scenes for the manifest, empty if there was no choice.
    """
    open_choices = [index for index, image in enumerate(images) if len(image.scenes) > 1]
    given = _labeled([images[index] for index in open_choices], labels, root)
    supplied = dict(zip(open_choices, given, strict=True))
    labeled = sum(scene is not None for scene in given)
    chosen, drawn, left_open = [], 0, 0
    for index, image in enumerate(images):
        scene = supplied.get(index)
        if scene is not None and scene not in image.scenes:
            raise ValueError(
                f"scene label {scene!r} of {image.image} is not one of its scenes: {', '.join(image.scenes)}"
            )
        if len(image.scenes) == 1:
            scene = image.scenes[0]
        elif scene is None and image.scenes and without_label == "choice":
            scene = seeded_choice(image.image, image.scenes, seed)
            drawn += 1
        elif scene is None and image.scenes:
            left_open += 1
            if labeled:  # the base ID would read as the ID of the first scene
                image = replace(image, domain_id=None)
        chosen.append(image if scene is None else replace(image, scene=scene, domain_id=ids[scene], scenes=()))
    counts = {
        "from scene labels": labeled,
        f"chosen among several with seed {seed}": drawn,
        "without a scene": left_open,
    }
    if not open_choices:
        return chosen, ""
    return chosen, "scenes: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def seeded_choice(image: str, scenes: Sequence[str], seed: int) -> str:
    """Choose one of the scenes of an image. The choice depends only on the seed, the file name and the scenes."""
    name = image.rsplit("/", 1)[-1].lower()
    return random.Random(f"{seed}/{name}").choice(scenes)


def _labeled(images: Sequence[LabeledImage], labels: SceneLabels | None, root: Path) -> Sequence[str | None]:
    if labels is None or not images:
        return [None] * len(images)
    if isinstance(labels, Mapping):
        return [labels.get(image.image, labels.get(image.image.rsplit("/", 1)[-1])) for image in images]
    picked = labels([root / image.image for image in images], [image.scenes for image in images])
    if len(picked) != len(images):
        raise ValueError(f"the scene picker returned {len(picked)} scenes for {len(images)} images")
    return picked
