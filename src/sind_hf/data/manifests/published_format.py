"""Conversion of the files that were published with the paper to schema version 1.

A published file holds `{"files": […]}`, sometimes with `domain_name`. An entry may have `scene`, `style`, `dist_type`
or `dist_dype` beside `domain_id`. The image paths tell the dataset.

LIVE and CSIQ were published in both directions: the whole manifests hold the DMOS of the authors, and the random
splits hold flipped scores. The direction is read from the scores of the file, once, and written into the header.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sind_hf.data.manifests.catalog import DatasetFacts, dataset_of
from sind_hf.data.manifests.document import ManifestDocument, read_document
from sind_hf.data.manifests.score_direction import LEAST_CORRELATION, correlation, direction_shown
from sind_hf.data.manifests.validation import SCHEMA_VERSION, ManifestError, score_fault

#: Places of a dataset's whole manifest in a manifest folder: ours, then the published ones.
WHOLE_MANIFESTS = ("{name}/all.json", "all/{name}_all.json", "{name}.json")

# random_split/<name>/<number>/train.json is the deepest file of the published layout.
_DEEPEST = 4
# A folder with more files is not a fold.
_MOST_SIDES = 8

_DISTORTIONS = ("dist_type", "dist_dype", "distortion")
_LABELS = ("scene", "style", "dist_type", "dist_dype")


def upgrade_published_document(document: ManifestDocument, path: Path) -> None:
    """Change a published document to schema version 1, in place. Unknown keys are dropped, and nothing is checked.

    Args:
        document: Parsed file without `schema_version`.
        path: Path of the file. Its stem names the dataset if the catalog does not know the image paths.

    Raises:
        ManifestError: If the file joins datasets whose scores run in opposite directions, or the direction of the
            scores is unknown.
    """
    names = document.header.get("domain_name")
    if isinstance(names, dict):
        names = {key: _label(name) for key, name in names.items()}
    document.records = [_record(record) for record in document.records]
    _derive_scenes(document.records, names)
    document.header = {"schema_version": SCHEMA_VERSION, "domain_name": names, "source": path.name} | _facts(
        document.records, path
    )


def _record(record: object) -> object:
    if not isinstance(record, dict):
        return record
    known = {key: record[key] for key in ("image", "score", "domain_id", "reference") if key in record}
    for name, keys in (("scene", _LABELS), ("distortion", _DISTORTIONS)):
        label = next((record[key] for key in keys if record.get(key) is not None), None)
        if label is not None:
            known[name] = _label(label)
    return known


def _label(value: object) -> object:
    """Return a label as text. Some datasets use numbers (the reference number of TID2013)."""
    return str(value) if type(value) is int and abs(value) < 10**9 else value


def _derive_scenes(records: list[object], names: object) -> None:
    """Set the scene of every entry by its domain ID.

    The published code trains on the ID alone. For SPAQ images with several scenes its generator may have drawn the
    scene name independently of the ID.
    """
    scene_of: dict[str, object] = dict(names) if isinstance(names, dict) else {}
    for record in records:
        if isinstance(record, dict) and "scene" in record and type(record.get("domain_id")) is int:
            record["scene"] = scene_of.setdefault(str(record["domain_id"]), record["scene"])


def _facts(records: list[object], path: Path) -> dict[str, object]:
    """Return the header fields that follow from the image paths and the scores."""
    images = [record["image"] for record in records if isinstance(record, dict) and "image" in record]
    facts = list(dict.fromkeys(dataset_of(image) for image in images if isinstance(image, str)))
    known: list[DatasetFacts] = [fact for fact in facts if fact is not None]
    if not known or len(known) != len(facts):
        return {"dataset": path.stem}
    scored = _scored(records)
    directions = {
        fact: _direction(fact, [pair for pair in scored if dataset_of(pair[0]) == fact], path) for fact in known
    }
    if len(set(directions.values())) > 1:
        names = ", ".join(fact.name for fact in known)
        raise ManifestError(
            f"{path}: joins {names}, whose scores run in opposite directions; load one file per dataset"
        )
    scales = {(fact.score_name, _range(fact, directions[fact])) for fact in known}
    name, bounds = scales.pop() if len(scales) == 1 else ("score", None)
    return {
        "dataset": "+".join(fact.name for fact in known),
        "score": {"name": name, "range": bounds, "higher_is_better": directions[known[0]]},
        "reference_based": all(fact.reference_based for fact in known),
    }


def _scored(records: Iterable[object]) -> list[tuple[str, float]]:
    """Return the image path and the score of every record that has valid ones."""
    return [
        (record["image"], float(record["score"]))
        for record in records
        if isinstance(record, dict) and isinstance(record.get("image"), str) and not score_fault(record.get("score"))
    ]


def _range(facts: DatasetFacts, higher_is_better: bool) -> tuple[float, float] | None:
    if facts.score_range is None or higher_is_better == facts.higher_is_better:
        return facts.score_range
    return (0.0, facts.score_range[1] - facts.score_range[0])


def _direction(facts: DatasetFacts, scored: Sequence[tuple[str, float]], path: Path) -> bool:
    """Whether higher is better among the scores that a published file has of one dataset."""
    own = direction_shown(facts, scored)
    if facts.higher_is_better or _is_whole(facts, path):
        return _direction_of_whole(facts, scored)
    whole_path, whole, whole_direction = _whole_manifest(facts, path)
    common = [(score, whole[image]) for image, score in scored if image in whole]
    agreement = correlation(common)
    if agreement is not None:
        compared = whole_direction if agreement > 0 else not whole_direction
        if abs(agreement) < LEAST_CORRELATION or own not in (None, compared):
            raise ManifestError(
                f"{path}: the scores of {facts.display_name} contradict {whole_path} (correlation {agreement:.2f}); "
                "take both files from one source"
            )
        return compared
    if own is None:
        own = direction_shown(facts, [*scored, *_sides_beside(facts, path)])
    if own is None and len({score for _, score in scored}) > 1:
        raise ManifestError(
            f"{path}: the file does not tell whether its scores of {facts.display_name} are {facts.score_name} (lower "
            f"is better) or flipped (higher is better); add the whole manifest of the dataset to the manifest folder "
            f"as all/{facts.name}_all.json, or write schema version {SCHEMA_VERSION} with score.higher_is_better"
        )
    return facts.higher_is_better if own is None else own


def _whole_manifest(facts: DatasetFacts, path: Path) -> tuple[Path | None, dict[str, float], bool]:
    """Find the whole manifest in the manifest folder of a file; return its path, its scores and their direction."""
    for folder in path.absolute().parents[:_DEEPEST]:
        for pattern in WHOLE_MANIFESTS[:2]:
            whole = folder / pattern.format(name=facts.name)
            if whole.is_file() and not whole.samefile(path):
                document = read_document(whole)
                scored = _scored(document.records)
                declared = document.header.get("score")
                direction = declared.get("higher_is_better") if isinstance(declared, dict) else None
                if not isinstance(direction, bool):
                    direction = _direction_of_whole(facts, scored)
                return whole, dict(scored), direction
    return None, {}, facts.higher_is_better


def _direction_of_whole(facts: DatasetFacts, scored: Sequence[tuple[str, float]]) -> bool:
    """Whether higher is better in a whole manifest; these were published with the scores of the dataset's authors."""
    shown = direction_shown(facts, scored)
    return facts.higher_is_better if shown is None else shown


def _is_whole(facts: DatasetFacts, path: Path) -> bool:
    return any(path.absolute().match(pattern.format(name=facts.name)) for pattern in WHOLE_MANIFESTS[:2])


def _sides_beside(facts: DatasetFacts, path: Path) -> list[tuple[str, float]]:
    """Return the scores of the other sides of the fold, which run in the same direction."""
    others = [other for other in sorted(path.absolute().parent.glob("*.json")) if not other.samefile(path)]
    if len(others) > _MOST_SIDES:
        return []
    found: list[tuple[str, float]] = []
    for other in others:
        document = read_document(other)
        if "schema_version" not in document.header:
            found += [pair for pair in _scored(document.records) if dataset_of(pair[0]) == facts]
    return found
