"""Splits on disk: the lists that others published, and folders of folds in the published layout.

```
for_leave_one_out/<name>/test_for_<id>_<scene>/{train,test}.json
for_cross_set/{train,test}/<name>_{train,test}.json      (test/<name>.json for a set that is only tested on)
random_split/<name>/<number>/{train,validation,test}.json
k_folds/<name>/<number>/{train,test}.json
```
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.published_format import WHOLE_MANIFESTS
from sind_hf.data.manifests.score_direction import LEAST_CORRELATION, correlation
from sind_hf.data.splits.splits import (
    Fold,
    cross_set,
    k_folds,
    leave_one_out,
    listed_fold,
    listed_images,
    official,
    random_split,
)
from sind_hf.files import read_text

Protocol = Literal["leave-one-out", "cross-set", "random-split", "k-folds"]
SplitKind = Literal["leave-one-out", "cross-set", "random-split", "k-folds", "official"]

_FOLDERS: dict[str, str] = {
    "leave-one-out": "for_leave_one_out",
    "cross-set": "for_cross_set",
    "random-split": "random_split",
    "k-folds": "k_folds",
    "official": "for_cross_set",
}
# Keys and columns that published lists name their images by.
_IMAGE_KEYS = ("image", "img_path", "image_path", "image_name", "imageName", "Image name", "name", "path")
_LIQE_COLUMNS = 6
_LIST_SUFFIXES = (".csv", ".json", ".txt")


def read_image_list(path: str | Path) -> list[str]:
    """Read the image names of a published train or test list.

    Args:
        path: JSON (Q-Align: a list of objects with `image` or `img_path`; plain lists of names and manifests too),
            CSV with a header (PARA: `sessionId`, `imageName`), or text with the name in the first tab column.

    Returns:
        Names as the list has them, with forward slashes.

    Raises:
        ValueError: If the file is missing, is not what its ending says, or an item names no image.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the path of a train or test list")
    suffix = path.suffix.lower()
    text = _text_of(path, "utf-8-sig")
    if suffix == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
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
    """Read the splits that LIQE published: `<folder>/<number>/<set>_{train,val,test}_clip.txt`.

    Only the names are taken: the scores that LIQE lists for LIVE are flipped already.

    Args:
        manifest: The data set; its image paths differ from LIQE's in the leading folders only.
        folder: The folder with the numbered ones, or the folder above it that has one named like the data set.

    Returns:
        Folds named by their number. The 203 pristine entries of LIVE are unused.

    Raises:
        ValueError: If there is no list, a line has not six tab columns, or a list does not fit the manifest.
    """
    folder = Path(folder)
    if (folder / manifest.dataset).is_dir():
        folder = folder / manifest.dataset
    folds = []
    for numbered in _by_number(path for path in folder.glob("*") if path.is_dir() and path.name.isdigit()):
        sides = {}
        for side in ("train", "val", "test"):
            lists = sorted(numbered.glob(f"*_{side}_clip.txt"))
            if len(lists) != 1:
                raise ValueError(f"{numbered} has {len(lists)} files *_{side}_clip.txt; LIQE publishes one per split")
            sides[side] = listed_images(manifest, _read_liqe(lists[0]), f"list {lists[0]}")
        folds.append(
            listed_fold(manifest, numbered.name, train=sides["train"], validation=sides["val"], test=sides["test"])
        )
    if not folds:
        raise ValueError(f"{folder} has no numbered folders of LIQE lists (<number>/<set>_train_clip.txt)")
    return folds


def make_folds(
    manifest: Manifest, protocol: SplitKind, *, lists: Sequence[str | Path] = (), seed: int = 0, splits: int = 10
) -> list[Fold]:
    """Split a data set as a protocol asks, by published lists where they are given.

    Args:
        manifest: The data set.
        protocol: See the functions of `sind_hf.data.splits.splits`.
        lists: For cross-set and official, files with `train` or `test` in their names (see `read_image_list`), or a
            folder with one of each; for random-split, the folder of LIQE's numbered lists.
        seed: Of whatever is drawn.
        splits: Number of splits or folds, where they are drawn.

    Raises:
        ValueError: If lists are given where none are used or none where they are needed, if a list's side is not
            known, or for the reasons of the functions.
    """
    if protocol == "random-split":
        if len(lists) > 1:
            raise ValueError(f"random-split takes one folder of LIQE's lists, got {len(lists)}")
        return liqe_splits(manifest, lists[0]) if lists else random_split(manifest, splits=splits, seed=seed)
    if protocol in ("cross-set", "official"):
        train, test = (_list_of("train", lists), _list_of("test", lists))
        if protocol == "official":
            if train is None or test is None:
                raise ValueError(f"{manifest.dataset}: the official split needs a train and a test list; name both")
            return [official(manifest, train, test)]
        return [cross_set(manifest, train_list=train, test_list=test, seed=seed)]
    if lists:
        raise ValueError(f"{protocol} uses no lists; leave them out")
    return leave_one_out(manifest) if protocol == "leave-one-out" else k_folds(manifest, splits, seed)


