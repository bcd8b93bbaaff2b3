"""The parts of a dataset reader: its label files, the unpacked archive that they are in, and the labeled images.

Archives differ from mirror to mirror: `koniq10k/1024x768/x.jpg` in one, `koniq10k_1024x768/1024x768/x.jpg` in another,
or `I01_01_1.bmp` in the labels and `i01_01_1.BMP` in the folder. Names are therefore looked up without regard to case,
in the dataset's folder and one folder below it. The manifest gets the spelling on disk.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sind_hf.data.manifests.manifest import ManifestEntry, ScoreInfo


class LabelFileError(ValueError):
    """A label file of a dataset is missing or damaged."""


class DatasetNotFoundError(LabelFileError):
    """No label file of a dataset is in the folder that the user named."""


class ImageFolder:
    """Index of the files below one folder, which need not exist, so that a look-up costs no system call.

    The image root, which the paths are relative to, is the folder or one of its parents.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self._prefix = folder.relative_to(root).as_posix()
        self._paths = set(_files_below(folder))
        self._by_path: dict[str, str] = {}
        self._by_name: dict[str, str] = {}
        for path in sorted(self._paths, key=lambda path: (path.count("/"), path)):
            # Of files that differ only in case or folder the least nested one wins, and not a copy in a backup folder.
            self._by_path.setdefault(path.lower(), path)
            self._by_name.setdefault(path.rsplit("/", 1)[-1].lower(), path)

    def find(self, name: str, *, anywhere: bool = False) -> str:
        """Return the path of an image relative to the image root, as spelled on disk or, if missing, as expected.

        With `anywhere`, a file of the same name in any subfolder is accepted, for datasets with unique file names.
        """
        name = name.strip().replace("\\", "/").lstrip("/")
        path = name if name in self._paths else self._by_path.get(name.lower())
        if path is None and anywhere:
            path = self._by_name.get(name.rsplit("/", 1)[-1].lower())
        return posixpath.join(self._prefix, path or name)


class Download:
    """The folder of one dataset and its label files.

    Args:
        name: Name of the dataset, for messages.
        folder: Folder of the dataset. Its parent is the image root.
        labels: Spellings of each label file, by a short key.
        homepage: Address to get the dataset from, for messages.
        nested: Whether to look one folder below as well.
    """

    def __init__(
        self, name: str, folder: Path, labels: Mapping[str, tuple[str, ...]], homepage: str, *, nested: bool = True
    ) -> None:
        self.name, self.folder, self.root = name, folder, folder.parent
        self._spellings, self._homepage = labels, homepage
        # Some archives unpack to one more folder around the layout. The label files tell which.
        subfolders = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()) if nested else []
        self._bases = [folder, *subfolders]
        self._bases.sort(key=self._labels_in, reverse=True)
        self._used: dict[str, None] = {}

    @classmethod
    def open(
        cls, name: str, root: str | Path, folders: Iterable[str], labels: Mapping[str, tuple[str, ...]], homepage: str
    ) -> Download:
        """Find the dataset in `root`, which is its parent folder or the folder itself.

        Raises:
            LabelFileError: If `root` is not a folder.
            DatasetNotFoundError: If none of the label files is in it.
        """
        top = Path(root).expanduser().resolve()
        if not top.is_dir():
            raise LabelFileError(f"{name}: {top} is not a folder; pass the folder that holds the dataset as root")
        known = [spelling.lower() for spelling in folders]
        is_dataset = top.name.lower() in known
        inside = [folder for spelling in known if (folder := resolve_case(top, spelling)) and folder.is_dir()]
        # A folder with the dataset's name is the dataset, unless it holds another folder of the same name.
        wrapped = [folder for folder in inside if is_dataset and folder.name.lower() != top.name.lower()]
        first = [folder for folder in inside if folder not in wrapped]
        # A linked dataset folder is resolved, because a manifest refuses links that lead out of its image root.
        places = dict.fromkeys(folder.resolve() for folder in [*first, top, *wrapped])
        # Label files one folder below a parent folder may be those of another dataset.
        candidates = [cls(name, place, labels, homepage, nested=place != top or is_dataset) for place in places]
        # Some of the label files are better than none: the error then names the missing ones.
        best = max(candidates, key=cls._found)
        if labels and not best._found():
            raise DatasetNotFoundError(best._not_found(list(labels), [download.folder for download in candidates]))
        return best

    def _found(self) -> int:
        """Return the number of label files that exist."""
        return sum(self._locate(spellings) is not None for spellings in self._spellings.values())

    def label(self, key: str) -> Path:
        """Return the path of a label file (or folder of label files).

        Raises:
            LabelFileError: If it does not exist. The message names every spelling that was tried.
        """
        path = self.optional_label(key)
        if path is None:
            raise LabelFileError(self._not_found([key], [self.folder]))
        return path

    def optional_label(self, key: str) -> Path | None:
        """Return the path of a label file; None if the download has none."""
        path = self._locate(self._spellings[key])
        if path is not None:
            self._used[path.name] = None
        return path

    def images(self, *spellings: str) -> ImageFolder:
        """Index the image folder that has one of these names ("" is the dataset's folder itself)."""
        folder = self._locate(spellings, folder=True)
        return ImageFolder(folder or self.folder / spellings[0], self.root)

    @property
    def source(self) -> str:
        """The names of the label files that were read, for the manifest."""
        return ", ".join(self._used)

    def _labels_in(self, base: Path) -> int:
        """Return the number of label files below a folder."""
        return sum(any(resolve_case(base, each) for each in spellings) for spellings in self._spellings.values())

    def _locate(self, spellings: Iterable[str], *, folder: bool = False) -> Path | None:
        for spelling in spellings:
            for base in self._bases:
                path = resolve_case(base, spelling)
                if path is not None and (path.is_dir() or not folder):
                    return path
        return None

    def _not_found(self, keys: list[str], places: list[Path]) -> str:
        expected = "; ".join(" or ".join(repr(spelling) for spelling in self._spellings[key]) for key in keys)
        looked = ", ".join(str(place) for place in places)
        return (
            f"{self.name}: label file {expected} not found in {looked} or one folder below; "
            f"get the dataset from {self._homepage} and pass its folder, or the folder that holds it, as root"
        )


