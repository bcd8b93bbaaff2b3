"""The images that the paths of a command line stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sind_hf.data.importing.hub_datasets import is_saved_dataset
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.validation import require_image_root
from sind_hf.data.prepared.folder import PreparedFolder, is_prepared, load_prepared
from sind_hf.files import read_text
from sind_hf.image_processing_sind import SindImageProcessor, image_suffixes, printable, why_not_read
from sind_hf.scoring.dataset_rows import HUB_PREFIX, PARQUET, URLS, DatasetRows
from sind_hf.scoring.images import LocatedImage, PreparedRow, Unusable, open_prepared, prepared_place

LIST_SUFFIX, MANIFEST_SUFFIX = ".txt", ".json"


@dataclass(frozen=True)
class SourceOptions:
    """Options of some kinds of sources.

    Attributes:
        image_root: Folder that the paths of a manifest or in the rows of a dataset start from and stay in; for a
            manifest also a folder of prepared images.
        subset: Configuration of a dataset; None for the only one.
        split: Split of a dataset; None for the only one.
        image_column: Image column of a dataset; None finds it by its type.
        fetch_urls: Whether to download images when the rows of a dataset hold http(s) addresses.
        follow_links: Whether a manifest may name links that lead out of the image root.
        need_files: Whether every image must be a file, which can be copied or moved.
    """

    image_root: str | os.PathLike[str] | None = None
    subset: str | None = None
    split: str | None = None
    image_column: str | None = None
    fetch_urls: bool = False
    follow_links: bool = False
    need_files: bool = False


@dataclass(frozen=True)
class Files:
    """Images whose names are all known before the first one is read.

    Attributes:
        images: Name and source of each; an image that cannot be used has an `Unusable` source.
        prepared: The prepared folder that the sources are in, and when its index was written; None for other images.
    """

    images: Sequence[tuple[str, str | PreparedRow | Unusable]]
    prepared: tuple[str, int] | None = None

    @property
    def total(self) -> int:
        """Number of images, including the unusable ones."""
        return len(self.images)

    def __iter__(self) -> Iterator[LocatedImage]:
        return (LocatedImage(name, source) for name, source in self.images)

    def require(self, processor: SindImageProcessor) -> None:
        """Check that prepared images are those that a processor would make.

        Raises:
            ValueError: If they were prepared otherwise.
        """
        if self.prepared is not None:
            try:
                open_prepared(*self.prepared).require(processor)
            except ValueError as error:
                raise ValueError(f"{self.prepared[0]}: {error}") from None


@dataclass(frozen=True)
class Sources:
    """All images of a job, in order. They can be iterated over again and again, and be sent to other processes."""

    parts: Sequence[Files | DatasetRows]

    @property
    def total(self) -> int | None:
        """Number of images; an image that is named twice counts twice. None if a dataset does not know its size."""
        totals = [part.total for part in self.parts]
        return None if None in totals else sum(total for total in totals if total is not None)

    def __iter__(self) -> Iterator[LocatedImage]:
        for part in self.parts:
            yield from part

    def require(self, processor: SindImageProcessor) -> None:
        """Check the prepared images among them, see `Files.require`."""
        for part in self.parts:
            if isinstance(part, Files):
                part.require(processor)


def open_sources(paths: Sequence[str | os.PathLike[str]], options: SourceOptions | None = None) -> Sources:
    """Find the images that paths stand for; only the descriptions of datasets are read.

    Besides what `list_images` takes, a `.json` file is a manifest; a folder that `prepare` wrote stands for its
    images; `hf://datasets/USER/NAME`, a `.parquet` file, a folder that `save_to_disk` wrote and a folder with
    Parquet files and no images are datasets, which are read row by row.

    Raises:
        ValueError: If one cannot be opened, holds no image, or needs another option.
    """
    options = options or SourceOptions()
    named = list(_expand_patterns(paths))
    parts = [_open_source(path, options) for path in named]
    has_dataset = any(isinstance(part, DatasetRows) for part in parts)
    has_manifest = any(path.lower().endswith(MANIFEST_SUFFIX) for path in named)
    if options.image_root is not None and not (has_manifest or has_dataset):
        raise ValueError("--image-root belongs to manifests (.json) and datasets: name one, or leave it out.")
    if options.need_files and has_dataset:
        raise ValueError("--copy-good and --move-bad need image files, which the rows of a dataset are not.")
    if options.follow_links and not has_manifest:
        raise ValueError("--follow-links belongs to manifests (.json): name one, or leave it out.")
    asked = {
        "--subset": options.subset,
        "--split": options.split,
        "--image-column": options.image_column,
        "--fetch-urls": options.fetch_urls,
    }
    if (given := [name for name, value in asked.items() if value]) and not has_dataset:
        raise ValueError(f"{given[0]} belongs to datasets (hf://datasets/…, .parquet): name one, or leave it out.")
    return Sources(parts)


def list_images(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield the images that paths stand for, in a stable order.

    A folder stands for all images in it and below it (by their extension, sorted by name; see `_walk` for links), a
    `.txt` file for the paths on its lines, relative to the working directory, a pattern such as `"photos/*.jpg"` for
    the files that match it, anything else for itself, whether it exists or not: scoring names what cannot be read.

    Raises:
        ValueError: If a folder holds no image, or a list cannot be read.
    """
    for path in _expand_patterns(paths):
        yield from (name for name, source in _list_one(path) if not isinstance(source, Unusable))


