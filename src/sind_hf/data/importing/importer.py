"""Making a manifest of a user's own scores: tables, folders, saved datasets and datasets on the Hub.

Rows that cannot be used are left out and reported by number.

Example:
    result = import_manifest("study/scores.csv", columns={"score": "rating"})
    result.manifest.save("study.json")
    for row in result.left_out:
        print(row)                                      # row 17: score is missing
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path, PurePosixPath

from sind_hf.data.importing.hub_datasets import is_saved_dataset, read_hub_dataset, read_saved_dataset
from sind_hf.data.importing.tables import COLUMN_NAMES, SUFFIXES, Table, find_column, read_table, shown_columns
from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo
from sind_hf.data.manifests.validation import ManifestError, entry_faults, file_fault, normal_path, require_image_root
from sind_hf.files import atomic_file, counted, reason, shown
from sind_hf.image_processing_sind import ImageError, open_image, open_regular_file

# File names that many datasets share; such a dataset is named after its folder.
_GENERAL_NAMES = ("scores", "score", "mos", "dmos", "labels", "ratings", "metadata", "data", "all", "train", "test")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class LeftOutRow:
    """A row of the source that is not in the manifest.

    Attributes:
        row: Number of the row; see `Table.rows`.
        what: Reason.
    """

    row: int
    what: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.what}"


@dataclass
class ImportResult:
    """Result of an import.

    Attributes:
        manifest: The usable rows.
        image_root: Folder that the image paths of the manifest are relative to.
        left_out: The other rows, in their order.
        columns: Column of the source for each kind of value.
        notes: Decisions that the user may want to change, one sentence each.
    """

    manifest: Manifest
    image_root: Path
    left_out: list[LeftOutRow]
    columns: dict[str, str]
    notes: list[str] = field(default_factory=list)


def import_manifest(
    source: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    score: ScoreInfo | None = None,
    split: str | None = None,
    images_to: str | os.PathLike[str] | None = None,
    mean: bool = False,
    follow_links: bool = False,
) -> ImportResult:
    """Make a manifest of the scores in a table or dataset.

    The manifest is not written: save `result.manifest`. Images are written only with `images_to`.

    Args:
        source: A table (CSV, TSV, .xlsx, JSON Lines, a JSON list, Parquet); a folder with such a table, whose
            subfolders may be the scenes; a dataset saved by `datasets`; or the name of a dataset on the Hub
            (`user/name`).
        dataset: Name of the dataset. Default: the name of the file or folder.
        image_root: Folder that the paths of the table are relative to. Default: the folder of the table. An image that
            is not at its path is searched by name below this folder.
        columns: Columns to use instead of the guessed ones, by kind: `image`, `score`, `scene`, `reference`,
            `distortion`, `domain_id`.
        score: Meaning of the scores. Default: no range, higher is better. An empty name becomes the column's name.
        split: Split to read, if the dataset has several.
        images_to: Folder to copy the images to; it becomes the image root. Needed for datasets that hold the images
            themselves.
        mean: Whether the score of an image with several rows is their mean. Otherwise the first row counts and the
            others are left out.
        follow_links: Whether symbolic links may lead out of the image root.

    Raises:
        ManifestError: If the source cannot be read, a column is not found, or no row is usable.
    """
    name, path, columns = os.fspath(source), Path(source), columns or {}
    table, folder, scenes_may_be_folders = _open(name, path, split, list(columns.values()))
    found = _columns(table, columns, table.name or name)
    root = require_image_root(folder if image_root is None else image_root)
    images = _Images(name, root.resolve(), None if images_to is None else Path(images_to), follow_links)
    entries, left_out, notes = _entries(table, found, images, mean)
    if not entries:
        first = f"the first is {left_out[0]}" if left_out else "it has none"
        raise ManifestError(f"{name}: none of its {len(left_out)} rows can be used; {first}")
    if scenes_may_be_folders and "scene" not in found and (by_folder := _scenes_by_folder(entries)):
        entries = by_folder
        notes.append("the subfolders are taken as scenes; name a scene column if they are not")
    if score is None:
        score = ScoreInfo(name=found["score"])
        notes.append(f"scores are read from the column {found['score']!r}, higher taken as better")
    elif not score.name:
        score = replace(score, name=found["score"])
    manifest = Manifest(
        dataset=dataset or _default_name(name, path),
        entries=entries,
        score=score,
        domain_names={
            entry.domain_id: entry.scene for entry in entries if entry.domain_id is not None and entry.scene
        },
        reference_based=any(entry.reference is not None for entry in entries),
        source=table.name or (path.name if path.exists() else name),
    )
    if problems := manifest.validate():
        raise ManifestError(f"{name}: {problems[0]}")
    return ImportResult(manifest, images.target or root, left_out, found, notes)


def _open(name: str, path: Path, split: str | None, asked: list[str]) -> tuple[Table, Path, bool]:
    """Return the table of a source, the folder of its images, and whether its subfolders may be scenes."""
    if path.is_dir():
        if is_saved_dataset(path):
            return read_saved_dataset(path, split), path, False
        return read_table(_table_of_folder(path), asked), path, True
    if path.is_file() or path.suffix.lower() in SUFFIXES:
        return read_table(path, asked), path.parent, False
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return read_hub_dataset(name, split), Path(), False
    raise ManifestError(f"{name}: there is no such file or folder; check the path")


def _table_of_folder(folder: Path) -> Path:
    for name in _METADATA:
        if (folder / name).is_file():
            return folder / name
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    likely = [path for path in tables if re.search("score|mos|label|rating", path.stem.lower())]
    if len(tables) == 1 or len(likely) == 1:
        return (likely or tables)[0]
    if not tables:
        what = f"there is no table of scores in the folder; add one ({', '.join(SUFFIXES)})"
        raise ManifestError(f"{folder}: {what} with an image and a score column")
    names = ", ".join(path.name for path in tables[:10])
    raise ManifestError(f"{folder}: there are several tables ({names}); name the one with the scores as the source")


def _columns(table: Table, asked: Mapping[str, str], name: str) -> dict[str, str]:
    if unknown := [kind for kind in asked if kind not in COLUMN_NAMES]:
        raise ManifestError(f"columns names {unknown[0]!r}; it can name {', '.join(COLUMN_NAMES)}")
    found: dict[str, str] = {}
    for kind in COLUMN_NAMES:
        free = [column for column in table.columns if column not in found.values()]
        column = find_column(kind, table.columns if kind in asked else free, asked.get(kind), name)
        if column is not None:
            found[kind] = column
        elif kind in ("image", "score"):
            raise ManifestError(f"{name}: no column looks like the {kind}; name it, of {shown_columns(table.columns)}")
    return found


def _default_name(name: str, path: Path) -> str:
    """Name a dataset after its repository, its folder or its file; a file named `scores.csv` says nothing of it."""
    if not path.exists():
        return name.rpartition("/")[2]
    path = path.resolve()
    if path.is_dir():
        return path.name
    return (path.parent.name or path.stem) if path.stem.lower() in _GENERAL_NAMES else path.stem


class _Images:
    """Finds the image of each row, and copies it if a target folder is given."""

    def __init__(self, source: str, root: Path, target: Path | None, follow_links: bool) -> None:
        self.source, self.root, self.target, self.follow_links = source, root, target, follow_links
        self._inside: dict[str, bool] = {}
        self._by_name: dict[str, list[str]] | None = None
        self._written: set[str] = set()

    def place(self, cell: object, row: int) -> str:
        """Return the manifest path of the image in a cell: a path, bytes, or a dictionary of `bytes` and `path`.

        Raises:
            ValueError: If the row cannot be used.
            ManifestError: If the source holds images and there is no folder to write them to.
        """
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (None, cell)
        if isinstance(cell, bytes):
            data, path = cell, None
        if isinstance(data, bytes):
            if self.target is None:
                raise ManifestError(f"{self.source}: it holds its images; name a folder to write them to (images_to)")
            return self._write(data, self._file_name(data, path, row))
        if not isinstance(path, str) or not path.strip():
            raise ValueError("image is missing" if path in (None, "") else f"image is {shown(path)}, not a path")
        found = self._find(path.strip())
        if self.target is None:
            return found
        try:
            with open_regular_file(self.root / found) as file:
                content = file.read()
        except OSError as error:
            raise ValueError(f"image {shown(PurePosixPath(found).name)} cannot be read ({reason(error)})") from error
        return self._write(content, found)

    def _find(self, text: str) -> str:
        path = text.replace("\\", "/")
        if Path(path).is_absolute():
            real = Path(path).resolve()
            if not real.is_relative_to(self.root):
                raise ValueError(
                    f"image {shown(text)} is outside the image root; name another one (image_root) or have the images "
                    "copied (images_to)"
                )
            path = real.relative_to(self.root).as_posix()
        if faults := entry_faults({"image": path, "score": 0.0}):
            raise ValueError(faults[0][1])
        path = normal_path(path)
        if not (self.root / path).is_file():
            places = [place for place in self._places(path) if (self.root / place).is_file()]
            if len(places) != 1:
                count = f"{len(places)} files of that name" if places else "no such file"
                raise ValueError(f"image {shown(text)}: there is {count} in the image root")
            path = places[0]
        if fault := file_fault(self.root, path, follow_links=self.follow_links, inside=self._inside):
            raise ValueError(f"image {shown(text)}: {fault[1]}")
        return path

    def _places(self, path: str) -> list[str]:
        """Return the files that a path may mean: those with the same path, else those with the same name.

        Tables and disks differ in case (.jpg, .JPG) and in the Unicode form of accents (macOS). A file with exactly
        the same spelling takes precedence.
        """
        if self._by_name is None:
            self._by_name = {}
            for folder, _, names in os.walk(self.root):
                for name in names:
                    relative = Path(folder, name).relative_to(self.root).as_posix()
                    self._by_name.setdefault(_folded(name), []).append(relative)
        name = PurePosixPath(path).name
        found = self._by_name.get(_folded(name), [])
        found = [place for place in found if _folded(place) == _folded(path)] or found
        return [place for place in found if PurePosixPath(place).name == name] or found

    def _file_name(self, data: bytes, path: object, row: int) -> str:
        """Return a file name for an embedded image: its own if it is usable, else one made from the row number."""
        try:
            with open_image(data) as image:
                kind = (image.format or "").lower()
        except ImageError as error:
            raise ValueError(f"the image cannot be opened ({str(error).removeprefix('bytes: ')})") from error
        name = PurePosixPath(path.replace("\\", "/")).name if isinstance(path, str) else ""
        if not name or entry_faults({"image": name, "score": 0.0}):
            name = f"{row:06d}"
        stem, suffix = os.path.splitext(name)
        suffix = suffix or "." + {"jpeg": "jpg"}.get(kind, kind)
        return f"{stem}{suffix}" if f"{stem}{suffix}" not in self._written else f"{stem}_{row}{suffix}"

    def _write(self, data: bytes, relative: str) -> str:
        target = Path(self.target or ".") / relative
        if target.is_file() and target.read_bytes() != data:
            raise ValueError(
                f"{shown(relative)} exists in the target folder with other content; choose an empty folder"
            )
        try:
            with atomic_file(target) as part:
                part.write_bytes(data)
        except ValueError as error:
            raise ManifestError(str(error)) from error
        self._written.add(relative)
        return relative


def _folded(text: str) -> str:
    """Return a spelling that is the same for both Unicode forms of a letter and for both cases."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _entries(
    table: Table, found: Mapping[str, str], images: _Images, mean: bool
) -> tuple[list[ManifestEntry], list[LeftOutRow], list[str]]:
    entries: dict[str, ManifestEntry] = {}
    ratings: dict[str, list[float]] = {}
    commas = again = 0
    left_out: list[LeftOutRow] = []
    row_of: dict[str, int] = {}
    scene_of: dict[int, str] = {}
    for number, row in table.rows:
        try:
            if isinstance(row, str):
                raise ValueError(row)
            # The score comes first, so that the image of a row without a score is not copied.
            cell = row.get(found["score"])
            record: dict[str, object] = {"score": _score(cell, table.decimal_comma)}
            for kind in ("scene", "reference", "distortion"):
                record[kind] = _label(row.get(found[kind])) if kind in found else None
            record["domain_id"] = _domain_id(row.get(found["domain_id"])) if "domain_id" in found else None
            if faults := entry_faults({"image": "none", **record}):
                raise ValueError(faults[0][1])
            scene, domain_id = record["scene"], record["domain_id"]
            if isinstance(scene, str) and isinstance(domain_id, int) and scene_of.get(domain_id, scene) != scene:
                raise ValueError(f"scene {shown(scene)}, but domain {domain_id} is {shown(scene_of[domain_id])} above")
            image = images.place(row.get(found["image"]), number)
            entry = ManifestEntry(image=image, **record)  # type: ignore[arg-type]
            if row_of.setdefault(image, number) != number:
                again += 1
                if not mean:
                    raise ValueError(f"image {shown(image)} is already in row {row_of[image]}")
                if replace(entry, score=entries[image].score) != entries[image]:
                    raise ValueError(
                        f"image {shown(image)} has another scene, reference or distortion in row {row_of[image]}"
                    )
            if isinstance(scene, str) and isinstance(domain_id, int):
                scene_of[domain_id] = scene
            entries.setdefault(image, entry)
            ratings.setdefault(image, []).append(entry.score)
            commas += isinstance(cell, str) and "," in cell
        except ManifestError:
            raise
        except ValueError as error:
            left_out.append(LeftOutRow(number, str(error)))
    notes = [f"{counted(commas, 'score')} with a decimal comma"] if commas else []
    if again and not mean:
        notes.append(
            f"left out {counted(again, 'row')} with another rating of the same image; "
            "--mean averages the ratings of an image"
        )
    if several := [len(each) for each in ratings.values() if len(each) > 1]:
        notes.append(
            f"{counted(len(several), 'image')} with {min(several)} to {max(several)} ratings; the score is their mean"
        )
    averaged = [
        replace(entry, score=math.fsum(ratings[image]) / len(ratings[image])) for image, entry in entries.items()
    ]
    return averaged, left_out, notes


