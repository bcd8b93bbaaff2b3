"""The manifest: the images of a dataset with their opinion scores and scenes.

Training, evaluation and splits read a dataset through its manifest, a small JSON file (schema version 1):

    {"schema_version": 1, "dataset": "koniq10k", "score": {"name": "MOS", "range": [0, 100], "higher_is_better": true},
     "domain_name": {"304": "Landscape"}, "reference_based": false, "source": "koniq10k_scores_and_distributions.csv",
     "files": [{"image": "koniq10k/1024x768/10004473376.jpg", "score": 77.38, "scene": "Landscape", "domain_id": 304}]}

Files that were published with the paper (`{"files": […]}` without a version) load unchanged.

Example:
    >>> entries = [ManifestEntry("a.jpg", 70.0, "Animal"), ManifestEntry("b.jpg", 30.0, "Human")]
    >>> manifest = Manifest("my-study", entries, ScoreInfo("MOS", (0.0, 100.0)))
    >>> manifest.validate()
    []
    >>> [entry.image for entry in manifest.filter(lambda entry: entry.scene == "Human").entries]
    ['b.jpg']
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sind_hf.data.manifests.catalog import CATALOG
from sind_hf.data.manifests.document import MAX_BYTES, ManifestDocument, read_document, write_document
from sind_hf.data.manifests.published_format import upgrade_published_document
from sind_hf.data.manifests.score_direction import direction_shown
from sind_hf.data.manifests.validation import (
    ENTRY_KEYS,
    MOST_PROBLEMS,
    SCHEMA_VERSION,
    ManifestError,
    Problem,
    Progress,
    header_problems,
    image_problems,
    record_problems,
    require_image_root,
    require_utf8_name,
    summary,
)

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["Manifest", "ManifestEntry", "ManifestError", "Problem", "ScoreInfo"]


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One image of a dataset.

    Attributes:
        image: POSIX path relative to the image root.
        score: Opinion score as the dataset gives it; see `ScoreInfo.higher_is_better`.
        scene: Name of the scene, or of the distortion, style or resolution that takes its place.
        domain_id: Number of the scene, unique over all datasets (see the catalog).
        reference: Pristine image that this one was made from. A split keeps images of one reference together.
        distortion: Kind of distortion, if the dataset has kinds.
    """

    image: str
    score: float
    scene: str | None = None
    domain_id: int | None = None
    reference: str | None = None
    distortion: str | None = None


@dataclass(frozen=True)
class ScoreInfo:
    """Meaning of the scores of a manifest.

    Attributes:
        name: Name of the scale: MOS, DMOS, JOD …
        range: Lowest and highest score of the scale; None for an open scale.
        higher_is_better: False for scales of degradation (DMOS of LIVE and CSIQ).
    """

    name: str = "MOS"
    range: tuple[float, float] | None = None
    higher_is_better: bool = True