def write_folds(folds: Sequence[Fold], output_dir: str | Path, protocol: SplitKind) -> list[Path]:
    """Write folds as manifests, in the published layout.

    Args:
        folds: Folds of one data set.
        output_dir: The manifest folder (`data_json`).
        protocol: Decides on the layout; `official` splits are laid out as cross-set.

    Returns:
        The files written.

    Raises:
        ValueError: If the protocol is unknown, there are several folds for cross-set, the name of the data set
            cannot be the name of a file, or the folder holds folds that these do not replace; nothing is written then.
    """
    root = Path(output_dir) / _folder_of(protocol)
    one_fold = protocol in ("cross-set", "official")
    if one_fold and len(folds) > 1:
        raise ValueError(f"{protocol} has one fold per data set, got {len(folds)}")
    files: dict[Path, Manifest] = {}
    for fold in folds:
        sides = {"train": fold.train, "validation": fold.validation, "test": fold.test}
        for side, manifest in sides.items():
            if manifest is None or not manifest.entries:
                continue
            _check_name(manifest.dataset)
            if one_fold:
                ending = f"_{side}" if fold.train.entries else ""
                path = root / side / f"{manifest.dataset}{ending}.json"
            else:
                path = root / manifest.dataset / fold.name / f"{side}.json"
            files[path] = manifest
    if not one_fold:
        for folder in {path.parents[1] for path in files}:
            if others := sorted(set(folder.glob("*/*.json")) - set(files)):
                raise ValueError(
                    f"{folder}: holds folds of another split ({others[0].relative_to(folder)}), which would be taken "
                    "for these: delete the folder, or choose another output."
                )
    for path, manifest in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.save(path)
    return list(files)


def read_folds(input_dir: str | Path, protocol: Protocol, dataset: str) -> list[Fold]:
    """Read the folds of a data set from a manifest folder in the published layout.

    Args:
        input_dir: The manifest folder (`data_json`).
        protocol: `leave-one-out`, `cross-set`, `random-split` or `k-folds`.
        dataset: Name of the data set.

    Returns:
        The folds by number (leave-one-out: by scene id). `unused` is empty: files do not say what they leave out.

    Raises:
        ValueError: If there are no folds, a side is missing (a cross-set fold needs a test side only), or the scores
            of a side contradict those of the whole manifest in the same folder.
    """
    _check_name(dataset)
    folds = _read_folds(Path(input_dir), protocol, dataset)
    if (path := find_manifest(input_dir, dataset)) is not None:
        whole = Manifest.load(path)
        opinions = dict(zip((entry.image for entry in whole.entries), whole.oriented_scores(), strict=True))
        for fold in folds:
            for side in (fold.train, fold.validation, fold.test):
                _require_same_opinions(side, opinions, f"{Path(input_dir)}: {protocol} fold {fold.name}", path)
    return folds


def find_manifest(folder: str | Path, dataset: str) -> Path | None:
    """Return the path of a dataset's whole manifest in a manifest folder; None if there is none."""
    paths = (Path(folder) / pattern.format(name=dataset) for pattern in WHOLE_MANIFESTS)
    return next((path for path in paths if path.is_file()), None)


def _require_same_opinions(side: Manifest | None, opinions: Mapping[str, float], where: str, whole: Path) -> None:
    if side is None:
        return
    pairs = [
        (score, opinions[entry.image])
        for entry, score in zip(side.entries, side.oriented_scores(), strict=True)
        if entry.image in opinions
    ]
    agreement = correlation(pairs)
    if agreement is not None and agreement < LEAST_CORRELATION:
        raise ValueError(
            f"{where}: its scores contradict {whole} (correlation {agreement:.2f}, both with higher scores for better "
            "images); correct the file that is wrong or take both from one source"
        )


