"""Train and test sides of the published protocols, as pure functions on manifests.

| protocol | function | used for |
| --- | --- | --- |
| leave-one-out (cross-scene) | `leave_one_out` | SPAQ 9 folds, KonIQ-10k 8, EVA 6, PARA 10 |
| cross-set | `cross_set` | train on one set (its train list where one is published), test on others |
| random-split | `random_split` | ten splits, 70/10/20; LIQE's lists: `split_files.liqe_splits` |
| ten folds | `k_folds` | EVA |
| official | `official` | PARA |

Splits of our own never lose or repeat an image, and never put distorted versions of one reference image on two sides.
Published lists leave images out; `Fold.unused` names them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """The sides of one split.

    Attributes:
        name: Name within the protocol: `test_for_<id>_<scene>`, the number of the split, or the data set.
        train: Images to train on; no entries where a set is only tested on.
        validation: Images to choose a model on, where the protocol has them.
        test: Images to test on.
        unused: Images of the manifest that are on no side, in its order.
    """

    name: str
    train: Manifest
    validation: Manifest | None
    test: Manifest
    unused: tuple[str, ...] = ()


def leave_one_out(manifest: Manifest) -> list[Fold]:
    """Return one fold per scene: that scene is tested on, the others are trained on.

    Scenes are told apart by `domain_id`, or by name where no entry has an id (then the index in alphabetical order
    takes its place in the name of the fold).

    Args:
        manifest: A data set with at least two scenes.

    Returns:
        Folds in the order of their ids, named `test_for_<id>_<scene>`.

    Raises:
        ValueError: If an entry has no scene, or there are fewer than two scenes.
    """
    by_name = all(entry.domain_id is None for entry in manifest.entries)
    keys = [entry.scene if by_name else entry.domain_id for entry in manifest.entries]
    for entry, key in zip(manifest.entries, keys, strict=True):
        if key is None:
            raise ValueError(
                f"{manifest.dataset}: {entry.image} has no scene; leave-one-out needs one for every image"
            )
    scenes = sorted(set(keys), key=lambda key: (isinstance(key, str), key))
    if len(scenes) < 2:
        raise ValueError(f"{manifest.dataset}: leave-one-out needs at least 2 scenes, found {len(scenes)}")
    folds = []
    for position, scene in enumerate(scenes):
        train = [entry for entry, key in zip(manifest.entries, keys, strict=True) if key != scene]
        test = [entry for entry, key in zip(manifest.entries, keys, strict=True) if key == scene]
        label = _scene_name(manifest, test[0])
        name = f"test_for_{position if by_name else scene}" + (f"_{label}" if label else "")
        folds.append(Fold(name, _part(manifest, train), None, _part(manifest, test)))
    return folds


def cross_set(
    manifest: Manifest,
    *,
    train_list: Iterable[str] | None = None,
    test_list: Iterable[str] | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
) -> Fold:
    """Return the train and the test side of a data set that others are compared with.

    Published lists decide where they are given; with one list only, the other side is everything else. Without lists
    the split is drawn, by reference image where there are references.

    Args:
        manifest: The data set.
        train_list: Names of the images to train on; folders in front of them may differ from the manifest's.
        test_list: Names of the images to test on. Where it shares images with `train_list` (as the lists that
            Q-Align published for KADID-10k do), they are only tested on.
        seed: Seed of the drawn split.
        test_fraction: Share to test on in the drawn split, in [0, 1]; 1 for a set that is only tested on.

    Returns:
        A fold that is named after the data set.

    Raises:
        ValueError: If a list matches no image, references are missing, or the fraction is out of range.
    """
    if train_list is not None or test_list is not None:
        rest = {entry.image for entry in manifest.entries}
        test = set() if test_list is None else listed_images(manifest, test_list, "test list")
        train = rest - test if train_list is None else listed_images(manifest, train_list, "train list")
        if test_list is None:
            test = rest - train
        return listed_fold(manifest, manifest.dataset, train=train, validation=None, test=test)
    if not 0 <= test_fraction <= 1:
        raise ValueError(f"test_fraction must be in [0, 1], got {test_fraction}")
    if test_fraction in (0, 1):
        # No pictures are separated, so references need not be known.
        nothing = _part(manifest, [])
        return Fold(manifest.dataset, *((nothing, None, manifest) if test_fraction else (manifest, None, nothing)))
    units = _units(manifest)
    names, tested = list(units), round(test_fraction * len(units))
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    sides = [[names[index] for index in part] for part in (order[tested:], order[:tested])]
    train_side, test_side = (_gather(manifest, units, side) for side in sides)
    return Fold(manifest.dataset, train_side, None, test_side)


def random_split(
    manifest: Manifest,
    *,
    splits: int = 10,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> list[Fold]:
    """Draw independent train / validation / test splits, by reference image where there are references.

    Split i depends on the seed and i only, so asking for more splits keeps the first ones.

    Args:
        manifest: The data set.
        splits: Number of splits.
        fractions: Shares of train, validation and test; of the reference images, where there are references. No
            validation side where its share is 0.
        seed: Seed of the splits.

    Returns:
        Folds named `1`, `2`, …

    Raises:
        ValueError: If the shares do not sum to 1, references are missing, or a side would be empty.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(f"fractions must be three shares (train, validation, test) that sum to 1, got {fractions}")
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    units = _units(manifest)
    names = list(units)
    validated, tested = (round(fraction * len(names)) for fraction in fractions[1:])
    counts = (len(names) - validated - tested, validated, tested)
    if min(counts[0], tested) < 1 or (fractions[1] > 0 and validated < 1):
        raise ValueError(
            f"{manifest.dataset}: {len(names)} images or reference images are too few for the fractions "
            f"{tuple(fractions)}: the sides would get {counts}"
        )
    folds = []
    for number in range(1, splits + 1):
        order = np.random.default_rng([seed, number]).permutation(len(names)).tolist()
        test, validation, train = (
            _gather(manifest, units, [names[index] for index in part])
            for part in (order[:tested], order[tested : tested + validated], order[tested + validated :])
        )
        folds.append(Fold(str(number), train, validation if validated else None, test))
    return folds


