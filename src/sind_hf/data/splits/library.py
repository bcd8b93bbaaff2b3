"""A manifest folder: where the whole manifests of datasets and the folds of protocols are found and written.

```
<name>/all.json, all/<name>_all.json or <name>.json
for_leave_one_out/<name>/test_for_<id>_<scene>/{train,test}.json
for_cross_set/{train,test}/<name>_{train,test}.json      (test/<name>.json for a dataset that is only tested on)
random_split/<name>/<number>/{train,validation,test}.json
k_folds/<name>/<number>/{train,test}.json
```

This is the layout that was published with the paper, and `<name>/all.json` and `k_folds` are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sind_hf.data.manifests.catalog import find
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.published_format import WHOLE_MANIFESTS
from sind_hf.data.manifests.score_direction import LEAST_CORRELATION, correlation
from sind_hf.data.splits.splits import Fold

Protocol = Literal["leave-one-out", "cross-set", "random-split", "k-folds"]
SplitKind = Literal["leave-one-out", "cross-set", "random-split", "k-folds", "official"]

_FOLDERS: dict[str, str] = {
    "leave-one-out": "for_leave_one_out",
    "cross-set": "for_cross_set",
    "random-split": "random_split",
    "k-folds": "k_folds",
    "official": "for_cross_set",
}


def canonical_name(name: str) -> str:
    """Return the catalog's name of a dataset (`livew` is `livec`). A name that the catalog lacks stays as it is."""
    facts = find(name)
    return name if facts is None else facts.name


def find_manifest(folder: str | Path, dataset: str) -> Path | None:
    """Return the path of a dataset's whole manifest in a manifest folder; None if there is none."""
    paths = (Path(folder) / pattern.format(name=dataset) for pattern in WHOLE_MANIFESTS)
    return next((path for path in paths if path.is_file()), None)


def load_manifest(folder: str | Path | None, name: str) -> Manifest:
    """Read the whole manifest of a dataset from a manifest folder.

    Args:
        name: Name or alias of the dataset, or the path of a manifest (`.json`).

    Raises:
        ValueError: If there is no such manifest, or it is not valid.
    """
    if name.endswith(".json"):
        return Manifest.load(name)
    folder = require_manifest_folder(folder, name)
    name = canonical_name(name)
    if (path := find_manifest(folder, name)) is not None:
        return replace(Manifest.load(path), dataset=name)
    listed = ", ".join(pattern.format(name=name) for pattern in WHOLE_MANIFESTS)
    raise ValueError(
        f"{folder}: no manifest of {name} ({listed}); write one with `sind-hf data build {name} --root … "
        f"--output {folder / name / 'all.json'}`."
    )


def require_manifest_folder(folder: str | Path | None, name: str) -> Path:
    """Return the path of a manifest folder in which the dataset `name` is looked up.

    Raises:
        ValueError: If no folder is named, or it is not a folder.
    """
    if folder is None:
        raise ValueError(f"data.json_dir is missing: {name!r} is not a manifest (.json), so name the manifest folder.")
    if not Path(folder).is_dir():
        raise ValueError(f"data.json_dir: {folder} is not a folder; name the manifest folder.")
    return Path(folder)


def has_folds(folder: str | Path, protocol: Protocol, dataset: str) -> bool:
    """Whether a manifest folder holds folds of a dataset that `read_folds` can read."""
    if protocol == "cross-set":
        return _cross_set_file(Path(folder) / _FOLDERS[protocol], "test", dataset) is not None
    return _folder_of_folds(Path(folder), protocol, dataset) is not None


def read_folds(folder: str | Path, protocol: Protocol, dataset: str) -> list[Fold]:
    """Read the folds of a dataset from a manifest folder, by number (leave-one-out: by scene ID).

    Their `unused` is empty, because the files do not name left-out images.

    Raises:
        ValueError: If there are no folds, a side is missing (a cross-set fold needs only a test side), or the scores
            of a side contradict the whole manifest in the same folder.
    """
    _check_name(dataset)
    folds = _read_folds(Path(folder), protocol, dataset)
    if (path := find_manifest(folder, dataset)) is not None:
        opinions = {entry.image: entry.score for entry in Manifest.load(path).oriented().entries}
        for fold in folds:
            for side in fold.sides:
                _require_same_opinions(side, opinions, f"{folder}: {protocol} fold {fold.name}", path)
    return folds


