"""The pictures of a dataset of Hugging Face datasets, read row by row and never downloaded or held as a whole."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sind_hf.data.saved_datasets import is_saved_dataset
from sind_hf.scoring.pictures import Picture, RemoteFile, Unusable

if TYPE_CHECKING:
    from datasets import IterableDataset

HUB_PREFIX = "hf://datasets/"
PARQUET = ".parquet"
TEXT_OR_BYTES = ("string", "large_string", "binary", "large_binary")  # a path or address, or the encoded picture


@dataclass(frozen=True)
class DatasetRows:
    """The pictures of one split; its rows are named `DATASET/SPLIT#ROW`, from 0.

    Attributes:
        address: `hf://datasets/USER/NAME[@REVISION]`, a Parquet file, a folder that `save_to_disk` wrote, or another
            folder that `load_dataset` takes.
        subset: Configuration of the dataset; None for its only one.
        split: Name of the split; None for the only one.
        column: Image column; None finds it by its type.
        rows: How many there are, where that is known.
    """

    address: str
    subset: str | None = None
    split: str | None = None
    column: str | None = None
    rows: int | None = None

    @property
    def title(self) -> str:
        """What the names of the rows begin with."""
        parts = [self.address.removeprefix(HUB_PREFIX), self.subset, self.split]
        return "/".join(part for part in parts if part)

    @property
    def total(self) -> int | None:
        """Number of pictures, where it is known."""
        return self.rows

    def checked(self) -> DatasetRows:
        """Look at the dataset, and fill in what was left open: split, column, number of rows.

        Raises:
            ValueError: When it cannot be opened, or split or column are unknown or leave a choice.
        """
        splits = _open(self.address, self.subset)
        if self.split is None and len(splits) > 1:
            raise ValueError(f"{self.address}: has several splits: choose one by --split: {', '.join(splits)}.")
        split = next(iter(splits)) if self.split is None else self.split
        if split not in splits:
            raise ValueError(f"{self.address}: has no split {split!r}: choose one of {', '.join(splits)}.")
        dataset = splits[split]
        column = _image_column(self.address, dataset, self.column)
        known = (dataset.info.splits or {}).get(split)
        # A Parquet file or saved split has one split, whose name its owner never chose.
        named = split if self.split is not None or not split_is_made_up(self.address, splits) else None
        return replace(self, split=named, column=column, rows=known.num_examples if known else None)

    def __iter__(self) -> Iterator[Picture]:
        from datasets import Image

        assert self.column is not None, "iterate over what checked() returns"
        splits = _open(self.address, self.subset)
        dataset = splits[self.split or next(iter(splits))].select_columns([self.column])
        if isinstance(_features(dataset)[self.column], Image):
            # The encoded file is wanted, not its pixels: it is decoded by the loaders, by our own rules.
            dataset = dataset.cast_column(self.column, Image(decode=False))
        number = -1
        try:
            for number, row in enumerate(dataset):
                yield _picture(f"{self.title}#{number}", row[self.column])
        except Exception as error:  # of the network, the file system, the decoder of the format: no common base class
            raise ValueError(
                f"{self.title}: cannot be read beyond row {number} ({_line(error)}): "
                "what was scored is kept, --resume goes on from there."
            ) from error


def split_is_made_up(address: str, splits: dict[str, IterableDataset]) -> bool:
    """Whether the only split got its name from the library, because the data has none."""
    return len(splits) == 1 and (address.lower().endswith(PARQUET) or is_saved_dataset(Path(address)))


def _picture(name: str, value: Any) -> Picture:
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes) and content:
        return Picture(name, {"bytes": content, "path": name})
    if isinstance(value, dict):
        value = value.get("path")
    if not value or not isinstance(value, str):
        return Picture(name, Unusable(f"{name}: holds no picture"))
    remote = "://" in value and not value.startswith(("http://", "https://"))
    return Picture(name, RemoteFile(value) if remote else value)


def _open(address: str, subset: str | None) -> dict[str, IterableDataset]:
    """Return the splits of a dataset by name; nothing but descriptions is read yet."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    options: dict[str, Any] = {"streaming": True}
    try:
        if address.startswith(HUB_PREFIX):
            name, _, revision = address.removeprefix(HUB_PREFIX).strip("/").partition("@")
            return dict(load_dataset(name, subset, revision=revision or None, **options))
        if address.lower().endswith(PARQUET):
            return dict(load_dataset("parquet", data_files={"train": [glob.escape(address)]}, **options))
        if is_saved_dataset(Path(address)):
            saved = load_from_disk(address)
            splits = dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
            return {name: split.to_iterable_dataset() for name, split in splits.items()}
        return dict(load_dataset(address, subset, **options))
    except Exception as error:  # of the Hub's client, of the network, of the reader: no common base class
        raise ValueError(f"{address}: cannot be opened as a dataset ({_line(error)}).") from error


def _features(dataset: IterableDataset) -> Any:
    # Formats without a schema have no features before their first rows were read.
    return dataset.features or dataset._resolve_features().features


def _image_column(address: str, dataset: IterableDataset, wanted: str | None) -> str:
    from datasets import Image, Value

    def holds_pictures(feature: Any) -> bool:
        # Parquet files of other programs have the same two fields without saying that they are a picture.
        return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})

    features = _features(dataset)
    if wanted is not None:
        if wanted not in features:
            raise ValueError(f"{address}: has no column {wanted!r}: choose one of {', '.join(features)}.")
        feature = features[wanted]
        if not (holds_pictures(feature) or isinstance(feature, Value) and feature.dtype in TEXT_OR_BYTES):
            raise ValueError(f"{address}: the column {wanted!r} holds no pictures but {feature}.")
        return wanted
    found = [name for name, feature in features.items() if holds_pictures(feature)]
    if len(found) > 1 and "image" not in found:
        raise ValueError(f"{address}: has several image columns: choose one by --image-column: {', '.join(found)}.")
    if not found:
        raise ValueError(
            f"{address}: no column holds pictures; a column of paths or addresses is named by --image-column. "
            f"Columns: {', '.join(features)}."
        )
    return "image" if "image" in found else found[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
