"""What a reader of a dataset is: where its label files are, and how a row of them becomes a labelled image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sind_hf.data.manifests.manifest import ScoreInfo


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image as the label files of its dataset describe it.

    Attributes:
        image: Path relative to the image root; where the image is missing, where it should be.
        score: Raw score on the scale of the dataset; NaN where the label file holds no number.
        scene: Scene, where the label files say it.
        domain_id: Scene or distortion id, see the catalog.
        reference: File name of the pristine image that it was made from.
        distortion: Name of the distortion.
        scenes: Scenes to choose from, where the label files leave a choice.
    """

    image: str
    score: float
    scene: str | None = None
    domain_id: int | None = None
    reference: str | None = None
    distortion: str | None = None
    scenes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """All images of a dataset, in the order of its label files.

    Attributes:
        images: The images, present or not.
        domain_names: Name of each `domain_id`, where the label files and not the catalog define them.
        score: What the score is, where an option chose another one than the catalog's.
        dataset: Dataset name, where it is not the reader's.
        source: Where the labels come from, where it is not the names of the label files.
        left_out: (place, reason) of what is in the label files and cannot be read as an image with a score.
        notes: What the user should know.
    """

    images: Sequence[LabelledImage]
    domain_names: dict[int, str] | None = None
    score: ScoreInfo | None = None
    dataset: str | None = None
    source: str | None = None
    left_out: Sequence[tuple[str, str]] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """How one dataset is read.

    Attributes:
        name: Dataset name in the catalog.
        folders: Names that the dataset's folder goes by; the published manifests' first.
        labels: Spellings of every label file below that folder, by a short key.
        read: Makes the `Labels`; called with the download and the options.
        options: Names of the options that `read` takes.
        without_label: What an image gets that has scenes to choose from, but no scene label was supplied for it:
            a seeded choice, or none.
    """

    name: str
    folders: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    read: Callable[..., Labels]
    options: tuple[str, ...] = field(default=())
    without_label: Literal["choice", "none"] = "none"


def alphabetical_ids(names: Sequence[str], base: int) -> dict[str, int]:
    """Number the distinct names in alphabetical order from `base` on."""
    return {name: base + index for index, name in enumerate(sorted(set(names)))}
