"""Train and test sides of the published protocols, as pure functions on manifests.

| protocol | function | used for |
| --- | --- | --- |
| leave-one-out (cross-scene) | `leave_one_out` | SPAQ 9 folds, KonIQ-10k 8, EVA 6, PARA 10 |
| cross-set | `cross_set` | train on one dataset (by its train list if one is published), test on others |
| random-split | `random_split` | ten splits, 70/10/20; LIQE's lists: `published_lists.liqe_splits` |
| ten folds | `k_folds` | EVA |
| official | `cross_set` with both lists | PARA |

A drawn split uses every image exactly once and keeps the distorted versions of a reference image on one side. With
`keep_scenes` it also keeps every scene on one side. Published lists leave images out; `Fold.unused` names them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.files import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """The sides of one split.

    Attributes:
        name: Name within the protocol: `test_for_<id>_<scene>`, the number of the split, or the dataset.
        train: Images to train on. It has no entries if the dataset is only tested on.
        validation: Images to select a model on; None if the protocol has none.
        test: Images to test on.
        unused: Images of the manifest that are on no side, in its order.
    """

    name: str
    train: Manifest
    validation: Manifest | None
    test: Manifest
    unused: tuple[str, ...] = ()

    @property
    def sides(self) -> list[Manifest]:
        """The sides that the fold has: train, validation and test."""
        return [side for side in (self.train, self.validation, self.test) if side is not None]

    def oriented(self) -> Fold:
        """Return the fold with higher scores for better images, all sides measured from the same zero."""
        score = self.test.score
        if not score.higher_is_better and score.range is None:
            scores = [entry.score for side in self.sides for entry in side.entries]
            score = replace(score, range=(min(scores), max(scores)))

        def orient(side: Manifest) -> Manifest:
            return replace(side, score=score).oriented()

        validation = None if self.validation is None else orient(self.validation)
        return replace(self, train=orient(self.train), validation=validation, test=orient(self.test))


def shared_scenes(folds: Iterable[Fold]) -> tuple[int, int]:
    """Count the test scenes of a dataset's folds that a model also sees in training.

    Returns:
        How many scenes are tested in a fold that also trains on them, and how many scenes are tested at all. Images
        without a scene do not count.
    """
    tested: set[Hashable] = set()
    shared: set[Hashable] = set()
    for fold in folds:
        train, test = ({_scene(entry) for entry in side.entries} - {None} for side in (fold.train, fold.test))
        tested |= test
        shared |= test & train
    return len(shared), len(tested)


def leave_one_out(manifest: Manifest) -> list[Fold]:
    """Return one fold per scene: that scene is tested on, the others are trained on.

    The folds are named `test_for_<id>_<scene>`, in the order of the IDs. Scenes are distinguished by `domain_id`, or
    by name if no entry has an ID. The name of the fold then holds the scene's position in alphabetical order.

    Raises:
        ValueError: If an entry has no scene, or there are fewer than two scenes.
    """
    by_name = all(entry.domain_id is None for entry in manifest.entries)

    def key_of(entry: ManifestEntry) -> Any:
        return entry.scene if by_name else entry.domain_id

    for entry in manifest.entries:
        if key_of(entry) is None:
            raise ValueError(
                f"{manifest.dataset}: {entry.image} has no scene; leave-one-out needs one for every image"
            )
    scenes = sorted({key_of(entry) for entry in manifest.entries})
    if len(scenes) < 2:
        raise ValueError(f"{manifest.dataset}: leave-one-out needs at least 2 scenes, found {len(scenes)}")
    folds = []
    for position, scene in enumerate(scenes):
        train = replace(manifest, entries=[entry for entry in manifest.entries if key_of(entry) != scene])
        test = replace(manifest, entries=[entry for entry in manifest.entries if key_of(entry) == scene])
        label = test.entries[0].scene or manifest.domain_names.get(scene, "")
        number = position if by_name else scene
        name = f"test_for_{number}_{label}" if label else f"test_for_{number}"
        folds.append(Fold(re.sub(r"[^\w .-]", "_", name), train, None, test))
    return folds


def cross_set(
    manifest: Manifest,
    *,
    train_list: Iterable[str] | None = None,
    test_list: Iterable[str] | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    keep_scenes: bool = False,
) -> Fold:
    """Return the fold, named after its dataset, of a dataset that is compared with other datasets.

    The sides come from the lists. With one list, the other side is everything else. Without lists the split is drawn,
    by reference image if the dataset has references.

    Args:
        train_list: Names of the images to train on. Their leading folders may differ from the manifest's.
        test_list: Names of the images to test on. Images that `train_list` names too are only tested on (the lists
            that Q-Align published for KADID-10k overlap).
        test_fraction: Share to test on in a drawn split, in [0, 1]; 1 for a dataset that is only tested on.
        keep_scenes: Whether a drawn split keeps every scene on one side; the share is then one of scenes.

    Raises:
        ValueError: If a list matches no image, references are missing, the fraction is out of range, or a side of a
            split by scene would be empty.
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
        # No images are separated, so references need not be known.
        nothing = replace(manifest, entries=[])
        return Fold(manifest.dataset, *((nothing, None, manifest) if test_fraction else (manifest, None, nothing)))
    units = _units(manifest, keep_scenes)
    tested = _share(test_fraction, len(units), keep_scenes)
    if keep_scenes and tested >= len(units):
        raise ValueError(_too_few(manifest, len(units), keep_scenes, f"a test share of {test_fraction:g}"))
    order = np.random.default_rng(seed).permutation(len(units)).tolist()
    train_side, test_side = (_gather(manifest, units, part) for part in (order[tested:], order[:tested]))
    return Fold(manifest.dataset, train_side, None, test_side)