def k_folds(manifest: Manifest, folds: int = 10, seed: int = 0) -> list[Fold]:
    """Return folds of equal size (up to one image); each image is tested on in exactly one of them.

    Args:
        manifest: The data set.
        folds: Number of folds; EVA is published with ten.
        seed: Seed of the assignment.

    Returns:
        Folds named `1`, `2`, …, split by reference image where there are references.

    Raises:
        ValueError: If there are fewer than two folds, or fewer images (or reference images) than folds.
    """
    units = _units(manifest)
    names = list(units)
    if not 2 <= folds <= len(names):
        raise ValueError(
            f"{manifest.dataset}: folds must be between 2 and the number of images or reference images "
            f"({len(names)}), got {folds}"
        )
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    result = []
    for number in range(folds):
        tested = set(order[number::folds])
        test = _gather(manifest, units, [names[index] for index in tested])
        train = _gather(manifest, units, [name for index, name in enumerate(names) if index not in tested])
        result.append(Fold(str(number + 1), train, None, test))
    return result


def official(manifest: Manifest, train_list: Iterable[str], test_list: Iterable[str]) -> Fold:
    """Return the split that the authors of a data set published, as for PARA.

    Args:
        manifest: The data set.
        train_list: Names of the images to train on (`split_files.read_image_list` reads the published files).
        test_list: Names of the images to test on.

    Raises:
        ValueError: If a list matches no image of the manifest.
    """
    return cross_set(manifest, train_list=train_list, test_list=test_list)