def unread_format(path: str) -> str | None:
    """Return the name of the format that a file's extension belongs to, if images in this format are not read."""
    fault = why_not_read(os.path.splitext(path)[1])
    return None if fault is None else fault.partition(" images ")[0]


# --- one path ----------------------------------------------------------------------------------------------------


def _expand_patterns(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """Replace patterns (`*`, `?`, `[…]`, `**` for all folders below) by what they match, as a shell does."""
    for path in [os.fspath(path) for path in paths]:
        matches = [] if _is_address(path) or os.path.lexists(path) else glob.glob(path, recursive=True)
        yield from sorted(matches) or [path]


def _is_address(path: str) -> bool:
    return path.startswith((*URLS, HUB_PREFIX))


def _open_source(path: str, options: SourceOptions) -> Files | DatasetRows:
    folder = Path(path)
    if path.lower().endswith(MANIFEST_SUFFIX) and not _is_address(path):
        return _manifest_files(path, options)
    if is_prepared(path):
        return prepared_files(path, None)
    local_dataset = path.lower().endswith(PARQUET) or is_saved_dataset(folder)
    if path.startswith(HUB_PREFIX) or (local_dataset and folder.exists()) or _holds_parquet_only(folder):
        root = None if options.image_root is None else os.fspath(require_image_root(options.image_root))
        return DatasetRows(
            path, options.subset, options.split, options.image_column, image_root=root, fetch_urls=options.fetch_urls
        ).checked()
    return Files(list(_list_one(path)))


def _list_one(named: str) -> Iterator[tuple[str, str | Unusable]]:
    """Yield name and source of the images that one path stands for; raises as `list_images`."""
    path = Path(named)
    if _is_address(named):
        yield named, named  # as it is: a Path would make one slash of two
    elif path.is_dir():
        for image, reason in _in_folder(path):
            yield image, image if reason is None else Unusable(f"{printable(image)}: {reason}")
    elif path.suffix.lower() == LIST_SUFFIX:
        yield from ((line, line) for line in _in_list(path))
    else:
        yield str(path), str(path)


def _manifest_files(path: str, options: SourceOptions) -> Files:
    manifest = Manifest.load(path, require_scores=False)
    if options.image_root is None:
        raise ValueError(f"{path}: a manifest: name the folder that its image paths start from by --image-root.")
    root = os.fspath(options.image_root)
    if is_prepared(root):
        return prepared_files(root, manifest)
    require_image_root(root)
    leads_out = _link_guard(root)
    images: list[tuple[str, str | Unusable]] = []
    for entry in manifest.entries:
        image = str(Path(root) / entry.image)  # a Path joins in such a way that nothing in a manifest is an address
        if not options.follow_links and leads_out(image):
            reason = f"is a link that leads out of {printable(root)}; add --follow-links to read it"
            images.append((image, Unusable(f"{printable(image)}: {reason}")))
        else:
            images.append((image, image))
    return Files(images)


def _link_guard(root: str) -> Callable[[str], bool]:
    """Return a function that tells whether a path below `root` leads out of it through a link."""
    inside = os.path.join(os.path.realpath(root), "")
    folders: dict[str, str] = {}  # to their real paths: images share few folders

    def leads_out(path: str) -> bool:
        folder = os.path.dirname(path)
        if folder not in folders:
            folders[folder] = os.path.join(os.path.realpath(folder), "")
        real = folders[folder]
        return not (os.path.realpath(path) if os.path.islink(path) else real).startswith(inside)

    return leads_out


def prepared_files(folder: str, manifest: Manifest | None) -> Files:
    """Find the images of a manifest in a prepared folder; without a manifest, all images in it.

    Raises:
        ValueError: If an image is not in the folder, or changed since.
    """
    prepared = PreparedFolder(folder)
    failed = prepared.failures
    wanted = prepared.manifest if manifest is None else manifest
    load_prepared(folder, wanted.filter(lambda entry: entry.image not in failed))
    whole = [entry.image for entry in prepared.manifest.entries if entry.image not in failed]
    rows = {image: row for row, image in enumerate(whole)}
    place = prepared_place(folder)
    images: list[tuple[str, PreparedRow | Unusable]] = []
    for image in (entry.image for entry in wanted.entries):
        name = os.path.join(prepared.image_root, image)
        if image in failed:
            images.append((name, Unusable(f"{name}: {failed[image]}")))
        else:
            images.append((name, PreparedRow(*place, rows[image])))
    return Files(images, place)


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


def _in_folder(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the images in a folder, and the files and folders that are passed over, with the reason."""
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
        raise ValueError(f"{folder}: no images in this folder or below it (known by extensions such as .jpg, .png).")


def _walk(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield all files below a folder in a stable order, and the folders that are not entered with the reason.

    Files of a folder come before its subfolders, each sorted by name. Links to folders are followed last, so that a
    folder goes by its own name if it has one; each is entered once. A link to a folder that holds `folder` itself
    is not followed: it may lead to the whole disk.
    """
    above = os.path.join(os.path.realpath(folder), "")
    entered: set[tuple[int, int]] = set()
    # A stack, not recursion: folders may be nested more deeply than calls may.
    waiting, links = [str(folder)], list[str]()
    while waiting or links:
        directory = waiting.pop() if waiting else links.pop(0)
        try:
            state = os.stat(directory)
            if (state.st_dev, state.st_ino) in entered:
                continue
            with os.scandir(directory) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            yield directory, f"this folder cannot be read ({error.strerror})"
            continue
        entered.add((state.st_dev, state.st_ino))
        subfolders = []
        for entry in entries:
            path = os.path.join(directory, entry.name)
            if entry.is_dir(follow_symlinks=False):
                subfolders.append(path)
            elif not (entry.is_symlink() and os.path.isdir(path)):
                yield path, None
            elif above.startswith(os.path.join(os.path.realpath(path), "")):
                yield path, "is a link to a folder that holds this one, which is not followed"
            else:
                links.append(path)
        waiting += reversed(subfolders)


def _in_list(path: Path) -> Iterator[str]:
    try:
        lines = read_text(path, "utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: cannot read this list of images ({error.strerror}).") from None
    yield from (line.strip() for line in lines if line.strip())