def random_split(
    manifest: Manifest,
    *,
    splits: int = 10,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    keep_scenes: bool = False,
) -> list[Fold]:
    """Draw independent train / validation / test splits, by reference image if the dataset has references.

    The folds are named `1`, `2`, … Fold i depends on the seed and i only, so that a larger number of splits keeps the
    first ones.

    Args:
        fractions: Shares of train, validation and test, counted in what must stay together: images, reference images
            or scenes. A validation share of 0 gives no validation side.
        keep_scenes: Whether every scene stays on one side.

    Raises:
        ValueError: If the shares do not sum to 1, references are missing, or a side would be empty.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(f"fractions must be three shares (train, validation, test) that sum to 1, got {fractions}")
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    units = _units(manifest, keep_scenes)
    validated, tested = (_share(fraction, len(units), keep_scenes) for fraction in fractions[1:])
    counts = (len(units) - validated - tested, validated, tested)
    if min(counts[0], tested) < 1 or (fractions[1] > 0 and validated < 1):
        wanted = f"the fractions {tuple(fractions)}: the sides would get {counts}"
        raise ValueError(_too_few(manifest, len(units), keep_scenes, wanted))
    folds = []
    for number in range(1, splits + 1):
        order = np.random.default_rng([seed, number]).permutation(len(units)).tolist()
        test, validation, train = (
            _gather(manifest, units, part)
            for part in (order[:tested], order[tested : tested + validated], order[tested + validated :])
        )
        folds.append(Fold(str(number), train, validation if validated else None, test))
    return folds


def k_folds(manifest: Manifest, folds: int = 10, seed: int = 0, keep_scenes: bool = False) -> list[Fold]:
    """Split a dataset into folds `1`, `2`, … so that every image is tested in exactly one of them.

    The folds test on equal numbers of images, reference images or scenes; the numbers differ by one at most.

    Args:
        folds: Number of folds; EVA is published with ten.
        keep_scenes: Whether every scene stays on one side.

    Raises:
        ValueError: If there are fewer than two folds, or fewer images, reference images or scenes than folds.
    """
    if folds < 2:
        raise ValueError(f"{manifest.dataset}: the number of folds must be at least 2, got {folds}")
    units = _units(manifest, keep_scenes)
    if folds > len(units):
        raise ValueError(_too_few(manifest, len(units), keep_scenes, f"{folds} folds"))
    order = np.random.default_rng(seed).permutation(len(units)).tolist()
    result = []
    for number in range(folds):
        tested = order[number::folds]
        train, test = (_gather(manifest, units, part) for part in (set(order).difference(tested), tested))
        result.append(Fold(str(number + 1), train, None, test))
    return result


def listed_fold(
    manifest: Manifest, name: str, *, train: set[str], validation: set[str] | None, test: set[str]
) -> Fold:
    """Return the fold with the given images, as the manifest names them, on its sides.

    An image on several sides is only tested on, or else only validated on.
    """
    validated = (validation or set()) - test
    trained = train - test - validated
    if shared := len(train) - len(trained):
        logger.warning("%s: %d images of the train list are also tested on; not used for training", name, shared)
    train_side, validation_side, test_side = (
        replace(manifest, entries=[entry for entry in manifest.entries if entry.image in images])
        for images in (trained, validated, test)
    )
    references = [{entry.reference for entry in side.entries} - {None} for side in (train_side, test_side)]
    if shared := len(references[0] & references[1]):
        logger.warning("%s: the lists put distorted versions of %d reference images on both sides", name, shared)
    used = trained | validated | test
    unused = tuple(entry.image for entry in manifest.entries if entry.image not in used)
    return Fold(name, train_side, validation_side if validated else None, test_side, unused)


def listed_images(manifest: Manifest, names: Iterable[str], origin: str) -> set[str]:
    """Find the images of a published list in a manifest. Listed names that the manifest lacks are logged.

    Lists and manifests differ in their leading folders (`koniq/1.jpg`, `koniq10k/1024x768/1.jpg`). The listed names
    lose leading folders until one of them matches the end of an image path. All names lose the same number of folders,
    so that `jpeg/img1.bmp` never matches `jp2k/img1.bmp`.

    Args:
        origin: Kind of the list, for messages.

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
            f"{manifest.dataset}: no image of the {origin} is in the manifest, e.g. {'/'.join(listed[0])}; "
            "name a list of this dataset"
        )
    images = {by_end[end] for end in found}
    if None in images:
        example = next(end for end in found if by_end[end] is None)
        raise ValueError(f"{manifest.dataset}: {example} of the {origin} fits several images; list longer paths")
    if missing := [end for end in ends if end not in by_end]:
        count = f"{len(missing)} of {len(listed)} images of the {origin}"
        logger.warning("%s: %s are not in the manifest, e.g. %s", manifest.dataset, count, shown(missing[0]))
    return {image for image in images if image is not None}


