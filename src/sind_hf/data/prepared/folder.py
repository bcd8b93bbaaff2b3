"""Prepared data: the two pictures that views are cut from, made once and read through the page cache ever after.

Decoding an image and resizing it to the sizes of the global and the local view are costly and not random; a view is
then a random slice of each. `sind_hf.data.prepared.prepare.prepare` does the costly part once. A prepared folder holds

    shard-00000.arrow  …   one row per picture: name, both pictures as bytes, their shape (Arrow IPC streams)
    shard-00000.json   …   what the shard was made from: settings, size, time and checksum of every source file
    manifest.json          the manifest that was prepared
    index.json             written last: settings, and size and checksum of every file above

`load_prepared` opens it as an ordinary `datasets.Dataset`, memory-mapped, with the columns of `Manifest.to_dataset`
and those of the pictures; it can be selected, shuffled, split and concatenated, and goes into `ViewDataset` and
`SindTrainer` in the place of the original. Views are the same bit for bit (given the same versions of torch and
Pillow, which every shard records).

Pictures above an aspect ratio of 8:1 have no local picture of reasonable size (see `StripPicture`): for them the
upright RGB source is stored instead, and a view resizes seven strips of it.

Example:
    ```python
    prepare(manifest, "images", "prepared/koniq10k", workers=8)
    train = load_prepared("prepared/koniq10k", fold.train)
    SindTrainer(model=model, args=args, train_dataset=train, processing_class=SindImageProcessor()).train()
    ```
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Dataset, Features, Value, concatenate_datasets

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.validation import path_fault
from sind_hf.files import read_text
from sind_hf.image_processing_sind import ResizeBackend, open_regular_file

logger = logging.getLogger(__name__)

INDEX_FILE, MANIFEST_FILE = "index.json", "manifest.json"
# Raised whenever the same picture would be prepared differently: older shards are then made again.
RECIPE = 2
# The files of a prepared folder: its index may name no others, wherever it comes from.
_OWN_FILE = re.compile(rf"shard-\d+\.(arrow|json)|{re.escape(MANIFEST_FILE)}")

SHARD_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("global_picture", pa.large_binary(), nullable=False),
        pa.field("local_picture", pa.large_binary(), nullable=False),
        # Shape of local_picture; where local_is_source, that of the RGB source which stands in its place.
        pa.field("local_height", pa.int32(), nullable=False),
        pa.field("local_width", pa.int32(), nullable=False),
        pa.field("local_is_source", pa.bool_(), nullable=False),
    ]
)


class Settings(NamedTuple):
    """Everything besides the source that a prepared picture depends on."""

    view_size: int
    resize_backend: ResizeBackend
    recipe: int = RECIPE


class SourceFile(NamedTuple):
    """One picture as it was found when it was prepared.

    Attributes:
        image: Path as in the manifest.
        size: Bytes of the file; None when there was none.
        mtime_ns: Time of its last modification.
        sha256: Checksum of its content, so that a copy with a new time is no change.
        failure: Why it could not be prepared; None when it was.
    """

    image: str
    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None
    failure: str | None = None

    def is_unchanged(self, image_root: Path) -> bool:
        """Whether the file still is what it was."""
        path = image_root / self.image
        try:
            state = path.stat()
            if state.st_size != self.size or not path.is_file():  # a pipe or a device would never end
                return False
            return state.st_mtime_ns == self.mtime_ns or file_sha256(path) == self.sha256
        except OSError:
            return self.size is None


class ShardRecord(NamedTuple):
    """What is known about a finished shard: the content of its JSON file.

    Attributes:
        file: Name of the Arrow file.
        settings: What it was made with.
        versions: Of the packages that made it.
        sources: Its pictures, those that failed included, in the order of the manifest.
        bytes: Size of the Arrow file.
        sha256: Checksum of the Arrow file.
    """

    file: str
    settings: Settings
    versions: dict[str, str]
    sources: list[SourceFile]
    bytes: int
    sha256: str

    @property
    def rows(self) -> int:
        """Number of pictures in the Arrow file."""
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
            OSError: When it cannot be read.
            ValueError: When it is damaged, or of another version of this package.
        """
        try:
            values = json.loads(read_text(path))
            settings = Settings(**values.pop("settings"))
            sources = [SourceFile(*source) for source in values.pop("sources")]
            if not _OWN_FILE.fullmatch(values["file"]) or any(path_fault("image", each.image) for each in sources):
                raise ValueError("it names files outside its folders")
            return cls(settings=settings, sources=sources, **values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: this record of a shard is damaged; run prepare again.") from error


class PreparedFolder:
    """A finished folder of prepared pictures.

    Args:
        path: The folder, as `prepare` wrote it.

    Attributes:
        settings: What the pictures were made with.
        image_root: Where the source files were.
        manifest: The manifest that was prepared, pictures that failed included.
        shards: The records of its shards.

    Raises:
        ValueError: When it is no such folder, is not finished, or a part of it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._index = json.loads(read_text(self.path / INDEX_FILE))
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
    def failures(self) -> dict[str, str]:
        """The pictures of the manifest that could not be prepared, with the reason."""
        sources = (source for shard in self.shards for source in shard.sources)
        return {source.image: source.failure for source in sources if source.failure is not None}

    def damaged(self, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Compare every file with its checksum.

        Args:
            progress: Called with (files done, files in all).

        Returns:
            Names of the files that are not what was written; empty when all is well. `prepare(…, verify=True)` makes
            damaged shards again.
        """
        files: dict[str, str] = self._index["files"]
        bad = []
        for done, (name, checksum) in enumerate(files.items(), start=1):
            if file_sha256(self.path / name) != checksum:
                bad.append(name)
            if progress is not None:
                progress(done, len(files))
        return bad

    def stale(self, image_root: str | os.PathLike[str] | None = None) -> list[str]:
        """Compare the source files with what they were when they were prepared.

        Args:
            image_root: Where they are now; default: where they were.

        Returns:
            Images that were changed, removed or, if they were missing, added since.
        """
        root = self.image_root if image_root is None else Path(image_root)
        sources = (source for shard in self.shards for source in shard.sources)
        return [source.image for source in sources if not source.is_unchanged(root)]

    def dataset(self, manifest: Manifest | None = None) -> Dataset:
        """Open the pictures, see `load_prepared`."""
        # Turned before anything is left out: without a declared range the zero depends on all scores.
        whole = (self.manifest if manifest is None else manifest).oriented()
        failed = self.failures
        manifest = whole.filter(lambda entry: entry.image not in failed)
        if len(manifest) < len(whole):
            logger.warning(
                "%s: %d pictures could not be prepared and are left out", self.path, len(whole) - len(manifest)
            )
        if not manifest.entries:
            raise ValueError(f"{self.path}: holds none of the pictures of {whole.dataset}.")
        pictures = concatenate_datasets(
            [Dataset.from_file(str(self.path / shard.file)) for shard in self.shards if shard.rows]
        )
        row_of = {image: row for row, image in enumerate(pictures["image"][:])}
        if unknown := [entry.image for entry in manifest.entries if entry.image not in row_of]:
            raise ValueError(
                f"{self.path}: {len(unknown)} pictures of {manifest.dataset} are not in this prepared data, first "
                f"{unknown[0]}; prepare them with their own manifest."
            )
        # Tables without a selection can be joined side by side without copying pictures: so the labels are brought
        # into the order of the pictures (a picture of no entry gets the first one's), and the join is selected from.
        entry_of = {entry.image: index for index, entry in enumerate(manifest.entries)}
        labels = self._labels(manifest, list(row_of), [entry_of.get(image, 0) for image in row_of])
        joined = concatenate_datasets([labels, pictures.remove_columns("image")], axis=1)
        rows = [row_of[entry.image] for entry in manifest.entries]
        return joined if rows == list(range(len(joined))) else joined.select(rows)

    def _labels(self, manifest: Manifest, images: list[str], order: list[int]) -> Dataset:
        """Everything about the pictures that can change without preparing them again."""
        labels = manifest.to_dataset(self.path)  # only the folder is looked up: the source files need not be there
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
    """Whether a folder holds prepared pictures (and not, say, the pictures themselves)."""
    return (Path(folder) / INDEX_FILE).is_file() and (Path(folder) / MANIFEST_FILE).is_file()


def load_prepared(
    folder: str | os.PathLike[str], manifest: Manifest | None = None, *, check_sources: bool = True
) -> Dataset:
    """Open prepared pictures as a dataset that goes wherever `Manifest.to_dataset` does.

    Args:
        folder: As `prepare` wrote it.
        manifest: Which of the pictures, in which order and with which scores and scenes, such as one side of a split;
            default: all, as prepared.
        check_sources: Whether to look, where the source files are still there, if any was changed since.

    Returns:
        A memory-mapped dataset: the columns of `Manifest.to_dataset` (with `image` as a path, not decoded), the
        pictures, and their settings. Pictures that could not be prepared are left out, with a warning.

    Raises:
        ValueError: When the folder is not finished or not whole, lacks pictures of the manifest, or a source changed.
    """
    prepared = PreparedFolder(folder)
    if check_sources and prepared.image_root.is_dir() and (stale := prepared.stale()):
        raise ValueError(
            f"{prepared.path}: {len(stale)} pictures under {prepared.image_root} were changed since they were "
            f"prepared, first {stale[0]}; run prepare again, or pass check_sources=False."
        )
    return prepared.dataset(manifest)


def open_dataset(manifest: Manifest, image_root: str | os.PathLike[str]) -> Dataset:
    """Open the pictures of a manifest from the folder that holds them, prepared or not."""
    return load_prepared(image_root, manifest) if is_prepared(image_root) else manifest.to_dataset(image_root)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file, as `sha256sum` prints it."""
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