def _read_folds(input_dir: Path, protocol: Protocol, dataset: str) -> list[Fold]:
    root = input_dir / _folder_of(protocol)
    if protocol == "cross-set":
        train, test = (_load(_cross_set_file(root, side, dataset), dataset) for side in ("train", "test"))
        if test is None:
            raise ValueError(f"{root / 'test'} has neither {dataset}_test.json nor {dataset}.json")
        return [Fold(dataset, train or replace(test, entries=[]), None, test)]
    folds = []
    found = folder_of_folds(input_dir, protocol, dataset) or root / dataset
    for folder in _by_number(path for path in found.glob("*") if path.is_dir()):
        train, validation, test = (
            _load(_side_file(folder, *words), dataset) for words in (("train",), ("validation", "val"), ("test",))
        )
        if train is None or test is None:
            raise ValueError(f"{folder} has no {'train' if train is None else 'test'}.json")
        folds.append(Fold(folder.name, train, validation, test))
    if not folds:
        raise ValueError(f"{root / dataset} has no folds; write them with `sind-hf data split --protocol {protocol}`")
    return folds


def _list_of(side: Literal["train", "test"], lists: Sequence[str | Path]) -> list[str] | None:
    """The names of one side's list, None where there is none."""
    found: list[Path] = []
    for path in map(Path, lists):
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in _LIST_SUFFIXES)
        sides = {file: re.findall("train|test", file.stem.lower()) for file in files}
        if not path.is_dir() and len(set(sides[path])) != 1:
            raise ValueError(f"{path}: whether this is a train or a test list must show in its name; rename it")
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
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error


def _names_of(item: Any, where: str) -> list[str]:
    """Return the image names of one item of a list; an object may name several."""
    if isinstance(item, dict):
        value = next((item[key] for key in _IMAGE_KEYS if item.get(key)), None)
        if isinstance(value, str) and item.get("sessionId"):
            value = f"{item['sessionId']}/{value}"
    else:
        value = item
    names = value if isinstance(value, list) and value else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} names no image; expected one of {', '.join(_IMAGE_KEYS)}")
    return [str(name) for name in names]


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


def folder_of_folds(input_dir: str | Path, protocol: Protocol, dataset: str) -> Path | None:
    """Return the folder of a dataset's folds in a manifest folder; None if there is none.

    Ten folds of EVA were published among the random splits: each of the two protocols also reads what is written for
    the other, after its own.
    """
    names = [_folder_of(protocol)]
    if protocol in ("random-split", "k-folds"):
        names = sorted((_FOLDERS["random-split"], _FOLDERS["k-folds"]), key=lambda name: name != names[0])
    return next((folder for name in names if (folder := Path(input_dir) / name / dataset).is_dir()), None)


def _folder_of(protocol: str) -> str:
    if protocol not in _FOLDERS:
        raise ValueError(f"unknown protocol {protocol!r}; choose one of {', '.join(_FOLDERS)}")
    return _FOLDERS[protocol]


def _check_name(dataset: str) -> None:
    # The name comes from a manifest, which may come from anywhere: it must not lead out of the folder.
    if dataset in ("", ".", "..") or re.search(r"[/\\\x00]", dataset):
        raise ValueError(f"the data set name {dataset!r} cannot be the name of a file; rename the data set")


def _by_number(folders: Iterable[Path]) -> list[Path]:
    """Sort folders by the first number in their names: 1, 2, 10; test_for_100_Animal, test_for_1000_other."""
    return sorted(folders, key=lambda folder: (int((re.findall(r"\d+", folder.name) or [0])[0]), folder.name))


def _cross_set_file(root: Path, side: str, dataset: str) -> Path | None:
    names = (f"{dataset}_{side}.json", f"{dataset}.json")
    return next((root / side / name for name in names if (root / side / name).is_file()), None)


def _side_file(folder: Path, *words: str) -> Path | None:
    """Return the file of a side: `train.json`, or any JSON file with the word in its name (`live_train_clip.json`)."""
    files = sorted(folder.glob("*.json"), key=lambda path: (len(path.name), path.name))
    return next((path for path in files if set(words) & set(re.split(r"[_.-]", path.stem))), None)


def _load(path: Path | None, dataset: str) -> Manifest | None:
    # A side's file is not named like its data set, which files of the published format do not name otherwise.
    return None if path is None else replace(Manifest.load(path), dataset=dataset)