def _score(cell: object, decimal_comma: bool) -> object:
    """Return the number in a cell; other values than text and numbers are returned as they are, for later checks."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ValueError("score is missing")
    if isinstance(cell, Decimal):
        return float(cell)
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text) and not decimal_comma:
        raise ValueError(f"score {shown(text)} can be read in two ways; write it with a decimal point")
    if re.fullmatch(r"[+-]?\d*,\d+", text):
        text = text.replace(",", ".")
    # float() also accepts "nan", "inf" and "1_000", which are not scores.
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"score is {shown(text)}, which is not a number")
    return float(text)


def _label(cell: object) -> object:
    """Return the text in a cell; None if it is empty. Numbers become text."""
    if isinstance(cell, float):
        # Most tools give columns of whole numbers with gaps as floats, and the gaps as NaN.
        return None if cell != cell else str(int(cell)) if cell.is_integer() else str(cell)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    return (cell.strip() or None) if isinstance(cell, str) else cell


def _domain_id(cell: object) -> object:
    label = _label(cell)
    return int(label) if isinstance(label, str) and re.fullmatch(r"\d{1,10}", label) else label


def _scenes_by_folder(entries: list[ManifestEntry]) -> list[ManifestEntry]:
    """Return the entries with their first folder as the scene; an empty list if the folders cannot be scenes."""
    folders = [PurePosixPath(entry.image).parts[:-1] for entry in entries]
    if not all(folders) or len({parts[0] for parts in folders}) < 2:
        return []
    return [replace(entry, scene=parts[0]) for entry, parts in zip(entries, folders, strict=True)]
