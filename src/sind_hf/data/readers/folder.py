"""An own opinion study: a folder of images with one table of scores (CSV, TSV, JSON lines or Parquet)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..catalog import DatasetFacts
from ..manifest import ScoreInfo
from .download import Download, ImageFolder, LabelFileError
from .labels import csv_rows, number, squeeze, text_lines
from .reader import LabelledImage, Labels, Reader, alphabetical_ids

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMN_NAMES = {
    "image": ("image", "image_name", "image_path", "file", "file_name", "path", "img", "name"),
    "score": ("score", "mos", "dmos", "quality", "rating"),
    "scene": ("scene", "scene_name", "category", "semantic"),
    "reference": ("reference", "ref", "ref_img", "reference_image"),
    "distortion": ("distortion", "dist_type", "distortion_type"),
}
# Above the ids of the published datasets, so that a joint training keeps the scenes apart.
FIRST_DOMAIN = 2000


def read(
    download: Download,
    facts: DatasetFacts | None,
    *,
    table: str | None = None,
    dataset: str | None = None,
    image: str | None = None,
    score: str | None = None,
    scene: str | None = None,
    reference: str | None = None,
    distortion: str | None = None,
    score_range: str | tuple[float, float] | None = None,
    lower_is_better: str | bool = False,
    first_domain_id: str | int = FIRST_DOMAIN,
) -> Labels:
    """Read a table of scores.

    Args:
        download: The study's folder.
        facts: None; an own study is not in the catalog.
        table: Path of the table below the folder; by default the only table that lies in it.
        dataset: Name of the dataset; the folder's name by default.
        image: Column of image paths, relative to the folder or to the table.
        score: Column of scores; also its name in the manifest.
        scene: Column of scenes; the other columns likewise default to the usual names.
        reference: Column of reference images.
        distortion: Column of distortion names.
        score_range: Lowest and highest possible score, `"1,5"`; open by default.
        lower_is_better: True for difference scores.
        first_domain_id: Domain id of the alphabetically first scene.

    Raises:
        LabelFileError: No table or several, or a column is missing.
        ValueError: An option cannot be read.
    """
    path = _table_path(download.folder, table)
    rows, header = _rows(path)
    named = {"image": image, "score": score, "scene": scene, "reference": reference, "distortion": distortion}
    columns = {role: _column(role, name, header, path) for role, name in named.items()}
    scenes = [_text(row, columns["scene"]) for row in rows]
    ids = alphabetical_ids([name for name in scenes if name is not None], int(first_domain_id))
    folder = download.images("")
    images = [
        LabelledImage(
            image=_find(folder, _text(row, columns["image"]) or "", path),
            score=number(row.get(columns["score"] or "")),
            scene=scene_name,
            domain_id=None if scene_name is None else ids[scene_name],
            reference=_text(row, columns["reference"]),
            distortion=_text(row, columns["distortion"]),
        )
        for row, scene_name in zip(rows, scenes, strict=True)
    ]
    info = ScoreInfo(
        name=columns["score"] or "score",
        range=_limits(score_range),
        higher_is_better=str(lower_is_better).lower() not in ("true", "1", "yes"),
    )
    return Labels(
        images,
        dataset=dataset or download.folder.name,
        domain_names={domain_id: name for name, domain_id in ids.items()},
        score=info,
        source=path.name,
        notes=() if score_range else ("the scale of the scores is not known: give option score_range, like 1,5",),
    )


def _table_path(folder: Path, table: str | None) -> Path:
    if table is not None:
        path = folder / table
        if not path.is_file():
            raise LabelFileError(f"folder: table {path} not found; give option table relative to {folder}")
        if path.suffix.lower() not in SUFFIXES:
            raise LabelFileError(f"folder: table {path} must be one of {', '.join(SUFFIXES)}")
        return path
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise LabelFileError(f"folder: expected one table ({', '.join(SUFFIXES)}) in {folder}, found {found}; name it")
    return tables[0]


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    suffix = path.suffix.lower()
    rows: list[dict[str, Any]]
    if suffix == ".parquet":
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_table

        try:
            rows = read_table(path).to_pylist()
        except ArrowInvalid as error:
            raise LabelFileError(f"{path}: not a readable Parquet file ({error})") from error
    elif suffix == ".jsonl":
        rows = []
        for line_number, line in enumerate(text_lines(path), start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except json.JSONDecodeError as error:
                raise LabelFileError(f"{path}, line {line_number}: not JSON ({error})") from error
            if row is not None and not isinstance(row, dict):
                raise LabelFileError(f"{path}, line {line_number}: expected an object, got {line.strip()[:60]}")
            rows += [row] if row is not None else []
    else:
        lines = csv_rows(path, delimiter="\t" if suffix == ".tsv" else ",")
        header = next(lines, [])
        rows = [dict(zip(header, line, strict=False)) for line in lines if line]
        return rows, header
    return rows, list(dict.fromkeys(key for row in rows for key in row))


def _column(role: str, name: str | None, header: Iterable[str], path: Path) -> str | None:
    by_squeezed = {squeeze(column): column for column in header}
    for candidate in [name] if name is not None else COLUMN_NAMES[role]:
        if squeeze(candidate) in by_squeezed:
            return by_squeezed[squeeze(candidate)]
    if name is None and role not in ("image", "score"):
        return None
    raise LabelFileError(
        f"{path}: no column {name or role!r}; its columns are {', '.join(header) or 'none'}; "
        f"name the right one with option {role}"
    )


def _find(folder: ImageFolder, name: str, table: Path) -> str:
    beside_table = table.parent.relative_to(folder.folder)
    near = (beside_table / name).as_posix()
    return folder.find(near if folder.holds(near) and not folder.holds(name) else name)


def _text(row: dict[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    text = "" if value is None else str(value).strip()
    return text or None


def _limits(score_range: str | tuple[float, float] | None) -> tuple[float, float] | None:
    if score_range is None:
        return None
    parts = score_range.split(",") if isinstance(score_range, str) else list(score_range)
    limits = [number(part) for part in parts]
    if len(limits) != 2 or not limits[0] < limits[1]:
        raise ValueError(
            f"folder: option score_range must be two numbers, lowest first, like 1,5; got {score_range!r}"
        )
    return limits[0], limits[1]


READER = Reader(
    name="folder",
    folders=(),
    labels={},
    read=read,
    options=(
        "table",
        "dataset",
        "image",
        "score",
        "scene",
        "reference",
        "distortion",
        "score_range",
        "lower_is_better",
        "first_domain_id",
    ),
)
