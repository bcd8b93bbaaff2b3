"""The folds of an experiment: what every training sees, and what it is tested on.

| protocol | `data.train` | folds | tested on |
| --- | --- | --- | --- |
| leave-one-out | one dataset | one per scene | the scene that was left out |
| cross-set | one or several | one | the test side of every set of `data.test` |
| random-split | one or several | one per split | the test side of every set of `data.test` |

The sides of a dataset come from, in this order: published lists that the configuration names (`data.train_lists`,
`data.test_lists`, `data.liqe_splits`), folds in `data.json_dir` (the published layout), or a drawn split of the whole
manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.splits.library import (
    Protocol,
    canonical_name,
    has_folds,
    load_manifest,
    read_folds,
    require_manifest_folder,
)
from sind_hf.data.splits.published_lists import liqe_splits, read_image_list
from sind_hf.data.splits.splits import Fold, cross_set, k_folds, leave_one_out, random_split
from sind_hf.data.training_sets import with_dataset_domains
from sind_hf.experiments.config import DataOptions, ExperimentOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentFold:
    """One training of an experiment.

    Attributes:
        name: Name of the fold and of its folder, unique within the experiment.
        train: Train sides, one per dataset; higher scores are better, and scenes are the domains to align.
        tests: Test sides, by name of the dataset; higher scores are better.
        origins: Origin of the sides of each dataset, in words.
    """

    name: str
    train: tuple[Manifest, ...]
    tests: dict[str, Manifest]
    origins: dict[str, str]


def build_folds(data: DataOptions, experiment: ExperimentOptions) -> list[ExperimentFold]:
    """Return the folds of an experiment, in the order in which they are run. Manifests are read, images are not.

    Every side has entries, and no image is on both sides of a fold. `experiment.folds` selects some of the folds.

    Raises:
        ValueError: If the protocol is missing or does not fit the data, a manifest or a fold cannot be found, or a
            chosen fold does not exist.
    """
    if experiment.protocol is None:
        raise ValueError("experiment.protocol is missing: choose leave-one-out, cross-set or random-split.")
    if not data.train:
        raise ValueError("data.train names no dataset: name at least one to train on.")
    if data.hold_out_scenes:
        raise ValueError(
            "data.hold_out_scenes is for single trainings: leave it out, since the protocol decides what is held out."
        )
    build = {"leave-one-out": _leave_one_out, "cross-set": _cross_set, "random-split": _random_split}
    folds = [_check_fold(fold, data.dataset_domain) for fold in build[experiment.protocol](data, experiment)]
    if experiment.folds:
        by_name = {fold.name: fold for fold in folds}
        if unknown := [name for name in experiment.folds if name not in by_name]:
            raise ValueError(f"experiment.folds: no fold {unknown[0]!r}; there are {', '.join(by_name)}.")
        folds = [by_name[name] for name in experiment.folds]
    return folds


def _leave_one_out(data: DataOptions, experiment: ExperimentOptions) -> list[ExperimentFold]:
    if len(data.train) != 1 or data.test not in ([], data.train):
        raise ValueError(
            "leave-one-out trains and tests on one dataset: name one in data.train, and leave data.test out."
        )
    sides, origin = _sides(data.train[0], data, experiment)
    dataset = sides[0].test.dataset
    if alone := [fold.name for fold in sides if len(fold.test.entries) == 1]:
        logger.warning("%s: a scene of one image has no SRCC; no folds for %s", dataset, ", ".join(alone))
        sides = [fold for fold in sides if fold.name not in alone]
    if not sides:
        raise ValueError(f"{dataset}: each scene has one image, and SRCC needs two: nothing can be tested.")
    return [ExperimentFold(fold.name, (fold.train,), {dataset: fold.test}, {dataset: origin}) for fold in sides]


def _cross_set(data: DataOptions, experiment: ExperimentOptions) -> list[ExperimentFold]:
    if not data.test:
        raise ValueError("data.test names no dataset: name those that cross-set is to test on.")
    found = {name: _sides(name, data, experiment) for name in dict.fromkeys([*data.train, *data.test])}
    train = [found[name][0][0].train for name in data.train]
    tests = [found[name][0][0].test for name in data.test]
    name = "+".join(manifest.dataset for manifest in train)
    return [ExperimentFold(name, tuple(train), _by_dataset(tests), _origins(found))]


def _random_split(data: DataOptions, experiment: ExperimentOptions) -> list[ExperimentFold]:
    names = data.test or data.train
    found = {name: _sides(name, data, experiment) for name in dict.fromkeys([*data.train, *names])}
    numbers = {name: [fold.name for fold in folds] for name, (folds, _) in found.items()}
    first = numbers[data.train[0]]
    for name, others in numbers.items():
        if others != first:
            raise ValueError(
                f"{data.train[0]} has {len(first)} splits ({', '.join(first)}) and {name} has {len(others)} "
                f"({', '.join(others)}): sets that are trained on together need the same ones."
            )
    return [
        ExperimentFold(
            number,
            tuple(found[name][0][index].train for name in data.train),
            _by_dataset([found[name][0][index].test for name in names]),
            _origins(found),
        )
        for index, number in enumerate(first)
    ]


def _sides(name: str, data: DataOptions, experiment: ExperimentOptions) -> tuple[list[Fold], str]:
    """Return the folds of one dataset, and their origin in words."""
    protocol: Protocol = experiment.protocol  # type: ignore[assignment]  # checked by the options
    dataset = _dataset_of(name)
    lists = [
        next((path for each, path in paths.items() if canonical_name(each) == dataset), None)
        for paths in (data.train_lists, data.test_lists)
    ]
    liqe = _liqe_folder(data, dataset) if protocol == "random-split" else None
    if any(lists) and protocol != "leave-one-out":
        manifest = load_manifest(data.json_dir, name).oriented()
        train, test = (None if path is None else read_image_list(path) for path in lists)
        fold = cross_set(manifest, train_list=train, test_list=test)
        if protocol == "random-split":
            fold = replace(fold, name="1")
        return [fold], f"lists {' and '.join(path for path in lists if path)}"
    if liqe is not None:
        return liqe_splits(load_manifest(data.json_dir, name).oriented(), liqe), f"LIQE's lists in {liqe}"
    layout: Protocol = "k-folds" if experiment.k_folds and protocol == "random-split" else protocol
    if not name.endswith(".json") and has_folds(require_manifest_folder(data.json_dir, name), layout, dataset):
        folds = [fold.oriented() for fold in read_folds(str(data.json_dir), layout, dataset)]
        return folds, f"folds in {data.json_dir}"
    manifest = load_manifest(data.json_dir, name).oriented()  # before it is split: one zero for both sides
    if protocol == "leave-one-out":
        return leave_one_out(manifest), "scenes of the manifest"
    if protocol == "cross-set":
        trained = dataset in map(_dataset_of, data.train)
        tested = dataset in map(_dataset_of, data.test)
        if trained != tested:
            return [cross_set(manifest, test_fraction=float(tested))], "the whole manifest"
        return [cross_set(manifest, seed=experiment.split_seed)], f"drawn with seed {experiment.split_seed}, 80/20"
    if experiment.k_folds:
        folds = k_folds(manifest, experiment.k_folds, experiment.split_seed)
        return folds, f"{experiment.k_folds} folds drawn with seed {experiment.split_seed}"
    folds = random_split(manifest, splits=experiment.splits, seed=experiment.split_seed)
    return folds, f"drawn with seed {experiment.split_seed}, 70/10/20"


def _dataset_of(name: str) -> str:
    """Return the dataset that an entry of the configuration names: a manifest (.json) by its path, others by name."""
    return name if name.endswith(".json") else canonical_name(name)


def _check_fold(fold: ExperimentFold, dataset_domain: bool) -> ExperimentFold:
    """Check a fold, remove test images from training, and choose the domains to align."""
    tested = {entry.image for manifest in fold.tests.values() for entry in manifest.entries}
    train = [manifest.filter(lambda entry: entry.image not in tested) for manifest in fold.train]
    if shared := sum(map(len, fold.train)) - sum(map(len, train)):
        logger.warning("fold %s: %d images are on both sides; they are only tested on", fold.name, shared)
    sides = [("train", manifest) for manifest in train] + [("test", manifest) for manifest in fold.tests.values()]
    for side, manifest in sides:
        where = f"fold {fold.name}: the {side} side of {manifest.dataset}"
        origin = fold.origins.get(manifest.dataset)
        if not manifest.entries:
            raise ValueError(f"{where} has no images; it came from: {origin}.")
        if side == "test" and len(manifest.entries) == 1:
            raise ValueError(f"{where} has one image, and SRCC needs two; it came from: {origin}.")
    return replace(fold, train=tuple(with_dataset_domains(train) if dataset_domain else train))


def _liqe_folder(data: DataOptions, dataset: str) -> Path | None:
    """Return the folder of LIQE's lists of a dataset, or None if there is none."""
    if data.liqe_splits is None:
        return None
    folder = Path(data.liqe_splits)
    if not folder.is_dir():
        raise ValueError(f"data.liqe_splits: {folder} is not a folder.")
    if (folder / dataset).is_dir():
        return folder / dataset
    return folder if len(data.train) == 1 and (folder / "1").is_dir() else None


def _by_dataset(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    named: dict[str, Manifest] = {}
    for manifest in manifests:
        if manifest.dataset in named:
            raise ValueError(f"data.test: two datasets are called {manifest.dataset}; rename one.")
        named[manifest.dataset] = manifest
    return named


def _origins(found: dict[str, tuple[list[Fold], str]]) -> dict[str, str]:
    return {folds[0].test.dataset: origin for folds, origin in found.values()}
