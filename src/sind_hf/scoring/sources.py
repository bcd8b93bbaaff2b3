"""Which pictures a command line means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sind_hf.data.importing.hub_datasets import is_saved_dataset
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.prepared.folder import PreparedFolder, is_prepared, load_prepared
from sind_hf.files import read_text
from sind_hf.image_processing_sind import SindImageProcessor, image_suffixes, printable, why_not_read
from sind_hf.scoring.dataset_rows import HUB_PREFIX, PARQUET, DatasetRows
from sind_hf.scoring.images import Picture, PreparedRow, Unusable, prepared_pictures, prepared_place

LIST_SUFFIX, MANIFEST_SUFFIX = ".txt", ".json"


@dataclass(frozen=True)
class SourceOptions:
    """What some kinds of sources need to be told.

    Attributes:
        image_root: Folder that the paths of a manifest or in the rows of a dataset start from and stay in; for a
            manifest also a folder of prepared images.
        subset: Configuration of a dataset; None for the only one.
        split: Split of a dataset; None for the only one.
        image_column: Image column of a dataset; None finds it by its type.
        fetch_urls: Whether to download images when the rows of a dataset hold http(s) addresses.
    """

    image_root: str | os.PathLike[str] | None = None
    subset: str | None = None
    split: str | None = None
    image_column: str | None = None
    fetch_urls: bool = False


class Source(Protocol):
    """Pictures of one kind. It can be iterated over again and again, and be sent to other processes."""

    @property
    def total(self) -> int | None:
        """Number of pictures, where it is known."""

    def __iter__(self) -> Iterator[Picture]: ...


@dataclass(frozen=True)
class Files:
    """Files and addresses, named by themselves."""

    paths: Sequence[str]

    @property
    def total(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Picture]:
        return (Picture(path, path) for path in self.paths)


@dataclass(frozen=True)
class Folder:
    """The images in a folder and below it, named by their paths; what is passed over there is named, too.

    Attributes:
        entries: Path, and the reason why the image, or the folder, cannot be used; None for images to be read.
    """

    entries: Sequence[tuple[str, str | None]]

    @property
    def total(self) -> int:
        """Number of images, including what is passed over."""
        return len(self.entries)

    def __iter__(self) -> Iterator[Picture]:
        for path, reason in self.entries:
            yield Picture(path, path if reason is None else Unusable(f"{printable(path)}: {reason}"))


@dataclass(frozen=True)
class PreparedFiles:
    """Pictures of a prepared folder, named by the files that they were made from.

    Attributes:
        folder: The prepared folder.
        written: When its index was written.
        image_root: Where the original files were.
        places: Path in the manifest, and row among the prepared pictures or the reason why there is none.
    """

    folder: str
    written: int
    image_root: str
    places: Sequence[tuple[str, int | str]]

    @property
    def total(self) -> int:
        """Number of pictures."""
        return len(self.places)

    def __iter__(self) -> Iterator[Picture]:
        for image, place in self.places:
            name = os.path.join(self.image_root, image)
            if isinstance(place, str):
                yield Picture(name, Unusable(f"{name}: {place}"))
            else:
                yield Picture(name, PreparedRow(self.folder, self.written, place))


@dataclass(frozen=True)
class Sources:
    """All pictures of a job, in order."""

    parts: Sequence[Source]

    @property
    def total(self) -> int | None:
        """Number of pictures, those named twice counted twice; None where a dataset does not know."""
        totals = [part.total for part in self.parts]
        return None if None in totals else sum(total for total in totals if total is not None)

    def __iter__(self) -> Iterator[Picture]:
        for part in self.parts:
            yield from part

    def require(self, processor: SindImageProcessor) -> None:
        """Check that prepared pictures are those that a processor would make.

        Raises:
            ValueError: When they were prepared otherwise.
        """
        for part in self.parts:
            if isinstance(part, PreparedFiles):
                try:
                    prepared_pictures(part.folder, part.written).require(processor)
                except ValueError as error:
                    raise ValueError(f"{part.folder}: {error}") from None


def open_sources(paths: Sequence[str | os.PathLike[str]], options: SourceOptions | None = None) -> Sources:
    """Find the pictures that paths stand for; of datasets nothing but descriptions is read.

    Besides what `list_images` takes, a `.json` file is a manifest; a folder that `prepare` wrote stands for its
    pictures; `hf://datasets/USER/NAME`, a `.parquet` file, a folder that `save_to_disk` wrote and a folder with
    Parquet files and no pictures are datasets, which are read row by row.

    Args:
        paths: As a user names them.
        options: What manifests and datasets need besides.

    Raises:
        ValueError: When one cannot be opened, holds no picture, or needs another option.
    """
    options = options or SourceOptions()
    parts = [_open_source(str(path), options) for path in paths]
    has_dataset = any(isinstance(part, DatasetRows) for part in parts)
    has_manifest = any(str(path).lower().endswith(MANIFEST_SUFFIX) for path in paths)
    if options.image_root is not None and not (has_manifest or has_dataset):
        raise ValueError("--image-root belongs to manifests (.json) and datasets: name one, or leave it out.")
    asked = {
        "--subset": options.subset,
        "--split": options.split,
        "--image-column": options.image_column,
        "--fetch-urls": options.fetch_urls,
    }
    if (given := [name for name, value in asked.items() if value]) and not has_dataset:
        raise ValueError(f"{given[0]} belongs to datasets (hf://datasets/…, .parquet): name one, or leave it out.")
    return Sources(parts)


def _open_source(path: str, options: SourceOptions) -> Source:
    folder = Path(path)
    if path.lower().endswith(MANIFEST_SUFFIX) and not path.startswith(("http://", "https://", HUB_PREFIX)):
        return _manifest_files(path, options.image_root)
    if is_prepared(path):
        return _prepared_files(path, None)
    local_dataset = path.lower().endswith(PARQUET) or is_saved_dataset(folder)
    if path.startswith(HUB_PREFIX) or (local_dataset and folder.exists()) or _holds_parquet_only(folder):
        root = None if options.image_root is None else os.fspath(options.image_root)
        if root is not None and not os.path.isdir(root):
            raise ValueError(f"{root}: the image root is not a folder; name the folder of the images.")
        return DatasetRows(
            path,
            options.subset,
            options.split,
            options.image_column,
            image_root=root,
            fetch_urls=options.fetch_urls,
        ).checked()
    if folder.is_dir():
        return Folder(list(_in_folder(folder)))
    return Files(list(list_images([path])))


def _manifest_files(path: str, image_root: str | os.PathLike[str] | None) -> Source:
    manifest = Manifest.load(path, require_scores=False)
    if image_root is None:
        raise ValueError(f"{path}: a manifest: name the folder that its image paths start from by --image-root.")
    if is_prepared(image_root):
        return _prepared_files(os.fspath(image_root), manifest)
    if not Path(image_root).is_dir():
        raise ValueError(f"{image_root}: the image root is not a folder; name the folder of the images.")
    # A Path joins in such a way that nothing in a manifest becomes an address.
    return Files([str(Path(image_root) / entry.image) for entry in manifest.entries])


def _prepared_files(folder: str, manifest: Manifest | None) -> PreparedFiles:
    prepared = PreparedFolder(folder)
    failed = prepared.failures
    wanted = prepared.manifest if manifest is None else manifest
    load_prepared(
        folder, wanted.filter(lambda entry: entry.image not in failed)
    )  # complains of stale and unknown ones
    whole = [entry.image for entry in prepared.manifest.entries if entry.image not in failed]
    places: dict[str, int | str] = {image: row for row, image in enumerate(whole)} | failed
    place, written = prepared_place(folder)
    images = [(entry.image, places[entry.image]) for entry in wanted.entries]
    return PreparedFiles(place, written, str(prepared.image_root), images)


def _holds_parquet_only(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    found = False
    readable = image_suffixes()
    for path, reason in _walk(folder):
        suffix = os.path.splitext(path)[1].lower()
        if reason is None and suffix in readable:
            return False
        found = found or (reason is None and suffix == PARQUET)
    return found


def list_images(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield the pictures that paths stand for, in a stable order.

    A folder stands for all images in it and below it (by their extension, sorted by name; linked folders are not
    followed), a `.txt` file for the
    paths on its lines, relative to the working directory, anything else for itself, whether it exists or not:
    scoring names what cannot be read.

    Args:
        paths: Files, folders, lists and http(s) addresses.

    Raises:
        ValueError: When a folder holds no picture, or a list cannot be read.
    """
    for named in paths:
        path = Path(named)
        if str(named).startswith(("http://", "https://")):
            yield str(named)  # as it is: a Path would make one slash of two
        elif path.is_dir():
            yield from (image for image, reason in _in_folder(path) if reason is None)
        elif path.suffix.lower() == LIST_SUFFIX:
            yield from _in_list(path)
        else:
            yield str(path)


