"""Splits by lists that others published: Q-Align's and PARA's train and test lists, and the splits of LIQE."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sind_hf.data.manifests.document import parse_json
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.splits.library import SplitKind, folders_by_number
from sind_hf.data.splits.splits import (
    Fold,
    cross_set,
    k_folds,
    leave_one_out,
    listed_fold,
    listed_images,
    random_split,
)
from sind_hf.files import read_text, reason

# Keys and columns that published lists name their images by.
_IMAGE_KEYS = ("image", "img_path", "image_path", "image_name", "imageName", "Image name", "name", "path")
_LIQE_COLUMNS = 6
_LIST_SUFFIXES = (".csv", ".json", ".txt")


def make_folds(
    manifest: Manifest,
    protocol: SplitKind,
    *,
    lists: Sequence[str | Path] = (),
    seed: int = 0,
    splits: int = 10,
    keep_scenes: bool = False,
) -> list[Fold]:
    """Split a dataset by a protocol, with published lists if some are given.

    Args:
        protocol: Protocol; see the functions of `sind_hf.data.splits.splits`.
        lists: For cross-set and official, files with `train` or `test` in their names (see `read_image_list`), or a
            folder with one of each. For random-split, the folder of LIQE's numbered lists.
        splits: Number of splits or folds to draw.
        keep_scenes: Whether a drawn split keeps every scene on one side.

    Raises:
        ValueError: If lists are given that the protocol does not use, lists are missing, the name of a list does not
            tell its side, or a function of `splits` refuses.
    """
    if protocol == "random-split":
        if len(lists) > 1:
            raise ValueError(f"random-split takes one folder of LIQE's lists, got {len(lists)}")
        if lists:
            return liqe_splits(manifest, lists[0])
        return random_split(manifest, splits=splits, seed=seed, keep_scenes=keep_scenes)
    if protocol in ("cross-set", "official"):
        train, test = _read_side("train", lists), _read_side("test", lists)
        if protocol == "official" and (train is None or test is None):
            raise ValueError(f"{manifest.dataset}: the official split needs a train and a test list; name both")
        return [cross_set(manifest, train_list=train, test_list=test, seed=seed, keep_scenes=keep_scenes)]
    if lists:
        raise ValueError(f"{protocol} uses no lists; leave them out")
    return leave_one_out(manifest) if protocol == "leave-one-out" else k_folds(manifest, splits, seed, keep_scenes)


def read_image_list(path: str | Path) -> list[str]:
    """Read the image names of a published train or test list, with forward slashes.

    Args:
        path: JSON (a list of names, a manifest, or Q-Align's list of objects with `image` or `img_path`), CSV with a
            header (PARA: `sessionId`, `imageName`), or text with the name in the first column before a tab.

    Raises:
        ValueError: If the file is missing, does not hold what its suffix says, or an item names no image.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the path of a train or test list")
    suffix = path.suffix.lower()
    text = _text_of(path, "utf-8-sig")
    if suffix == ".json":
        try:
            content = parse_json(text)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        items = content.get("files") if isinstance(content, dict) else content
        if not isinstance(items, list):
            raise ValueError(f'{path} is not a list of images: expected a JSON list, or an object with "files"')
        names = [name for number, item in enumerate(items) for name in _names_of(item, f"{path}, item {number}")]
    elif suffix == ".csv":
        rows = csv.DictReader(text.splitlines())
        try:
            names = [name for row in rows for name in _names_of(row, f"{path}, line {rows.line_num}")]
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num} is not valid CSV: {error}") from error
    else:
        names = [line.split("\t")[0].strip() for line in text.splitlines() if line.strip()]
    return [name.replace("\\", "/") for name in names]


def liqe_splits(manifest: Manifest, folder: str | Path) -> list[Fold]:
    """Read the splits that LIQE published: `<folder>/<number>/<dataset>_{train,val,test}_clip.txt`.

    Only the names are used, because LIQE lists flipped scores for LIVE. The 203 pristine entries of LIVE are unused.

    Args:
        manifest: The dataset. Its image paths differ from LIQE's only in the leading folders.
        folder: The folder with the numbered folders, or the folder above it with one folder per dataset.

    Raises:
        ValueError: If there is no list, a line does not have six columns, or a list does not fit the manifest.
    """
    folder = Path(folder)
    if (folder / manifest.dataset).is_dir():
        folder = folder / manifest.dataset
    folds = []
    for numbered in folders_by_number(path for path in folder.glob("*") if path.is_dir() and path.name.isdigit()):
        sides = []
        for side in ("train", "val", "test"):
            lists = sorted(numbered.glob(f"*_{side}_clip.txt"))
            if len(lists) != 1:
                raise ValueError(f"{numbered} has {len(lists)} files *_{side}_clip.txt; LIQE publishes one per split")
            sides.append(listed_images(manifest, _read_liqe(lists[0]), f"list {lists[0]}"))
        train, validation, test = sides
        folds.append(listed_fold(manifest, numbered.name, train=train, validation=validation, test=test))
    if not folds:
        raise ValueError(f"{folder} has no numbered folders of LIQE lists (<number>/<dataset>_train_clip.txt)")
    return folds


def _read_side(side: Literal["train", "test"], lists: Sequence[str | Path]) -> list[str] | None:
    """Return the names of one side's list; None if there is none."""
    found: list[Path] = []
    for path in map(Path, lists):
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in _LIST_SUFFIXES)
        sides = {file: re.findall("train|test", file.stem.lower()) for file in files}
        if not path.is_dir() and len(set(sides[path])) != 1:
            raise ValueError(f"{path}: the name does not tell a train list from a test list; rename the file")
        found += [file for file, words in sides.items() if set(words) == {side}]
    if len(found) > 1:
        raise ValueError(f"there are several {side} lists: {', '.join(map(str, found))}; name one")
    return read_image_list(found[0]) if found else None


def _text_of(path: Path, encoding: str) -> str:
    try:
        return read_text(path, encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({reason(error)})") from error


def _names_of(item: Any, where: str) -> list[str]:
    """Return the image names of one item of a list. An object may name several."""
    value = item
    if isinstance(item, dict):
        value = next((item[key] for key in _IMAGE_KEYS if item.get(key)), None)
        if isinstance(value, str) and item.get("sessionId"):
            value = f"{item['sessionId']}/{value}"
    names = value if isinstance(value, list) and value else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} names no image; expected one of {', '.join(_IMAGE_KEYS)}")
    return names


def _read_liqe(path: Path) -> list[str]:
    names = []
    for number, line in enumerate(_text_of(path, "utf-8").splitlines(), start=1):
        columns = line.split("\t")
        if len(columns) != _LIQE_COLUMNS:
            raise ValueError(
                f"{path}, line {number} has {len(columns)} tab columns; a LIQE list has {_LIQE_COLUMNS}: path, score, "
                "distortion and three scenes"
            )
        names.append(columns[0])
    return names
