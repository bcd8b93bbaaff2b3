"""Datasets of Hugging Face datasets as tables: saved in a folder or on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .tables import Row, Table, named_classes
from .validation import ManifestError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def is_saved_dataset(folder: Path) -> bool:
    """Whether `folder` was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def read_saved_dataset(folder: Path, split: str | None) -> Table:
    """Open a dataset that was written by `save_to_disk`.

    Raises:
        ManifestError: If it cannot be loaded, or has several splits and `split` names none of them.
    """
    from datasets import load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"{folder}: the saved dataset cannot be loaded ({_line(error)}); save it again") from error
    return _table(_one_split(loaded, split, str(folder)))


def read_hub_dataset(name: str, split: str | None) -> Table:
    """Download (or take from the cache) a dataset of the Hub.

    Raises:
        ManifestError: If it cannot be loaded, or has several splits and `split` names none of them.
    """
    from datasets import load_dataset

    try:
        loaded = load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        what = f"neither a file or folder here nor a dataset that can be loaded from the Hub ({_line(error)})"
        raise ManifestError(f"{name}: {what}; check the name") from error
    return _table(_one_split(loaded, split, name))


def _one_split(loaded: Dataset | DatasetDict, split: str | None, name: str) -> Dataset:
    from datasets import DatasetDict

    if not isinstance(loaded, DatasetDict):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        wrong = "it has several splits" if split is None else f"there is no split {split!r}"
        raise ManifestError(f"{name}: {wrong}; choose one of {', '.join(loaded)}")
    return loaded[split]


def _table(dataset: Dataset) -> Table:
    from datasets import Image

    for column, feature in dataset.features.items():
        if isinstance(feature, Image):
            # The encoded file is wanted, not its pixels: that copies it without loss and finds damaged ones per row.
            dataset = dataset.cast_column(column, Image(decode=False))

    def rows() -> Iterator[tuple[int, Row]]:
        for number, row in enumerate(dataset, start=1):
            yield number, named_classes(row, dataset.features)

    return Table(dataset.column_names, rows())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