def _in_folder(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the images in a folder, and what is passed over with the reason.

    Raises:
        ValueError: When there is neither.
    """
    empty = True
    readable = image_suffixes()
    for path, reason in _walk(folder):
        suffix = os.path.splitext(path)[1].lower()
        if reason is not None or suffix in readable:
            yield path, reason
        elif (fault := why_not_read(suffix)) is not None:
            yield path, fault
        else:
            continue
        empty = False
    if empty:
        raise ValueError(f"{folder}: no pictures in this folder or below it (known by extensions such as .jpg, .png).")


def _walk(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield all files below a folder in a stable order, and the folders that are not entered with the reason.

    Files of a folder come before its subfolders, each sorted by name. A stack, not recursion: folders may be nested
    more deeply than calls may.
    """
    waiting = [str(folder)]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            yield directory, f"this folder cannot be read ({error.strerror})"
            continue
        subfolders = []
        for entry in entries:
            path = os.path.join(directory, entry.name)
            if entry.is_dir(follow_symlinks=False):
                subfolders.append(path)
            elif entry.is_symlink() and os.path.isdir(path):
                yield path, "is a link to a folder, which is not followed; name it as well to score its images"
            else:
                yield path, None
        waiting += reversed(subfolders)


def _in_list(path: Path) -> Iterator[str]:
    try:
        lines = read_text(path, "utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: cannot read this list of pictures ({error.strerror}).") from None
    yield from (line.strip() for line in lines if line.strip())
