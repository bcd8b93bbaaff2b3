"""Rows of tables with scores: CSV, TSV, spreadsheets, JSON Lines, JSON lists and Parquet.

A row that cannot be read does not end the table. Its place is taken by the reason.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sind_hf.data.manifests.document import parse_json
from sind_hf.data.manifests.validation import ManifestError
from sind_hf.files import open_text, read_text, reason, shown
from sind_hf.image_processing_sind import open_regular_file

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson", ".json", ".parquet")

#: Usual names of the columns, best first. They are compared without case, spaces and punctuation.
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        *("image", "file_name", "image_name", "image_path", "image_file"),
        *("img", "img_name", "img_path", "dist_img", "path", "file", "name"),
    ),
    "score": (
        *("mos", "mos_zscore", "score", "mean_opinion_score"),
        *("mos_quality", "quality_score", "quality_mos", "quality"),
        *("dmos", "jod", "mean_score", "rating", "mean_rating", "aesthetic_score"),
    ),
    "scene": ("scene", "scene_category", "category", "semantic", "content", "class", "label", "style"),
    "reference": ("reference", "ref", "reference_image", "ref_img", "ref_image", "ref_name"),
    "distortion": ("distortion", "dist_type", "distortion_type"),
    "domain_id": ("domain_id",),
}

LONGEST_LINE = 2**24  # characters
MOST_JSON = 2**27  # bytes of a JSON list, which takes many times as much memory
MOST_BATCH = 2**29  # bytes of the Parquet rows that are read together
MOST_ROW_GROUP = 2**31  # bytes of Parquet data before compression
MOST_COLUMNS = 10_000
MOST_ROWS = 2_000_000  # as many as a manifest can hold

Row = Mapping[str, object] | str

#: The header is one of the first rows, below titles and remarks.
_HEADER_WITHIN = 20


@dataclass(frozen=True)
class Table:
    """A table whose rows are read as they are iterated.

    Attributes:
        rows: Pairs of a row's number and its cells, or the reason why it cannot be read. Rows of text files and
            spreadsheets have the numbers that an editor shows (the header of a CSV file is row 1). Rows of JSON lists
            and Parquet files count from 1.
        name: Name of the file; empty if the rows come from elsewhere.
        decimal_comma: Whether a comma in a number can only be a decimal comma, as in files with semicolons between
            the cells.
    """

    columns: Sequence[str]
    rows: Iterator[tuple[int, Row]]
    name: str = ""
    decimal_comma: bool = False


def read_table(path: Path, asked: Collection[str] = ()) -> Table:
    """Open a table by the suffix of its name.

    Args:
        asked: Columns that the user named. They help to find the header.

    Raises:
        ManifestError: If the file is missing, is not a table, or has no rows or too many columns.
    """
    readers: dict[str, Callable[[Path], Table]] = {
        ".csv": partial(_read_csv, asked=asked),
        ".tsv": partial(_read_csv, asked=asked),
        ".xlsx": partial(_read_xlsx, asked=asked),
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_json,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        kind = f"files of type {path.suffix!r}" if path.suffix else "files without a suffix"
        raise ManifestError(f"{path}: {kind} cannot be imported; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ManifestError(f"{path}: there is no such file; check the path")
    try:
        table = reader(path)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    if len(table.columns) > MOST_COLUMNS:
        raise ManifestError(f"{path}: more than {MOST_COLUMNS:,} columns; keep those with images, scores and scenes")
    return replace(table, name=path.name, rows=_first_rows(table.rows))


def _first_rows(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    yield from islice(rows, MOST_ROWS)
    for number, _ in rows:
        yield number, f"the table has more than {MOST_ROWS:,} rows; the rest is not read"
        return


def find_column(kind: str, columns: Sequence[str], asked: str | None, source: str) -> str | None:
    """Find the column of one kind; None if no column has a usual name.

    Args:
        kind: A key of `COLUMN_NAMES`.
        asked: Column that the user named; None to guess.
        source: Name of the table, for messages.

    Raises:
        ManifestError: If the column that the user named does not exist.
    """
    if asked is not None:
        if asked in columns:
            return asked
        if len(alike := [column for column in columns if squeeze(column) == squeeze(asked)]) == 1:
            return alike[0]
        near = get_close_matches(asked, columns, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {shown_columns(columns)}"
        raise ManifestError(f"{source}: there is no column {asked!r} for the {kind}; {hint}")
    by_key: dict[str, str] = {}
    for column in columns:
        by_key.setdefault(squeeze(column), column)
    return next((by_key[squeeze(name)] for name in COLUMN_NAMES[kind] if squeeze(name) in by_key), None)


def shown_columns(columns: Sequence[str]) -> str:
    """Return the columns on one line, for a message."""
    names = [shown(column, 40) for column in columns[:20]]
    return ", ".join([*names, "…"] if len(columns) > 20 else names) or "no columns"


def squeeze(cell: object) -> str:
    """Return a column name without case, spaces and punctuation: `Image name` and `image_name` are the same."""
    return re.sub(r"[\W_]+", "", str(cell).lower()) if cell is not None else ""


def _encoding(path: Path) -> str:
    """Return the encoding of a text file. Spreadsheets save UTF-8 with a byte order mark, or UTF-16."""
    with open_regular_file(path) as file:
        if file.read(2) not in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-8-sig"
    try:
        with open_text(path, "utf-16") as text:
            while text.read(2**20):
                pass
    except UnicodeError as error:
        raise ManifestError(f"{path}: damaged UTF-16; save the file as UTF-8") from error
    return "utf-16"


def _read_csv(path: Path, asked: Collection[str]) -> Table:
    encoding = _encoding(path)
    # Bytes that are not UTF-8 become lone surrogates, which affect only the rows that use them.
    with open_text(path, encoding, "surrogateescape", newline="") as file:
        first_lines = [file.readline(2**16) for _ in range(_HEADER_WITHIN)]
    separator = re.fullmatch(r"\"?sep=(.)\"?[;,\t]*\s*", first_lines[0], re.IGNORECASE)
    if separator:
        delimiter = separator[1]
    elif path.suffix.lower() == ".tsv":
        delimiter = "\t"
    else:
        delimiter = _delimiter(first_lines, asked)

    def records() -> Iterator[tuple[int, Sequence[object] | str]]:
        with open_text(path, encoding, "surrogateescape", newline="") as file:
            reader = csv.reader(bounded_lines(file), delimiter=delimiter)
            for number in count(1):
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield number, f"the row cannot be read ({error})"
                    continue
                if not (separator and number == 1):
                    yield number, cells

    return _table_of_cells(path, records, asked, decimal_comma=delimiter == ";")


def _delimiter(lines: Sequence[str], asked: Collection[str]) -> str:
    """Return the delimiter that makes one of the lines a header, else the most frequent one of the first line."""
    filled = next((line for line in lines if line.strip()), "")
    candidates = sorted(",;\t", key=filled.count, reverse=True)
    for delimiter in candidates:
        with suppress(csv.Error):
            if any(_is_header(cells, asked) for cells in csv.reader(lines, delimiter=delimiter)):
                return delimiter
    return candidates[0]


def _read_xlsx(path: Path, asked: Collection[str]) -> Table:
    from sind_hf.data.readers.labels import LabelFileError, xlsx_rows

    def records() -> Iterator[tuple[int, Sequence[object] | str]]:
        try:
            yield from enumerate(xlsx_rows(path), start=1)
        except LabelFileError as error:
            raise ManifestError(str(error)) from error

    return _table_of_cells(path, records, asked)


def _table_of_cells(
    path: Path,
    records: Callable[[], Iterator[tuple[int, Sequence[object] | str]]],
    asked: Collection[str],
    decimal_comma: bool = False,
) -> Table:
    """Make a table of rows of cells as spreadsheets write them.

    They may have titles above the header, columns without a name, and empty rows and cells at the end. `records` reads
    the rows from the first: their numbers, and their cells or the reason why they cannot be read.
    """
    first = [(number, cells) for number, cells in islice(records(), _HEADER_WITHIN) if not isinstance(cells, str)]
    filled = [(number, cells) for number, cells in first if any(map(_text, cells))]
    if not filled:
        raise ManifestError(f"{path}: there is no header row; the first row must name the columns")
    header_number, header = next(((number, cells) for number, cells in filled if _is_header(cells, asked)), filled[0])
    names = {position: name for position, cell in enumerate(header) if (name := _text(cell))}
    columns = list(names.values())
    if len(set(columns)) != len(columns):
        twice = Counter(columns).most_common(1)[0][0]
        raise ManifestError(f"{path}: the column {shown(twice)} appears twice in the header; rename one")
    width, last = len(header), max(names)

    def rows() -> Iterator[tuple[int, Row]]:
        for number, cells in records():
            if number <= header_number:
                continue
            if isinstance(cells, str):
                yield number, cells
            elif not any(map(_text, cells)):
                continue  # a blank line, or one of the rows of commas that spreadsheets leave at the end
            elif len(cells) <= last or any(map(_text, cells[width:])):
                yield number, f"the row has {len(cells)} cells, the header {width}"
            else:
                yield number, {name: cells[position] for position, name in names.items()}

    return Table(columns, rows(), decimal_comma=decimal_comma)


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _is_header(cells: Sequence[object], asked: Collection[str]) -> bool:
    """Whether a row names an image and a score, or the columns that the user named."""
    names = [_text(cell) for cell in cells]
    known = {squeeze(name) for name in names if name}
    if asked:
        return all(squeeze(name) in known for name in asked)
    return all(find_column(kind, names, None, "") for kind in ("image", "score"))


def bounded_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a text file.

    Raises:
        csv.Error: If a line has more than `LONGEST_LINE` characters and could fill the memory.
    """
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise csv.Error(f"a line has more than {LONGEST_LINE:,} characters")
        yield line