@dataclass
class Manifest:
    """A dataset: its entries and the meaning of their scores and scenes.

    Attributes:
        dataset: Name of the dataset, the catalog's name if the catalog has it.
        entries: The images, in the order of the file.
        score: Meaning of the scores.
        domain_names: Name of each domain ID. It may name IDs that no entry has: a test fold names all scenes.
        reference_based: Whether the images are distorted versions of reference images.
        source: File or dataset that the scores were read from.
    """

    dataset: str
    entries: list[ManifestEntry]
    score: ScoreInfo = field(default_factory=ScoreInfo)
    domain_names: dict[int, str] = field(default_factory=dict)
    reference_based: bool = False
    source: str | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, require_scores: bool = True
    ) -> Manifest:
        """Read a manifest of schema version 1 or a published file.

        A published file does not name its dataset. The catalog finds the dataset by the image paths, and gives the
        meaning of the scores. If it does not know the paths, the dataset gets the name of the file.

        Args:
            path: The JSON file. It may come from an untrusted source.
            max_bytes: Largest size of the file, so that a wrong path does not fill the memory.
            require_scores: Whether every entry must have a score. Otherwise a missing score becomes NaN, for images
                that are only to be scored.

        Raises:
            ManifestError: If the file is not a valid manifest. The message names the file, the first problem and the
                number of the others.
        """
        path = Path(path)
        document = read_document(path, max_bytes)
        if "schema_version" not in document.header:
            upgrade_published_document(document, path)
        unscored: list[int] = []
        if not require_scores:
            for index, record in enumerate(document.records):
                if isinstance(record, dict) and record.get("score") is None:
                    record["score"] = 0.0  # passes the checks
                    unscored.append(index)
        problems = header_problems(document.header)
        if not problems:
            found = record_problems(document.records, _domain_names(document.header))
            problems = list(islice(found, MOST_PROBLEMS))
        if problems:
            first = problems[0]
            problems[0] = replace(first, line=None if first.entry is None else document.line_of(first.entry - 1))
            raise ManifestError(f"{path}: {summary(problems)}")
        manifest = _from_document(document)
        for index in unscored:
            manifest.entries[index] = replace(manifest.entries[index], score=math.nan)
        if not unscored and (problems := manifest._direction_problems()):
            raise ManifestError(f"{path}: {summary(problems)}")
        return manifest

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the manifest (schema version 1) to a file, completely or not at all, and return its path.

        Raises:
            ManifestError: If the manifest is not valid (see `validate`) or the file cannot be written.
        """
        path = Path(path)
        if problems := self.validate():
            raise ManifestError(f"{path}: not saved: {summary(problems)}")
        write_document(path, self._header(), self._records())
        return path

    def validate(
        self,
        image_root: str | os.PathLike[str] | None = None,
        verify: bool = False,
        progress: Progress | None = None,
        follow_links: bool = False,
    ) -> list[Problem]:
        """Check the manifest and, with `image_root`, the images that it names.

        Args:
            image_root: Folder that the image paths are relative to. If given, every file must exist inside it.
            verify: Whether to decode every image completely, which finds truncated downloads.
            progress: Called with (images done, images in all).
            follow_links: Whether symbolic links may lead out of the image root.

        Returns:
            All problems, in the order of the entries; empty for a valid manifest.
        """
        problems = [*header_problems(self._header()), *record_problems(self._records(), self.domain_names)]
        problems += self._direction_problems() if not problems else []
        if image_root is None:
            return problems
        # A path with a fault must not be looked up. The others keep their entry numbers.
        bad = {problem.entry for problem in problems if problem.kind in ("path", "format")}
        numbers = [number for number in range(1, len(self.entries) + 1) if number not in bad]
        images = [self.entries[number - 1].image for number in numbers]
        for found in image_problems(images, image_root, verify, progress, follow_links):
            problems.append(replace(found, entry=None if found.entry is None else numbers[found.entry - 1]))
        return sorted(problems, key=lambda problem: problem.entry or 0)

    def filter(self, predicate: Callable[[ManifestEntry], bool]) -> Manifest:
        """Return a manifest of the entries for which `predicate` is true, in the same order."""
        return replace(
            self, entries=[entry for entry in self.entries if predicate(entry)], domain_names=dict(self.domain_names)
        )

    def merge(self, *others: Manifest) -> Manifest:
        """Return a manifest of the entries of this one and of the others.

        The result has a score range only if all manifests have the same.

        Raises:
            ManifestError: If two manifests have the same image, a domain ID has two names, or lower scores are better
                in some of the manifests and worse in others.
        """
        parts = (self, *others)
        for other in others:
            if other.score.higher_is_better != self.score.higher_is_better:
                raise ManifestError(
                    f"cannot merge {self.dataset} with {other.dataset}: in one of them lower scores are better; "
                    "merge their datasets from to_dataset() instead, which orients the scores"
                )
        names: dict[int, str] = {}
        for part in parts:
            for domain_id, name in part.domain_names.items():
                if names.setdefault(domain_id, name) != name:
                    what = f"domain {domain_id} is {names[domain_id]!r} in one and {name!r} in {part.dataset}"
                    raise ManifestError(f"cannot merge {self.dataset}: {what}; make them agree")
        score_names = {part.score.name for part in parts}
        score_ranges = {part.score.range for part in parts}
        merged = Manifest(
            dataset="+".join(dict.fromkeys(part.dataset for part in parts)),
            entries=[entry for part in parts for entry in part.entries],
            score=ScoreInfo(
                name=self.score.name if len(score_names) == 1 else "score",
                range=self.score.range if len(score_ranges) == 1 else None,
                higher_is_better=self.score.higher_is_better,
            ),
            domain_names=names,
            reference_based=any(part.reference_based for part in parts),
            source=", ".join(dict.fromkeys(part.source for part in parts if part.source)) or None,
        )
        if problems := merged.validate():
            raise ManifestError(f"cannot merge into {merged.dataset}: {summary(problems)}")
        return merged

    def oriented_scores(self) -> list[float]:
        """Return the scores, turned if needed so that higher is better.

        A turned score is the upper end of the range (without a range, the highest score) minus the score.
        """
        scores = [float(entry.score) for entry in self.entries]
        if self.score.higher_is_better or not scores:
            return scores
        top = self.score.range[1] if self.score.range else max(scores)
        return [top - score for score in scores]

    def oriented(self) -> Manifest:
        """Return the manifest with higher scores for better images: itself, or a copy with `oriented_scores`.

        Orient a dataset before you split it. Without a declared range, each part would be turned around its own
        highest score.
        """
        if self.score.higher_is_better or not self.entries:
            return self
        scores = self.oriented_scores()
        return replace(
            self,
            score=replace(self.score, range=self.oriented_range(), higher_is_better=True),
            entries=[replace(entry, score=score) for entry, score in zip(self.entries, scores, strict=True)],
        )

    def oriented_range(self) -> tuple[float, float] | None:
        """Return the declared range on the scale of `oriented_scores`; None if there is none."""
        if self.score.range is None or self.score.higher_is_better:
            return self.score.range
        return (0.0, self.score.range[1] - self.score.range[0])

    def scene_classes(self) -> tuple[list[str], list[int]]:
        """Return the scenes as classes.

        The class of an entry is its domain ID, or its scene name if it has no ID, or `"all"` if it has neither.

        Returns:
            The names of the classes (domains in the order of their IDs, then scenes by name, then `"all"`), and the
            index of the class of each entry.
        """
        keys = [_scene_key(entry) for entry in self.entries]
        order = sorted(set(keys))
        labels = dict(zip(keys, (entry.scene for entry in self.entries), strict=True))
        names = []
        for key in order:
            rank, domain_id, scene = key
            names.append(self.domain_names.get(domain_id) or labels[key] or str(domain_id) if rank == 0 else scene)
        # Class names must be unique, and two joined datasets may both have an "Animal".
        twice = {name for name in names if names.count(name) > 1}
        names = [
            f"{name} ({domain_id})" if rank == 0 and name in twice else name
            for name, (rank, domain_id, _) in zip(names, order, strict=True)
        ]
        position = {key: index for index, key in enumerate(order)}
        return names, [position[key] for key in keys]

    def to_dataset(
        self, image_root: str | os.PathLike[str], *, streaming: bool = False, oriented: bool = True
    ) -> Dataset | IterableDataset:
        """Return the manifest as a dataset of Hugging Face `datasets`.

        Columns: `image` (decoded when it is accessed), `score` (float64), `scene` (ClassLabel, see `scene_classes`),
        and `reference` (string) and `domain_id` (int64) if entries have them.

        Args:
            image_root: Folder that the image paths are relative to.
            streaming: Whether to return an `IterableDataset`.
            oriented: Whether the scores are those of `oriented_scores`. Otherwise they are as the dataset gives them.

        Raises:
            ManifestError: If the manifest is not valid or `image_root` is not a folder. Use `validate(image_root)` to
                find missing images.
        """
        from datasets import ClassLabel, Dataset, Features, Image, Value

        root = require_image_root(image_root).resolve()
        require_utf8_name(root)
        if problems := self.validate():
            raise ManifestError(f"{self.dataset}: {summary(problems)}")
        names, classes = self.scene_classes()
        columns: dict[str, list[Any]] = {
            "image": [str(root / entry.image) for entry in self.entries],
            "score": self.oriented_scores() if oriented else [float(entry.score) for entry in self.entries],
            "scene": classes,
        }
        features: dict[str, Any] = {"image": Image(), "score": Value("float64"), "scene": ClassLabel(names=names)}
        for name, kind in (("reference", "string"), ("domain_id", "int64")):
            values = [getattr(entry, name) for entry in self.entries]
            if any(value is not None for value in values):
                columns[name], features[name] = values, Value(kind)
        dataset = Dataset.from_dict(columns, features=Features(features))
        return dataset.to_iterable_dataset() if streaming else dataset

    def _direction_problems(self) -> list[Problem]:
        """Return a problem if the scores of a dataset of the catalog contradict the declared direction."""
        facts = CATALOG.get(self.dataset)
        shown = None if facts is None else direction_shown(facts, [(each.image, each.score) for each in self.entries])
        if shown in (None, self.score.higher_is_better):
            return []
        declared, real = ("higher", "lower") if self.score.higher_is_better else ("lower", "higher")
        what = f"score.higher_is_better says that {declared} is better, but among these scores {real} is better"
        return [Problem("score", f"{what}; correct score.higher_is_better and score.range")]

    def _header(self) -> dict[str, object]:
        bounds = self.score.range
        names = sorted(self.domain_names.items(), key=lambda item: item[0] if isinstance(item[0], int) else -1)
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "score": {**asdict(self.score), "range": None if bounds is None else [_plain(bound) for bound in bounds]},
            "domain_name": {_domain_key(key): name for key, name in names},
            "reference_based": self.reference_based,
            "source": self.source,
        }

    def _records(self) -> list[dict[str, object]]:
        """Return the entries as JSON objects: image and score, then the other fields that are not None."""
        return [
            {
                key: value
                for key in ENTRY_KEYS
                if (value := getattr(entry, key)) is not None or key in ("image", "score")
            }
            for entry in self.entries
        ]


def _plain(bound: float) -> float:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _domain_key(key: object) -> str:
    # repr keeps the string "300" from passing for the integer when it is checked.
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else repr(key)


def _scene_key(entry: ManifestEntry) -> tuple[int, int, str]:
    if entry.domain_id is not None:
        return (0, entry.domain_id, "")
    return (1, 0, entry.scene) if entry.scene is not None else (2, 0, "all")


def _domain_names(header: Mapping[str, Any]) -> dict[int, str]:
    return {int(key): name for key, name in (header.get("domain_name") or {}).items()}


def _from_document(document: ManifestDocument) -> Manifest:
    header: dict[str, Any] = document.header
    records: list[Any] = document.records
    score = header.get("score") or {}
    bounds = score.get("range")
    return Manifest(
        dataset=header["dataset"],
        # The checks allow no other keys.
        entries=[ManifestEntry(**(record | {"score": float(record["score"])})) for record in records],
        score=ScoreInfo(
            name=score.get("name", "MOS"),
            range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
            higher_is_better=score.get("higher_is_better", True),
        ),
        domain_names=_domain_names(header),
        reference_based=header.get("reference_based", False),
        source=header.get("source"),
    )
