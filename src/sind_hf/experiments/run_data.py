"""The sets of one run, from the manifests of its configuration or of its fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datasets import Dataset

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.prepared.folder import PreparedFolder, is_prepared, open_dataset
from sind_hf.data.splits.library import load_manifest
from sind_hf.data.training_sets import joint_rows, with_dataset_domains
from sind_hf.experiments.config import DataOptions
from sind_hf.experiments.protocols import ExperimentFold


@dataclass(frozen=True)
class RunData:
    """The sets of one run.

    Attributes:
        train: Pictures, scores (higher better) and scenes to train on.
        tests: What to test on, by name.
        score_range: Range of the training scores; None where the training sets do not share one.
        train_images: Number of images of each data set that is trained on; repetitions not counted.
    """

    train: Dataset
    tests: dict[str, Dataset]
    score_range: tuple[float, float] | None
    train_images: dict[str, int]


def build_data(options: DataOptions) -> RunData:
    """Read the manifests of a single training.

    Raises:
        ValueError: When a manifest or pictures are missing, or a scene to hold out is unknown.
    """
    if not options.train:
        raise ValueError("data.train names no manifest: nothing to train on.")
    train = [load_manifest(options.json_dir, name).oriented() for name in options.train]
    tests: dict[str, Manifest] = {}
    for name in options.test:
        manifest = load_manifest(options.json_dir, name).oriented()
        if manifest.dataset in tests:
            raise ValueError(f"data.test: {name} is a second test set called {manifest.dataset}; merge the two.")
        tests[manifest.dataset] = manifest
    if options.hold_out_scenes:
        held_out = set(options.hold_out_scenes)
        known = {entry.scene for manifest in train for entry in manifest.entries}
        if unknown := held_out - known:
            names = ", ".join(sorted(map(str, known)))
            raise ValueError(f"data.hold_out_scenes: no scene {', '.join(sorted(unknown))}; there are {names}.")
        for manifest in train:
            rest = manifest.filter(lambda entry: entry.scene in held_out)
            if len(rest):
                tests[f"{manifest.dataset}_held_out"] = rest
        train = [manifest.filter(lambda entry: entry.scene not in held_out) for manifest in train]
    if options.dataset_domain:
        train = with_dataset_domains(train)
    return _open(train, tests, options.image_root)


def fold_data(fold: ExperimentFold, image_root: str) -> RunData:
    """Open the pictures of a fold.

    Raises:
        ValueError: When pictures are missing.
    """
    return _open(fold.train, fold.tests, image_root)


def _open(train: Sequence[Manifest], tests: Mapping[str, Manifest], image_root: str) -> RunData:
    if is_prepared(image_root):
        failed = PreparedFolder(image_root).failures
        train = [manifest.filter(lambda entry: entry.image not in failed) for manifest in train]
    else:
        for manifest in (*train, *tests.values()):
            _require_images(manifest, image_root)
    ranges = {manifest.oriented_range() for manifest in train}
    joined = open_dataset(_joined(train), image_root)
    rows = joint_rows(train)
    images: dict[str, int] = {}
    for manifest in train:
        images[manifest.dataset] = images.get(manifest.dataset, 0) + len(manifest)
    return RunData(
        train=joined if len(rows) == len(joined) else joined.select(rows),
        tests={name: open_dataset(manifest, image_root) for name, manifest in tests.items()},
        score_range=ranges.pop() if len(ranges) == 1 else None,
        train_images=images,
    )


def _joined(train: Sequence[Manifest]) -> Manifest:
    """Join manifests; scenes of the same name in two data sets stay two scenes."""
    if len(train) == 1:
        return train[0]
    numbers: dict[str, int] = {}
    parts = []
    for manifest in train:
        names, classes = manifest.scene_classes()
        # Where data sets are the domains, the scene is called like its set already.
        scenes = [name if name == manifest.dataset else f"{manifest.dataset}: {name}" for name in names]
        entries = [
            replace(entry, scene=scenes[scene], domain_id=numbers.setdefault(scenes[scene], len(numbers)))
            for entry, scene in zip(manifest.entries, classes, strict=True)
        ]
        used = {numbers[scene]: scene for scene in scenes}
        parts.append(replace(manifest, entries=entries, domain_names=used))
    return parts[0].merge(*parts[1:])


def _require_images(manifest: Manifest, image_root: str) -> None:
    missing = manifest.validate(image_root)
    if missing:
        raise ValueError(
            f"{manifest.dataset}: {len(missing)} of {len(manifest)} entries cannot be used below {image_root}; first: "
            f"{missing[0]}"
        )