def _read_jsonl(path: Path) -> Table:
    def rows() -> Iterator[tuple[int, Row]]:
        with open_text(path, _encoding(path), "surrogateescape") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), ""), start=1):
                if not line.strip():
                    continue
                if len(line) > LONGEST_LINE:
                    yield number, f"the line has more than {LONGEST_LINE:,} characters; what follows is not read"
                    return
                try:
                    value = parse_json(line)
                except ValueError as error:
                    yield number, f"the line is not JSON ({error})"
                    continue
                yield number, value if isinstance(value, dict) else "the line is not a JSON object"

    columns = _columns_of(rows())
    if not columns:
        raise ManifestError(f"{path}: no line is a JSON object; each line must be one, with an image and a score")
    return Table(columns, rows())


def _read_json(path: Path) -> Table:
    if path.stat().st_size > MOST_JSON:
        raise ManifestError(f"{path}: more than {MOST_JSON:,} bytes; save the list as JSON Lines (.jsonl)")
    try:
        value = parse_json(read_text(path, _encoding(path)))
    except ValueError as error:
        raise ManifestError(f"{path}: not JSON ({error}); check the file") from error
    if isinstance(value, dict) and "files" in value:
        raise ManifestError(f"{path}: this is a manifest already; use it as it is")
    if not isinstance(value, list):
        raise ManifestError(f"{path}: the top level must be a list of objects with an image and a score")

    rows = [item if isinstance(item, dict) else "the item is not an object" for item in value]
    return Table(_columns_of(enumerate(rows, start=1)), enumerate(rows, start=1))