def listed_fold(
    manifest: Manifest, name: str, *, train: set[str], validation: set[str] | None, test: set[str]
) -> Fold:
    """Return the fold of given sides; an image that is on several is tested on, or else validated on, only.

    Args:
        manifest: The data set.
        name: Name of the fold.
        train: Images to train on, as in the manifest.
        validation: Images to choose a model on.
        test: Images to test on.
    """
    validated = (validation or set()) - test
    trained = train - test - validated
    if shared := len(train) - len(trained):
        logger.warning("%s: %d images of the train list are tested on too; left out of training", name, shared)
    sides = [
        _part(manifest, [entry for entry in manifest.entries if entry.image in images])
        for images in (trained, validated, test)
    ]
    references = [{entry.reference for entry in side.entries} - {None} for side in (sides[0], sides[2])]
    if shared := len(references[0] & references[1]):
        logger.warning("%s: the lists put versions of %d reference images on both sides", name, shared)
    used = trained | validated | test
    unused = tuple(entry.image for entry in manifest.entries if entry.image not in used)
    return Fold(name, sides[0], sides[1] if validated else None, sides[2], unused)


def listed_images(manifest: Manifest, names: Iterable[str], origin: str) -> set[str]:
    """Find the images of a published list in a manifest.

    Lists and manifests differ in their leading folders (`koniq/1.jpg`, `koniq10k/1024x768/1.jpg`). As many folders
    of the listed names are dropped as are needed for one to match the end of an image path, the same number for all
    names; so `jpeg/img1.bmp` never matches `jp2k/img1.bmp`.

    Args:
        manifest: The data set.
        names: Listed names.
        origin: What the names are, for messages.

    Returns:
        The images, as named in the manifest. Listed names that it lacks are logged.

    Raises:
        ValueError: If the list is empty, no name matches, or a name matches several images.
    """
    listed = [re.sub(r"^(\./)+", "", name.replace("\\", "/")).split("/") for name in dict.fromkeys(names)]
    if not listed:
        raise ValueError(f"{manifest.dataset}: the {origin} is empty")
    by_end: dict[str, str | None] = {}
    for image in {entry.image for entry in manifest.entries}:
        parts = image.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            by_end[end] = None if end in by_end else image
    for dropped in range(max(map(len, listed))):
        ends = ["/".join(parts[dropped:]) for parts in listed]
        found = [end for end in ends if end in by_end]
        if found:
            break
    else:
        raise ValueError(
            f"{manifest.dataset}: no image of the {origin} is in the manifest, e.g. {'/'.join(listed[0])}; is it a "
            "list of this data set?"
        )
    images = {by_end[end] for end in found}
    if None in images:
        example = next(end for end in found if by_end[end] is None)
        raise ValueError(f"{manifest.dataset}: {example} of the {origin} fits several images; list longer paths")
    if missing := [end for end in ends if end not in by_end]:
        logger.warning(
            "%s: %d of %d images of the %s are not in the manifest, e.g. %s",
            manifest.dataset,
            len(missing),
            len(listed),
            origin,
            missing[0],
        )
    return {image for image in images if image is not None}


def _units(manifest: Manifest) -> dict[Hashable, list[int]]:
    """Return what must stay together: entry indices by reference image, or by image where there are no references."""
    if not manifest.entries:
        raise ValueError(f"{manifest.dataset}: there are no images to split")
    units: dict[Hashable, list[int]] = {}
    for index, entry in enumerate(manifest.entries):
        if manifest.reference_based and entry.reference is None:
            raise ValueError(
                f"{manifest.dataset}: {entry.image} names no reference image, so a split could put the same picture "
                "on both sides; rebuild the manifest with `sind-hf data build`"
            )
        unit = ("image", entry.image) if entry.reference is None else ("reference", entry.reference)
        units.setdefault(unit, []).append(index)
    return units


def _gather(manifest: Manifest, units: dict[Hashable, list[int]], names: Iterable[Hashable]) -> Manifest:
    """Return the entries of some units, in the order of the manifest."""
    return _part(manifest, [manifest.entries[index] for index in sorted(i for name in names for i in units[name])])


def _part(manifest: Manifest, entries: list[ManifestEntry]) -> Manifest:
    return replace(manifest, entries=entries)


def _scene_name(manifest: Manifest, entry: ManifestEntry) -> str:
    """Return the scene's name as part of a file name; empty where it has none."""
    name = entry.scene
    if name is None and entry.domain_id is not None:
        name = manifest.domain_names.get(entry.domain_id)
    return re.sub(r"[^\w .-]", "_", name or "")
