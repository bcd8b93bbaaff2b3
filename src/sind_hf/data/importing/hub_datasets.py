"""Datasets of the library `datasets`, saved in a folder or on the Hub, as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from sind_hf.data.importing.tables import Row, Table, named_classes
from sind_hf.data.manifests.document import parse_json
from sind_hf.data.manifests.validation import ManifestError, path_fault
from sind_hf.files import read_text, reason, shown

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

#: Files in which the author of a dataset can name its data files.
CARDS = ("README.md", ".huggingface.yaml")
MOST_VALUES = 1_000_000  # values in a card; those behind an alias count each time it is used


def is_saved_dataset(folder: Path) -> bool:
    """Whether `folder` was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def load_saved_dataset(folder: Path) -> Dataset | DatasetDict:
    """Open a dataset that `save_to_disk` wrote, after a check that it names no file outside its folder.

    Raises:
        ValueError: If its description is damaged, or names a file outside its folder.
        OSError: If a file cannot be read.
    """
    from datasets import load_from_disk

    require_regular_files(folder)
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = parse_json(read_text(folder / "dataset_dict.json"))["splits"]
            parts = [folder / _plain_name(folder, split) for split in splits]
        else:
            parts = [folder]
        for part in parts:
            for file in parse_json(read_text(part / "state.json"))["_data_files"]:
                _plain_name(part, file["filename"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its description is damaged ({type(error).__name__}: {error})") from error
    return load_from_disk(str(folder))


def _plain_name(folder: Path, name: Any) -> str:
    if not isinstance(name, str) or "/" in name or "::" in name or path_fault("file", name):
        raise ValueError(f"{folder} names {shown(name)}, which is not a file of this dataset")
    return name


def require_regular_files(place: Path) -> None:
    """Check that a file, or every file in a folder, is a regular file.

    Opening a named pipe waits for a writer, and reading a device may never end.

    Raises:
        ValueError: If a file is a named pipe, a device or a socket, or a link to one.
    """
    names = (Path(folder, name) for folder, _, files in os.walk(place) for name in files)
    for path in names if place.is_dir() else [place]:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a regular file; remove it")


def check_data_files(folder: Path) -> None:
    """Check that the card of a dataset (`configs` in README.md) names only data files in its folder.

    Raises:
        ValueError: If the card names another place, or cannot be read.
    """
    for name in CARDS:
        if (folder / name).is_file():
            _check_card(read_text(folder / name, "utf-8-sig", "replace"), name, own="")


def check_hub_data_files(repo_id: str, revision: str | None) -> None:
    """Check that the card of a Hub dataset names only data files of the same dataset.

    Raises:
        ValueError: If the card names another place, or cannot be read.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in CARDS:
        try:
            path = hf_hub_download(repo_id, name, repo_type="dataset", revision=revision)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                raise
        else:
            _check_card(read_text(path, "utf-8-sig", "replace"), name, own=f"hf://datasets/{repo_id}")


def _check_card(text: str, name: str, own: str) -> None:
    """Check the places that a card names. `own` is the address of its dataset, or empty."""
    if name.endswith(".md"):
        block = REGEX_YAML_BLOCK.search(text)  # as `datasets` finds it
        text = block[2] if block else ""
    try:
        card = yaml.safe_load(text)
        if _count_values(card, {}) > MOST_VALUES:
            raise ValueError(f"{name}: its aliases stand for more than {MOST_VALUES:,} values")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{name}: cannot be read ({reason(error)})") from error
    configs = card.get("configs") if isinstance(card, dict) else None
    for config in configs if isinstance(configs, list) else ():
        for place in _texts([config.get("data_files"), config.get("data_dir")]) if isinstance(config, dict) else ():
            path = place
            if own and place.startswith((f"{own}/", f"{own}@")):
                path = place.removeprefix(own).partition("/")[2]
            if "://" in path or "::" in path or path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{name} names {shown(place)}, which is not a file of this dataset")


def _count_values(value: object, counts: dict[int, int]) -> int:
    """Count the values in a document. `counts` holds the counts of its parts by their `id`."""
    if id(value) not in counts:
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        counts[id(value)] = 1 + sum(_count_values(part, counts) for part in parts)
    return counts[id(value)]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))


def read_saved_dataset(folder: Path, split: str | None) -> Table:
    """Open a dataset that `save_to_disk` wrote, as a table.

    Raises:
        ManifestError: If it cannot be loaded, or has several splits and `split` names none of them.
    """
    try:
        loaded = load_saved_dataset(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(
            f"{folder}: the saved dataset cannot be loaded ({reason(error)}); save it again"
        ) from error
    return _table(_one_split(loaded, split, str(folder)))


def read_hub_dataset(name: str, split: str | None) -> Table:
    """Open a dataset of the Hub (downloaded or from the cache), as a table.

    Raises:
        ManifestError: If it cannot be loaded, or has several splits and `split` names none of them.
    """
    from datasets import load_dataset

    try:
        check_hub_data_files(name, None)
        loaded = load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        what = f"neither a file or folder here nor a dataset that can be loaded from the Hub ({reason(error)})"
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
    def rows() -> Iterator[tuple[int, Row]]:
        number = 0
        # Not decoded: decoding would open any file or address that a row names, and lose the encoded image.
        for batch in dataset.with_format("arrow").iter(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                yield number, named_classes(row, dataset.features)

    return Table(dataset.column_names, rows())