def write_folds(folds: Sequence[Fold], folder: str | Path, protocol: SplitKind) -> list[Path]:
    """Write folds as manifests, and return the files.

    Args:
        protocol: Protocol that decides the layout; `official` splits use the layout of cross-set.

    Raises:
        ValueError: If the protocol is unknown, cross-set gets several folds, the name of the dataset cannot be a file
            name, or the folder holds folds that these do not replace. In all cases nothing is written.
    """
    root = Path(folder) / _folder_of(protocol)
    one_fold = protocol in ("cross-set", "official")
    if one_fold and len(folds) > 1:
        raise ValueError(f"{protocol} has one fold per dataset, got {len(folds)}")
    files: dict[Path, Manifest] = {}
    for fold in folds:
        for side, manifest in (("train", fold.train), ("validation", fold.validation), ("test", fold.test)):
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
        for place in {path.parents[1] for path in files}:
            if others := sorted(set(place.glob("*/*.json")) - set(files)):
                raise ValueError(
                    f"{place}: holds folds of another split ({others[0].relative_to(place)}), which would mix with "
                    "these; delete the folder, or choose another output."
                )
    for path, manifest in files.items():
        manifest.save(path)
    return list(files)


def _require_same_opinions(side: Manifest, opinions: Mapping[str, float], where: str, whole: Path) -> None:
    scored = side.oriented().entries
    agreement = correlation([(entry.score, opinions[entry.image]) for entry in scored if entry.image in opinions])
    if agreement is not None and agreement < LEAST_CORRELATION:
        raise ValueError(
            f"{where}: its scores contradict {whole} (correlation {agreement:.2f}, both with higher scores for better "
            "images); correct the wrong file, or take both from one source"
        )


def _read_folds(folder: Path, protocol: Protocol, dataset: str) -> list[Fold]:
    root = folder / _folder_of(protocol)
    if protocol == "cross-set":
        train, test = (_load(_cross_set_file(root, side, dataset), dataset) for side in ("train", "test"))
        if test is None:
            raise ValueError(f"{root / 'test'} has neither {dataset}_test.json nor {dataset}.json")
        return [Fold(dataset, train or replace(test, entries=[]), None, test)]
    folds = []
    found = _folder_of_folds(folder, protocol, dataset) or root / dataset
    for place in folders_by_number(path for path in found.glob("*") if path.is_dir()):
        train, validation, test = (
            _load(_side_file(place, *words), dataset) for words in (("train",), ("validation", "val"), ("test",))
        )
        if train is None or test is None:
            raise ValueError(f"{place} has no {'train' if train is None else 'test'}.json")
        folds.append(Fold(place.name, train, validation, test))
    if not folds:
        raise ValueError(f"{root / dataset} has no folds; write them with `sind-hf data split --protocol {protocol}`")
    return folds


def _folder_of_folds(folder: Path, protocol: Protocol, dataset: str) -> Path | None:
    """Return the folder of a dataset's folds; None if there is none.

    The ten folds of EVA were published among the random splits, so each of these two protocols also reads the folder
    of the other, after its own.
    """
    others = {"random-split": ["k-folds"], "k-folds": ["random-split"]}
    places = [folder / _folder_of(kind) / dataset for kind in (protocol, *others.get(protocol, ()))]
    return next((place for place in places if place.is_dir()), None)


def _folder_of(protocol: str) -> str:
    if protocol not in _FOLDERS:
        raise ValueError(f"unknown protocol {protocol!r}; choose one of {', '.join(_FOLDERS)}")
    return _FOLDERS[protocol]


def _check_name(dataset: str) -> None:
    # The name comes from a manifest, which may come from anywhere. It must not lead out of the folder.
    if dataset in ("", ".", "..") or re.search(r"[/\\\x00]", dataset):
        raise ValueError(f"the dataset name {dataset!r} cannot be a file name; rename the dataset")


def folders_by_number(folders: Iterable[Path]) -> list[Path]:
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
    # A published file does not name its dataset, and the file of a side is not named after it either.
    return None if path is None else replace(Manifest.load(path), dataset=dataset)
