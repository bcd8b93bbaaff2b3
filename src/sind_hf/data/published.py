"""The files that were published with the paper, brought into the form of schema version 1.

They hold `{"files": […]}`, sometimes with `domain_name`. Beside `domain_id` an entry has `scene`, `style`, `dist_type`
or `dist_dype`, or nothing; which dataset it is and what the scores mean is known only from the image paths.
"""

from __future__ import annotations

from pathlib import Path

from .catalog import DatasetFacts, dataset_of
from .manifest_file import ManifestDocument
from .validation import SCHEMA_VERSION, ManifestError

_DISTORTIONS = ("dist_type", "dist_dype", "distortion")
_LABELS = ("scene", "style", "dist_type", "dist_dype")


def adopt(document: ManifestDocument, path: Path) -> None:
    """Give a published document the header and the records of schema version 1, in place.

    Keys that have no meaning in a manifest are dropped. Nothing is checked: what is wrong stays wrong.

    Args:
        document: A parsed file without `schema_version`.
        path: Where it was read from; its stem is the dataset's name where the catalog does not know the image paths.

    Raises:
        ManifestError: If it joins datasets whose scores run in opposite directions.
    """
    names = document.header.get("domain_name")
    if isinstance(names, dict):
        names = {key: _label(name) for key, name in names.items()}
    document.records = [_record(record) for record in document.records]
    _let_the_domain_decide(document.records, names)
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
    """Labels are numbers in some sets (TID2013's reference number)."""
    return str(value) if type(value) is int and abs(value) < 10**9 else value


def _let_the_domain_decide(records: list[object], names: object) -> None:
    """Make the scene follow the domain id.

    The published code trains on the id alone, and its generator may have drawn the scene name of a SPAQ image with
    several scenes independently of the id.
    """
    scene_of: dict[str, object] = dict(names) if isinstance(names, dict) else {}
    for record in records:
        if isinstance(record, dict) and "scene" in record and type(record.get("domain_id")) is int:
            record["scene"] = scene_of.setdefault(str(record["domain_id"]), record["scene"])


def _facts(records: list[object], path: Path) -> dict[str, object]:
    """Dataset, score and kind of the dataset, from the image paths."""
    images = [
        record["image"] for record in records if isinstance(record, dict) and isinstance(record.get("image"), str)
    ]
    facts = list(dict.fromkeys(dataset_of(image) for image in images))
    known: list[DatasetFacts] = [fact for fact in facts if fact is not None]
    if not known or len(known) != len(facts):
        return {"dataset": path.stem}
    if len({fact.higher_is_better for fact in known}) > 1:
        names = ", ".join(fact.name for fact in known)
        raise ManifestError(
            f"{path}: joins {names}, whose scores run in opposite directions; load one file per dataset"
        )
    scores = [(fact.score_name, fact.score_range) for fact in known]
    name, bounds = scores[0] if len(set(scores)) == 1 else ("score", None)
    return {
        "dataset": "+".join(fact.name for fact in known),
        "score": {"name": name, "range": bounds, "higher_is_better": known[0].higher_is_better},
        "reference_based": all(fact.reference_based for fact in known),
    }
