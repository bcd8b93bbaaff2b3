"""The sets of a run: manifests are found, oriented, checked, joined, and opened as datasets.

Several datasets can be trained on together, with the datasets as domains and small datasets repeated, as published.

```python
sets = open_named_sets("data", ["koniq10k", "live"], ["spaq"], json_dir="data_json", dataset_domain=True)
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from datasets import Dataset

from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.prepared.folder import PreparedFolder, is_prepared, open_dataset
from sind_hf.data.splits.library import load_manifest

# Published recipe: 779 and 866 images would hardly be seen among tens of thousands.
_JOINT_REPEATS = {"live": 4, "csiq": 4}
# The only dataset that keeps its own scenes when datasets are domains.
_KEEPS_SCENES = "spaq"


@dataclass(frozen=True)
class TrainingSets:
    """The sets of one run.

    Attributes:
        train: Images, scores (higher is better) and scenes to train on.
        tests: Test sets by name.
        score_range: Range of the training scores; None if the training sets do not share one.
        train_images: Number of images of each dataset in `train`, without repetitions.
        ranges_differ: Whether the training sets declare several ranges, or only some of them declare one.
    """

    train: Dataset
    tests: dict[str, Dataset]
    score_range: tuple[float, float] | None
    train_images: dict[str, int]
    ranges_differ: bool = False


def open_named_sets(
    image_root: str,
    train: Sequence[str],
    test: Sequence[str] = (),
    *,
    json_dir: str | None = None,
    hold_out_scenes: Sequence[str] = (),
    dataset_domain: bool = False,
) -> TrainingSets:
    """Open the sets of a single training.

    Args:
        image_root: Folder that the image paths of the manifests start from, or a prepared folder.
        train: Manifests (.json) to train on, or names of datasets in `json_dir`.
        test: Manifests or names to test on.
        hold_out_scenes: Scenes to test on, which are taken out of the training manifests.
        dataset_domain: Whether to align datasets instead of scenes; see `with_dataset_domains`.

    Raises:
        ValueError: If a manifest or images are missing, or a scene to hold out is unknown.
    """
    if not train:
        raise ValueError("data.train names no manifest: name at least one to train on.")
    trained = [load_manifest(json_dir, name).oriented() for name in train]
    tests: dict[str, Manifest] = {}
    for name in test:
        manifest = load_manifest(json_dir, name).oriented()
        if manifest.dataset in tests:
            raise ValueError(f"data.test: {name} is a second test set called {manifest.dataset}; merge the two.")
        tests[manifest.dataset] = manifest
    if hold_out_scenes:
        held_out = set(hold_out_scenes)
        known = {entry.scene for manifest in trained for entry in manifest.entries}
        if unknown := held_out - known:
            names = ", ".join(sorted(map(str, known)))
            raise ValueError(f"data.hold_out_scenes: no scene {', '.join(sorted(unknown))}; there are {names}.")
        for manifest in trained:
            rest = manifest.filter(lambda entry: entry.scene in held_out)
            if len(rest):
                tests[f"{manifest.dataset}_held_out"] = rest
        trained = [manifest.filter(lambda entry: entry.scene not in held_out) for manifest in trained]
    if dataset_domain:
        trained = with_dataset_domains(trained)
    return open_sets(trained, tests, image_root)


def open_sets(train: Sequence[Manifest], tests: Mapping[str, Manifest], image_root: str) -> TrainingSets:
    """Check the images of oriented manifests and open them as datasets; those to train on are joined into one.

    The failed images of a prepared folder are left out of training.

    Raises:
        ValueError: If images are missing.
    """
    if is_prepared(image_root):
        failed = PreparedFolder(image_root).failures
        train = [manifest.filter(lambda entry: entry.image not in failed) for manifest in train]
    else:
        for manifest in (*train, *tests.values()):
            if problems := manifest.validate(image_root):
                share = f"{len(problems)} of {len(manifest)} entries"
                raise ValueError(f"{manifest.dataset}: {share} cannot be used in {image_root}; first: {problems[0]}")
    ranges = {manifest.oriented_range() for manifest in train}
    joined = open_dataset(join_manifests(train), image_root)
    rows = joint_rows(train)
    images: Counter[str] = Counter()
    for manifest in train:
        images[manifest.dataset] += len(manifest)
    return TrainingSets(
        train=joined if len(rows) == len(joined) else joined.select(rows),
        tests={name: open_dataset(manifest, image_root) for name, manifest in tests.items()},
        score_range=next(iter(ranges)) if len(ranges) == 1 else None,
        train_images=dict(images),
        ranges_differ=len(ranges) > 1,
    )


def join_manifests(manifests: Sequence[Manifest]) -> Manifest:
    """Join manifests into one; scenes of the same name in two datasets stay two scenes."""
    if len(manifests) == 1:
        return manifests[0]
    numbers: dict[str, int] = {}
    parts = []
    for manifest in manifests:
        names, classes = manifest.scene_classes()
        # With datasets as domains, a scene already has the name of its dataset.
        scenes = [name if name == manifest.dataset else f"{manifest.dataset}: {name}" for name in names]
        entries = [
            replace(entry, scene=scenes[scene], domain_id=numbers.setdefault(scenes[scene], len(numbers)))
            for entry, scene in zip(manifest.entries, classes, strict=True)
        ]
        used = {numbers[scene]: scene for scene in scenes}
        parts.append(replace(manifest, entries=entries, domain_names=used))
    return parts[0].merge(*parts[1:])


def with_dataset_domains(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return the manifests with the dataset as the domain to align, except for SPAQ, which keeps its nine scenes.

    The entries of the copies have the name of their dataset as scene, and one ID per dataset, which two parts of one
    dataset share. (The published code uses `domain_id // 100`, which gives BID and CID2013 one domain and divides
    PIPAL into two.)
    """
    kept = [manifest for manifest in manifests if manifest.dataset == _KEEPS_SCENES]
    taken = {entry.domain_id for manifest in kept for entry in manifest.entries}
    taken.update(*(manifest.domain_names for manifest in kept))
    names = sorted({manifest.dataset for manifest in manifests} - {_KEEPS_SCENES})
    free = (number for number in count() if number not in taken)
    domains = dict(zip(names, free, strict=False))
    result = []
    for manifest in manifests:
        name = manifest.dataset
        if name != _KEEPS_SCENES:
            entries = [replace(entry, scene=name, domain_id=domains[name]) for entry in manifest.entries]
            manifest = replace(manifest, entries=entries, domain_names={domains[name]: name})
        result.append(manifest)
    return result


def joint_rows(manifests: Sequence[Manifest]) -> list[int]:
    """Return the rows of a joint training set, with the rows of LIVE and CSIQ four times, as published.

    A manifest names an image once, so the repetition is in the rows that a sampler draws from. A dataset that is
    trained on alone is not repeated.
    """
    alone = len({manifest.dataset for manifest in manifests}) < 2
    rows: list[int] = []
    first = 0
    for manifest in manifests:
        own = range(first, first + len(manifest.entries))
        rows.extend(list(own) * (1 if alone else _JOINT_REPEATS.get(manifest.dataset, 1)))
        first = own.stop
    return rows