def resolve_case(base: Path, relative: str) -> Path | None:
    """Return the path of `relative` below `base`, found without regard to case; None if there is none."""
    path = base
    for part in Path(relative).parts:
        if not (path / part).exists():
            names = os.listdir(path) if path.is_dir() else []
            part = min((name for name in names if name.lower() == part.lower()), default="")
            if not part:
                return None
        path = path / part
    return path


def _files_below(folder: Path) -> Iterable[str]:
    visited: set[tuple[int, int]] = set()
    for current, subfolders, files in os.walk(folder, followlinks=True):
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in visited:  # links to folders are followed, but not in a circle
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        below = Path(current).relative_to(folder).as_posix()
        yield from (file if below == "." else f"{below}/{file}" for file in files)


@dataclass(frozen=True, slots=True)
class LabeledImage(ManifestEntry):
    """An image as the label files of its dataset describe it, present or not.

    Its score is NaN if the label file has no number there, and its reference is the name of a file. `scenes` are those
    to choose from, if the label files leave a choice.
    """

    scenes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """All images of a dataset, present or not, in the order of its label files.

    Attributes:
        domain_names: Name of each `domain_id`, if the label files define them and not the catalog.
        score: Meaning of the score, if it is not the catalog's.
        dataset: Name of the dataset, if it is not the reader's.
        source: Source of the labels, if it is not the label files by name.
        left_out: (place, reason) of the rows that cannot be read as an image with a score.
        notes: Notes for the user.
    """

    images: Sequence[LabeledImage]
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
        labels: Spellings of every label file below the dataset's folder, by a short key.
        read: Function that makes the `Labels` from the download, the catalog's facts and the options.
        folders: Names of the dataset's folder, besides the catalog's.
        options: Names of the options of `read`.
        without_label: Scene of an image that has scenes to choose from and no supplied label: a seeded choice, or
            none.
    """

    name: str
    labels: dict[str, tuple[str, ...]]
    read: Callable[..., Labels]
    folders: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    without_label: Literal["choice", "none"] = "none"


def alphabetical_ids(names: Sequence[str], base: int) -> dict[str, int]:
    """Number the distinct names in alphabetical order, starting at `base`."""
    return {name: base + index for index, name in enumerate(sorted(set(names)))}
