"""The scene of an image whose label files leave a choice: several are marked (SPAQ), or none (the zero-shot sets).

Scene sampling needs exactly one scene per image. Labels that the user supplies decide. Without them SPAQ gets a seeded
choice among the marked scenes; the zero-shot sets have no scene until `sind_hf.data.scenes.labeling` adds them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sind_hf.data.readers.reader import LabelledImage

ScenePicker = Callable[[Sequence[Path], Sequence[Sequence[str]]], Sequence[str]]
"""Picks one scene for every image: (image files, scenes to choose from, one list per image) -> scenes."""

SceneLabels = Mapping[str, str] | ScenePicker
"""Scene by manifest path or by file name, or a picker such as a CLIP model."""


def choose_scenes(
    images: Sequence[LabelledImage],
    labels: SceneLabels | None,
    *,
    ids: Mapping[str, int],
    without_label: Literal["choice", "none"],
    root: Path,
    seed: int,
) -> tuple[list[LabelledImage], str]:
    """Give every image with scenes to choose from its scene and domain id.

    Args:
        images: Images that exist.
        labels: The user's scene labels, if any.
        ids: Domain id of every scene.
        without_label: What an image gets that has no label: a seeded choice, or no scene.
        root: Image root, for a picker that opens the files.
        seed: Seed of the choice. The choice depends on seed and file name only, so a part of the images or another
            order gets the same scenes.

    Returns:
        The images in the same order, and where their scenes come from, for the manifest ("" if nothing was open).

    Raises:
        ValueError: A label is not among the scenes of its image, or a picker returns another number of scenes.
    """
    open_choices = [index for index, image in enumerate(images) if len(image.scenes) > 1]
    given = _labelled([images[index] for index in open_choices], labels, root)
    supplied = dict(zip(open_choices, given, strict=True))
    some_labelled = any(scene is not None for scene in given)
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
            name = image.image.rsplit("/", 1)[-1].lower()
            scene = random.Random(f"{seed}/{name}").choice(image.scenes)
            drawn += 1
        elif scene is None and image.scenes:
            left_open += 1
            if some_labelled:  # its base id would read as that of the first scene
                image = replace(image, domain_id=None)
        chosen.append(image if scene is None else replace(image, scene=scene, domain_id=ids[scene], scenes=()))
    counts = {
        "from scene labels": sum(scene is not None for scene in given),
        f"chosen among several with seed {seed}": drawn,
        "without a scene": left_open,
    }
    if not open_choices:
        return chosen, ""
    return chosen, "scenes: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _labelled(images: Sequence[LabelledImage], labels: SceneLabels | None, root: Path) -> Sequence[str | None]:
    if labels is None or not images:
        return [None] * len(images)
    if isinstance(labels, Mapping):
        return [labels.get(image.image, labels.get(image.image.rsplit("/", 1)[-1])) for image in images]
    picked = labels([root / image.image for image in images], [image.scenes for image in images])
    if len(picked) != len(images):
        raise ValueError(f"the scene picker returned {len(picked)} scenes for {len(images)} images")
    return picked
