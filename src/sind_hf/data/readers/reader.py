"""The parts of a dataset reader: the names of its label files, and the labeled images that it reads from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sind_hf.data.manifests.manifest import ScoreInfo


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image as the label files of its dataset describe it.

    Attributes:
        image: Path relative to the image root. For a missing image, the path where it should be.
        score: Raw score on the scale of the dataset; NaN if the label file holds no number.
        scene: Scene, if the label files name it.
        domain_id: ID of the scene or distortion; see the catalog.
        reference: File name of the pristine image that this one was made from.
        distortion: Name of the distortion.
        scenes: Scenes to choose from, if the label files leave a choice.
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
        domain_names: Name of each `domain_id`, if the label files define them and not the catalog.
        score: Meaning of the score, if it is not the catalog's.
        dataset: Name of the dataset, if it is not the reader's.
        source: Source of the labels, if it is not the label files by name.
        left_out: (place, reason) of the rows that cannot be read as an image with a score.
        notes: Notes for the user.
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
    """The reader of one dataset.

    Attributes:
        name: Name of the dataset in the catalog.
        folders: Other names that the dataset's folder goes by, besides the catalog's.
        labels: Spellings of every label file below that folder, by a short key.
        read: Function that makes the `Labels` from the download, the catalog's facts and the options.
        options: Names of the options of `read`.
        without_label: Scene of an image that has scenes to choose from and no supplied label: a seeded choice, or
            none.
    """

    name: str
    labels: dict[str, tuple[str, ...]]
    read: Callable[..., Labels]
    folders: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default=())
    without_label: Literal["choice", "none"] = "none"


def alphabetical_ids(names: Sequence[str], base: int) -> dict[str, int]:
    """Number the distinct names in alphabetical order, starting at `base`."""
    return {name: base + index for index, name in enumerate(sorted(set(names)))}