def _columns_of(rows: Iterator[tuple[int, Row]]) -> list[str]:
    """Return the keys of the first 1,000 objects, in the order in which they appear."""
    columns: dict[str, None] = {}
    for _, row in islice(rows, 1000):
        if len(columns) > MOST_COLUMNS:
            break
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
    return list(columns)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet
    from datasets import Features

    try:
        file = pyarrow.parquet.ParquetFile(path)
        features = Features.from_arrow_schema(file.schema_arrow)
    except (pyarrow.ArrowException, ValueError) as error:
        raise ManifestError(f"{path}: not a Parquet table ({reason(error)}); check the file") from error

    # Lists hold no image, score or scene, and a few bytes of them may stand for any number of values.
    columns = [field.name for field in file.schema_arrow if not _holds_lists(field.type)]
    # A few bytes may repeat a large value any number of times; none is larger than the data before compression.
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > MOST_ROW_GROUP:
        raise ManifestError(f"{path}: a row group unpacks to {largest:,} bytes; write smaller row groups")
    batch_size = max(1, min(64, MOST_BATCH // max(1, largest)))

    def rows() -> Iterator[tuple[int, Row]]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, named_classes(row, features)
        except (pyarrow.ArrowException, OSError) as error:
            yield number + 1, f"the file is damaged from here on ({reason(error)})"

    return Table(columns, rows())


def _holds_lists(kind: pyarrow.DataType) -> bool:
    """Whether a type of Parquet columns is nested in another way than a struct of plain values."""
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)  # the arrays of `datasets` are an extension type
    if types.is_struct(kind):
        return any(_holds_lists(kind.field(index).type) for index in range(kind.num_fields))
    return types.is_nested(kind)


def named_classes(row: dict[str, object], features: Mapping[str, object]) -> dict[str, object]:
    """Return a row with class names in place of class numbers, in the columns that `features` declares as classes."""
    from datasets import ClassLabel

    for column, feature in features.items():
        value = row.get(column)
        if isinstance(feature, ClassLabel) and isinstance(value, int) and 0 <= value < len(feature.names):
            row[column] = feature.names[value]
    return row
