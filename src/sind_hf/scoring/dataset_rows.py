"""The images of a Hugging Face dataset, read row by row; it is never downloaded or kept in memory as a whole."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sind_hf.data.importing.hub_datasets import (
    check_data_files,
    check_hub_data_files,
    is_saved_dataset,
    load_saved_dataset,
    require_regular_files,
)
from sind_hf.data.manifests.validation import path_fault
from sind_hf.files import reason, shown
from sind_hf.scoring.images import HubFile, LocatedImage, Unusable

if TYPE_CHECKING:
    from datasets import IterableDataset

HUB_PREFIX = "hf://datasets/"
PARQUET = ".parquet"
URLS = ("http://", "https://")
# How `datasets` names a file in an archive of a Hub dataset that it streams.
_IN_ARCHIVE = re.compile(r"zip://(?P<member>[^:]+)::(?P<archive>hf://[^:]+)")
TEXT_OR_BYTES = ("string", "large_string", "binary", "large_binary")  # a path or address, or the encoded image


@dataclass(frozen=True)
class DatasetRows:
    """The images of one split; its rows are named `DATASET/SPLIT#ROW`, from 0.

    A row holds an encoded image, or names a file of the same dataset: by a path relative to the dataset's folder, or
    by its address on the Hub. What a row says is not trusted: no other file is read and no other address is reached,
    unless `image_root` or `fetch_urls` allows it.

    Attributes:
        address: `hf://datasets/USER/NAME[@REVISION]`, a Parquet file, a folder that `save_to_disk` wrote, or another
            folder that `load_dataset` takes.
        subset: Configuration of the dataset; None for its only one.
        split: Name of the split; None for the only one.
        column: Image column; None finds it by its type.
        total: Number of rows; None if it is not known.
        image_root: Folder that the paths in rows start from and stay in, relative or absolute; None for the folder of
            the dataset, in which only relative paths are taken.
        fetch_urls: Whether to download the images of rows that hold http(s) addresses.
    """

    address: str
    subset: str | None = None
    split: str | None = None
    column: str | None = None
    total: int | None = None
    image_root: str | None = None
    fetch_urls: bool = False

    @property
    def title(self) -> str:
        """Beginning of the names of the rows."""
        parts = [self.address.removeprefix(HUB_PREFIX), self.subset, self.split]
        return "/".join(part for part in parts if part)

    def checked(self) -> DatasetRows:
        """Open the dataset, and return a copy of this with split, column and number of rows filled in.

        Raises:
            ValueError: If it cannot be opened, or the split or the column is unknown or must be chosen.
        """
        splits = _open(self.address, self.subset)
        if self.split is None and len(splits) > 1:
            raise ValueError(f"{self.address}: has several splits: choose one with --split: {', '.join(splits)}.")
        split = next(iter(splits)) if self.split is None else self.split
        if split not in splits:
            raise ValueError(f"{self.address}: has no split {split!r}: choose one of {', '.join(splits)}.")
        dataset = splits[split]
        column = _image_column(self.address, dataset, self.column)
        known = (dataset.info.splits or {}).get(split)
        # A Parquet file or saved split has one split, whose name its owner never chose.
        named = split if self.split is not None or not split_is_made_up(self.address, splits) else None
        return replace(self, split=named, column=column, total=known.num_examples if known else None)

    def __iter__(self) -> Iterator[LocatedImage]:
        assert self.column is not None, "iterate over what checked() returns"
        splits = _open(self.address, self.subset, self.column)
        dataset = splits[self.split or next(iter(splits))].select_columns([self.column])
        number = -1
        try:
            for number, row in enumerate(dataset):
                yield self._locate(f"{self.title}#{number}", row[self.column])
        except Exception as error:  # errors of network, file system and decoders share no base class
            raise ValueError(
                f"{self.title}: cannot be read beyond row {number} ({reason(error)}): "
                "what was scored is kept; continue with --resume."
            ) from error

    def _locate(self, name: str, value: Any) -> LocatedImage:
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(content, bytes) and content:
            return LocatedImage(name, {"bytes": content, "path": name})
        if isinstance(value, dict):
            value = value.get("path")
        if not value or not isinstance(value, str):
            return LocatedImage(name, Unusable(f"{name}: holds no image"))
        try:
            return LocatedImage(name, self._file(value))
        except ValueError as error:
            return LocatedImage(name, Unusable(f"{name}: {error}"))

    def _file(self, text: str) -> str | Path | HubFile:
        """Find the file that a row names; the caller adds the name of the row to errors."""
        if text.lower().startswith(URLS):
            if self.fetch_urls:
                return text
            raise ValueError(f"names the address {shown(text)}; add --fetch-urls to download images from addresses")
        if self.address.startswith(HUB_PREFIX) and self.image_root is None:
            return self._hub_file(text)
        if "://" in text or "::" in text:
            raise ValueError(_foreign(text))
        root = Path(self.image_root or (self.address if os.path.isdir(self.address) else Path(self.address).parent))
        if self.image_root is None and (os.path.isabs(text) or path_fault("path", text)):
            raise ValueError(f"{_foreign(text)}; name the folder of its images with --image-root")
        path = (root / text).resolve()
        if not path.is_relative_to(root.resolve()):
            raise ValueError(
                f"names {shown(text)}, which is outside {root}; name the folder of its images with --image-root"
            )
        return path

    def _hub_file(self, text: str) -> HubFile:
        name, revision = _hub_name(self.address)
        member = None
        if match := _IN_ARCHIVE.fullmatch(text):
            text, member = match["archive"], match["member"]
        of_dataset = re.compile(re.escape(HUB_PREFIX + name) + r"(@[^/@]+)?/(?P<path>.+)")
        if match := of_dataset.fullmatch(text):
            place, path = text.removeprefix("hf://"), match["path"]
        else:
            place, path = f"datasets/{name}{'@' if revision else ''}{revision}/{text}", text
        if "://" in path or "::" in path or path_fault("path", path):
            raise ValueError(_foreign(text))
        return HubFile(place, member)


def _foreign(text: str) -> str:
    return f"names {shown(text)}, which is not a file of this dataset"


def _hub_name(address: str) -> tuple[str, str]:
    """Split an address on the Hub into `USER/NAME` and a revision, which may be empty."""
    name, _, revision = address.removeprefix(HUB_PREFIX).strip("/").partition("@")
    return name, revision


def split_is_made_up(address: str, splits: dict[str, IterableDataset]) -> bool:
    """Whether the only split got its name from the library, because the data has none."""
    return len(splits) == 1 and (address.lower().endswith(PARQUET) or is_saved_dataset(Path(address)))


def _open(address: str, subset: str | None, column: str | None = None) -> dict[str, IterableDataset]:
    """Return the splits of a dataset by name; only descriptions are read, and rows will not be decoded.

    From files on disk only `column` is read, unless it is None.
    """
    # Decoding would open whatever a row names. Our own loaders decode the images, by our own rules.
    return {
        name: split.decode(False) if split.features else split
        for name, split in _load(address, subset, column).items()
    }


def _load(address: str, subset: str | None, column: str | None) -> dict[str, IterableDataset]:
    from datasets import DatasetDict, load_dataset

    options: dict[str, Any] = {"streaming": True}
    try:
        if address.startswith(HUB_PREFIX):
            name, revision = _hub_name(address)
            check_hub_data_files(name, revision or None)
            return dict(load_dataset(name, subset, revision=revision or None, **options))
        if "::" in address:
            raise ValueError("its name holds '::', which chains addresses; rename it")
        require_regular_files(Path(address))
        if address.lower().endswith(PARQUET):
            if column is not None:
                options["columns"] = [column]
            return dict(load_dataset("parquet", data_files={"train": [glob.escape(address)]}, **options))
        if is_saved_dataset(Path(address)):
            saved = load_saved_dataset(Path(address))
            splits = dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
            if column is not None:
                splits = {name: split.select_columns([column]) for name, split in splits.items()}
            return {name: split.to_iterable_dataset() for name, split in splits.items()}
        check_data_files(Path(address))
        return dict(load_dataset(address, subset, **options))
    except Exception as error:  # errors of Hub client, network and reader share no base class
        raise ValueError(f"{address}: cannot be opened as a dataset ({reason(error)}).") from error


def _image_column(address: str, dataset: IterableDataset, wanted: str | None) -> str:
    from datasets import Image, Value

    def holds_images(feature: Any) -> bool:
        # Parquet files of other programs have the same two fields without saying that they are an image.
        return isinstance(feature, Image) or (
            isinstance(feature, dict)
            and set(feature) == {"bytes", "path"}
            and all(isinstance(field, Value) for field in feature.values())
        )

    # Formats without a schema have no features before their first rows were read.
    features: Any = dataset.features or dataset._resolve_features().features
    if wanted is not None:
        if wanted not in features:
            raise ValueError(f"{address}: has no column {wanted!r}: choose one of {', '.join(features)}.")
        feature = features[wanted]
        if not (holds_images(feature) or isinstance(feature, Value) and feature.dtype in TEXT_OR_BYTES):
            raise ValueError(f"{address}: the column {wanted!r} holds {feature}, not images.")
        return wanted
    found = [name for name, feature in features.items() if holds_images(feature)]
    if len(found) > 1 and "image" not in found:
        raise ValueError(f"{address}: has several image columns: choose one with --image-column: {', '.join(found)}.")
    if not found:
        raise ValueError(
            f"{address}: no column holds images; name a column of paths or addresses with --image-column. "
            f"Columns: {', '.join(features)}."
        )
    return "image" if "image" in found else found[0]