def _units(manifest: Manifest, keep_scenes: bool) -> list[list[int]]:
    """Return what must stay on one side: the entry indices of each reference image, scene or image.

    Images of one scene with different references, and scenes that share a reference, all stay together.
    """
    if not manifest.entries:
        raise ValueError(f"{manifest.dataset}: there are no images to split")
    units: dict[Hashable, list[int]] = {}
    for index, entry in enumerate(manifest.entries):
        if manifest.reference_based and entry.reference is None:
            raise ValueError(
                f"{manifest.dataset}: {entry.image} names no reference image, so a split could put versions of one "
                "image on both sides; rebuild the manifest with `sind-hf data build`"
            )
        unit: Hashable = ("image", entry.image) if entry.reference is None else ("reference", entry.reference)
        units.setdefault(unit, []).append(index)
    if not keep_scenes:
        return list(units.values())
    merged: dict[Hashable, list[int]] = {}
    unit_of_scene: dict[Hashable, Hashable] = {}
    for unit, indices in units.items():
        scenes = [scene for index in indices if (scene := _scene(manifest.entries[index])) is not None]
        joined = dict.fromkeys(unit_of_scene[scene] for scene in scenes if scene in unit_of_scene)
        target, *others = [*joined, unit]
        merged.setdefault(target, []).extend(indices)
        for other in others:
            if other in merged:
                merged[target] += merged.pop(other)
                unit_of_scene |= {scene: target for scene, owner in unit_of_scene.items() if owner == other}
        unit_of_scene |= dict.fromkeys(scenes, target)
    return list(merged.values())


def _scene(entry: ManifestEntry) -> Hashable | None:
    """Return what tells the scene of an entry from others; None if it has none."""
    return entry.scene if entry.domain_id is None else entry.domain_id


def _share(fraction: float, count: int, keep_scenes: bool) -> int:
    """Return how many of `count` units a side gets. Scenes are few, so a side of them gets at least one."""
    return max(1 if keep_scenes and fraction else 0, round(fraction * count))


def _too_few(manifest: Manifest, count: int, keep_scenes: bool, wanted: str) -> str:
    if keep_scenes:
        what = f"only {count} groups of images share no scene, too few for {wanted}"
        return f"{manifest.dataset}: {what}; ask for fewer splits, label more scenes, or mix scenes (--mix-scenes)"
    return f"{manifest.dataset}: {count} images or reference images are too few for {wanted}"


def _gather(manifest: Manifest, units: list[list[int]], numbers: Iterable[int]) -> Manifest:
    """Return the entries of some of the units, in the order of the manifest."""
    indices = sorted(index for number in numbers for index in units[number])
    return replace(manifest, entries=[manifest.entries[index] for index in indices])
