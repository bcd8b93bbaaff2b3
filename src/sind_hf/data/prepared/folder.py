"""Prepared data: every image decoded and resized once, in a folder that is read through the page cache.

Views are random slices of two resized versions of an image, the global and the local image. Decoding and resizing
are costly and not random, so `sind_hf.data.prepared.prepare.prepare` does them once. A prepared folder holds

    shard-00000.arrow  …   one row per image: its name, both versions as bytes, their shape (Arrow IPC streams)
    shard-00000.json   …   what the shard was made from: settings, and size, time and checksum of every source file
    manifest.json          the manifest that was prepared
    index.json             written last: settings, and size and checksum of every other file

`load_prepared` opens it as an ordinary memory-mapped `datasets.Dataset` with the columns of `Manifest.to_dataset` and
those of both versions. It can be selected, shuffled, split and joined, and replaces the original in `ViewDataset`
and `SindTrainer`. The views are equal bit for bit, given the same versions of torch and Pillow, which every shard
records.

Images with an aspect ratio above 8:1 have no local image of reasonable size (see `StripImage`). Their upright RGB
source is stored instead, and a view resizes seven strips of it.

Example:
    ```python
    prepare(manifest, "images", "prepared/koniq10k", workers=8)
    train = load_prepared("prepared/koniq10k", fold.train)
    SindTrainer(model=model, args=args, train_dataset=train, processing_class=SindImageProcessor()).train()
    ```
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sind_hf.data.manifests.document import parse_json
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.validation import path_fault
from sind_hf.files import counted, read_text
from sind_hf.image_processing_sind import ResizeBackend, open_regular_file

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

INDEX_FILE, MANIFEST_FILE = "index.json", "manifest.json"
# Raise it when the same image would be prepared differently, so that older shards are made again.
RECIPE = 2
# The only files that the index of a prepared folder may name.
_OWN_FILE = re.compile(rf"shard-\d+\.(arrow|json)|{re.escape(MANIFEST_FILE)}")


class Settings(NamedTuple):
    """Everything besides the source that a prepared image depends on."""

    view_size: int
    resize_backend: ResizeBackend
    recipe: int = RECIPE


class SourceFile(NamedTuple):
    """State of one source image when it was prepared.

    Attributes:
        image: Path as in the manifest.
        size: Size of the file in bytes; None if there was no file.
        mtime_ns: Time of the last modification.
        sha256: Checksum of the content, so that a copy with a new time is not a change.
        failure: Reason why the image could not be prepared; None if it was.
    """

    image: str
    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None
    failure: str | None = None

    def is_unchanged(self, image_root: Path) -> bool:
        """Whether the file is still the same."""
        path = image_root / self.image
        try:
            state = path.stat()
            if state.st_size != self.size or not path.is_file():  # reading a pipe or a device might never end
                return False
            return state.st_mtime_ns == self.mtime_ns or file_sha256(path) == self.sha256
        except OSError:
            return self.size is None


class ShardRecord(NamedTuple):
    """Record of a finished shard: the content of its JSON file.

    `sources` are its images, including those that failed, in the order of the manifest. `versions` are those of the
    packages that made it. `file`, `bytes` and `sha256` are name, size and checksum of the Arrow file.
    """

    file: str
    settings: Settings
    versions: dict[str, str]
    sources: list[SourceFile]
    bytes: int
    sha256: str

    @property
    def rows(self) -> int:
        """Number of images in the Arrow file."""
        return sum(source.failure is None for source in self.sources)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            **self._asdict(),
            "settings": self.settings._asdict(),
            "sources": [list(source) for source in self.sources],
        }

    @classmethod
    def from_file(cls, path: Path) -> ShardRecord:
        """Read the record of a shard.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is damaged, or from another version of this package.
        """
        try:
            values = parse_json(read_text(path))
            settings = Settings(**values.pop("settings"))
            sources = [SourceFile(*source) for source in values.pop("sources")]
            if not _OWN_FILE.fullmatch(values["file"]) or any(path_fault("image", each.image) for each in sources):
                raise ValueError("it names files outside its folders")
            return cls(settings=settings, sources=sources, **values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: this record of a shard is damaged; run prepare again.") from error


class PreparedFolder:
    """A finished folder of prepared images.

    Args:
        path: Folder that `prepare` wrote.

    Attributes:
        image_root: Folder of the source files at that time.
        manifest: The manifest that was prepared, including the images that failed.
        shards: Records of the shards.

    Raises:
        ValueError: If the folder holds no prepared data, is not finished, or lacks a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._index = parse_json(read_text(self.path / INDEX_FILE))
            self.settings = Settings(**self._index["settings"])
            self.image_root = Path(self._index["image_root"])
            files = self._index["files"]
            if foreign := [name for name in files if not _OWN_FILE.fullmatch(name)]:
                raise ValueError(f"it names {foreign[0]!r}, which is not a file of prepared data")
        except FileNotFoundError:
            state = "preparation was not finished" if any(self.path.glob("shard-*")) else "holds no prepared data"
            raise ValueError(f"{self.path}: {state} ({INDEX_FILE} is missing); run prepare on it.") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path / INDEX_FILE}: cannot be read ({error}); run prepare again.") from None
        for name in files:
            if not (self.path / name).is_file():
                raise ValueError(f"{self.path / name}: this part of the prepared data is missing; run prepare again.")
        self.manifest = Manifest.load(self.path / MANIFEST_FILE)
        records = [name for name in files if name.startswith("shard-") and name.endswith(".json")]
        self.shards = [ShardRecord.from_file(self.path / name) for name in records]
        for shard in self.shards:
            if (self.path / shard.file).stat().st_size != shard.bytes:
                raise ValueError(f"{self.path / shard.file}: this shard was cut off or written to; run prepare again.")

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def sources(self) -> list[SourceFile]:
        """The source files of all shards."""
        return [source for shard in self.shards for source in shard.sources]

    @property
    def failures(self) -> dict[str, str]:
        """The images of the manifest that could not be prepared, with the reason."""
        return {source.image: source.failure for source in self.sources if source.failure is not None}

    def damaged(self) -> list[str]:
        """Return the files whose checksum has changed. `prepare(…, verify=True)` makes damaged shards again."""
        files: dict[str, str] = self._index["files"]
        return [name for name, checksum in files.items() if file_sha256(self.path / name) != checksum]

    def stale(self) -> list[str]:
        """Return the images that were changed or removed since they were prepared, or were missing until then."""
        return [source.image for source in self.sources if not source.is_unchanged(self.image_root)]

    def dataset(self, manifest: Manifest | None = None) -> Dataset:
        """Open the images as a dataset; see `load_prepared`."""
        from datasets import Dataset, concatenate_datasets

        # Oriented before anything is left out, because without a declared range the zero depends on all scores.
        whole = (self.manifest if manifest is None else manifest).oriented()
        failed = self.failures
        manifest = whole.filter(lambda entry: entry.image not in failed)
        if left_out := len(whole) - len(manifest):
            logger.warning("%s: %d images could not be prepared and are left out", self.path, left_out)
        if not manifest.entries:
            raise ValueError(f"{self.path}: holds none of the images of {whole.dataset}.")
        shards = [Dataset.from_file(str(self.path / shard.file)) for shard in self.shards if shard.rows]
        images = concatenate_datasets(shards)
        row_of = {image: row for row, image in enumerate(images["image"][:])}
        if unknown := [entry.image for entry in manifest.entries if entry.image not in row_of]:
            raise ValueError(
                f"{self.path}: this prepared data lacks {counted(len(unknown), 'image')} of {manifest.dataset}, first "
                f"{unknown[0]}; prepare {manifest.dataset} with its own manifest."
            )
        # Tables without a selection can be joined side by side without copying images. So the labels are put in the
        # order of the images (an image without an entry gets the first one's), and rows are selected from the join.
        entry_of = {entry.image: index for index, entry in enumerate(manifest.entries)}
        labels = self._labels(manifest, list(row_of), [entry_of.get(image, 0) for image in row_of])
        joined = concatenate_datasets([labels, images.remove_columns("image")], axis=1)
        rows = [row_of[entry.image] for entry in manifest.entries]
        return joined if rows == list(range(len(joined))) else joined.select(rows)

    def _labels(self, manifest: Manifest, images: list[str], order: list[int]) -> Dataset:
        """Return the columns that can change without a new preparation."""
        from datasets import Dataset, Features, Value

        labels = manifest.to_dataset(self.path)  # it checks only that the folder exists, not the source files
        columns: dict[str, list[Any]] = {"image": [str(self.image_root / image) for image in images]}
        features = Features({"image": Value("string")})
        for name in labels.column_names:
            if name != "image":
                values = labels[name][:]
                columns[name] = [values[index] for index in order]
                features[name] = labels.features[name]
        columns["view_size"] = [self.settings.view_size] * len(images)
        columns["resize_backend"] = [self.settings.resize_backend] * len(images)
        features |= {"view_size": Value("int32"), "resize_backend": Value("string")}
        return Dataset.from_dict(columns, features=features)


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds prepared images (and not, say, the images themselves)."""
    return (Path(folder) / INDEX_FILE).is_file() and (Path(folder) / MANIFEST_FILE).is_file()


def load_prepared(
    folder: str | os.PathLike[str], manifest: Manifest | None = None, *, check_sources: bool = True
) -> Dataset:
    """Open prepared images as a dataset that can replace `Manifest.to_dataset`.

    Args:
        folder: Folder that `prepare` wrote.
        manifest: The images to open, with their order, scores and scenes, such as one side of a split. Default: all
            images, as prepared.
        check_sources: Whether to check that the source files have not changed, if their folder still exists.

    Returns:
        A memory-mapped dataset with the columns of `Manifest.to_dataset` (`image` is a path and is not decoded), the
        resized images and their settings. Images that could not be prepared are left out with a warning.

    Raises:
        ValueError: If the folder is unfinished or damaged, lacks images of the manifest, or a source file has changed.
    """
    prepared = PreparedFolder(folder)
    if check_sources and prepared.image_root.is_dir() and (stale := prepared.stale()):
        raise ValueError(
            f"{prepared.path}: {counted(len(stale), 'image')} under {prepared.image_root} changed after the "
            f"preparation, first {stale[0]}; run prepare again, or pass check_sources=False."
        )
    return prepared.dataset(manifest)


def open_dataset(manifest: Manifest, image_root: str | os.PathLike[str]) -> Dataset:
    """Open the images of a manifest from a folder of images or of prepared data."""
    return load_prepared(image_root, manifest) if is_prepared(image_root) else manifest.to_dataset(image_root)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file, as `sha256sum` prints it."""
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
