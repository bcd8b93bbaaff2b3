"""Choice of one scene for images with several marked scenes (SPAQ) or none (the zero-shot datasets).

Scene sampling needs exactly one scene per image. Labels that the user supplies take precedence. Without them SPAQ gets
a seeded choice among the marked scenes, and the zero-shot datasets get scenes from `sind_hf.data.scenes.labeling`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sind_hf.data.readers.reader import LabeledImage

ScenePicker = Callable[[Sequence[Path], Sequence[Sequence[str]]], Sequence[str]]
"""Picks one scene for every image: (image files, scenes to choose from for each) -> scenes."""

SceneLabels = Mapping[str, str] | ScenePicker
"""Scene by manifest path or by file name, or a function that picks scenes, such as a CLIP model."""


def choose_scenes(
    images: Sequence[LabeledImage],
    labels: SceneLabels | None,
    *,
    ids: Mapping[str, int],
    without_label: Literal["choice", "none"],
    root: Path,
    seed: int,
) -> tuple[list[LabeledImage], str]:
    """Give a scene and a domain ID to every image that has scenes to choose from.

    Args:
        images: Images that exist.
        labels: Scene labels that the user supplied.
        ids: Domain ID of every scene.
        without_label: Scene of an image without a label: a seeded choice, or none.
        root: Image root, for a picker that opens the files.
        seed: Seed of the choice; see `seeded_choice`.

    Returns:
        The images in the same order, and the source of their scenes for the manifest ("" if there was no choice).

    Raises:
        ValueError: If a label is not among the scenes of its image, or a picker returns a wrong number of scenes.
    """
    open_choices = [index for index, image in enumerate(images) if len(image.scenes) > 1]
    given = _labeled([images[index] for index in open_choices], labels, root)
    supplied = dict(zip(open_choices, given, strict=True))
    some_labeled = any(scene is not None for scene in given)
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
            if some_labeled:  # the base ID would read as the ID of the first scene
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
