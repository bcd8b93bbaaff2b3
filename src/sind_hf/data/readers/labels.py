"""The label files of datasets: spreadsheets, delimited text, lists of names and scores, MATLAB arrays."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar
from zipfile import ZipFile

import numpy as np

from sind_hf.data.importing.tables import bounded_lines, squeeze
from sind_hf.data.readers.reader import LabelFileError
from sind_hf.files import reason
from sind_hf.image_processing_sind import open_regular_file, printable

Row = dict[str, Any]
RowT = TypeVar("RowT", bound=Sequence[Any])

# Limits of one label file. The largest dataset has a quarter of a million rows.
MOST_BYTES = 2**28
MOST_ROWS = 2_000_000
MOST_CELLS = 40_000_000
MOST_PACKED = 2**24  # bytes of a compressed file, which may unpack to a thousand times as many
MOST_UNPACKED = 2**26
MOST_STYLES = 2**21  # bytes of an unpacked part of a workbook that is neither a table nor an image
# Types of elements of MATLAB files, and classes of arrays: cells, and those of text and numbers.
_MAT_ARRAY, _MAT_COMPRESSED = 14, 15
_MAT_CELLS, _MAT_PLAIN = 1, (4, *range(6, 16))


def xlsx_table(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Read the named columns of a spreadsheet: one dictionary per row below the header.

    Args:
        path: An .xlsx file.
        columns: Columns to read, matched without regard to case, spaces and punctuation.
        sheet: Name of the sheet. Default: the first sheet.

    Raises:
        LabelFileError: If there is no such sheet, or no row names all the columns.
        ImportError: If openpyxl is not installed.
    """
    return list(table(xlsx_rows(path, sheet), columns, path))


def xlsx_rows(path: Path, sheet: str | None = None) -> Iterator[Sequence[Any]]:
    """Yield the cells of every row of a sheet; see `xlsx_table`."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ImportError(f'reading {path.name} needs openpyxl: pip install "sind-hf[data]"') from error
    with _opened(path, MOST_PACKED) as file:
        try:
            _require_small_parts(path, file)
            with closing(load_workbook(file, read_only=True, data_only=True)) as workbook:
                names = {squeeze(name): name for name in workbook.sheetnames}
                if sheet is not None and squeeze(sheet) not in names:
                    present = printable(", ".join(workbook.sheetnames))
                    raise LabelFileError(f"{path}: no sheet {sheet!r}; it has {present}")
                worksheet = workbook[names[squeeze(sheet)] if sheet is not None else workbook.sheetnames[0]]
                worksheet.reset_dimensions()  # the declared size is often wrong and would cut the table
                yield from _bounded(worksheet.iter_rows(values_only=True), path)
        except LabelFileError:
            raise
        except Exception as error:  # openpyxl raises all kinds of errors for damaged files
            raise LabelFileError(f"{path}: not a readable .xlsx file ({printable(reason(error))})") from error


def _require_small_parts(path: Path, file: BinaryIO) -> None:
    """Refuse a workbook that would fill the memory, by the sizes that its ZIP archive declares (and cannot exceed)."""
    with ZipFile(file) as archive:
        unpacked = 0
        for part in archive.infolist():
            unpacked += part.file_size
            is_table = part.filename.startswith("xl/worksheets/") or part.filename.endswith("sharedStrings.xml")
            is_image = part.filename.startswith("xl/media/")
            if unpacked > MOST_UNPACKED or (part.file_size > MOST_STYLES and not (is_table or is_image)):
                raise LabelFileError(
                    f"{path}: its part {printable(part.filename)} unpacks to {part.file_size:,} bytes, which is too "
                    "much for a table of scores; save the sheet alone in a new workbook"
                )


def _bounded(rows: Iterable[RowT], path: Path) -> Iterator[RowT]:
    """Yield the rows, and refuse a table with more rows or cells than any label file has."""
    cells = 0
    for number, row in enumerate(rows, start=1):
        cells += len(row)
        if number > MOST_ROWS or cells > MOST_CELLS:
            raise LabelFileError(f"{path}: more than {MOST_ROWS:,} rows or {MOST_CELLS:,} cells; check the file")
        yield row


def _opened(path: Path, limit: int = MOST_BYTES) -> BinaryIO:
    """Open a label file, if it is a regular file of at most `limit` bytes."""
    try:
        file = open_regular_file(path)
    except OSError as error:
        raise LabelFileError(f"{path}: cannot be read ({reason(error)})") from error
    if (size := os.fstat(file.fileno()).st_size) > limit:
        file.close()
        raise LabelFileError(f"{path}: {size:,} bytes, more than the {limit:,} of a label file; check the file")
    return file


def csv_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[Row]:
    """Read the named columns of a delimited text file; see `xlsx_table`."""
    return list(table(csv_rows(path, delimiter), columns, path, ragged=False))


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Yield the fields of every line of a delimited text file.

    Raises:
        LabelFileError: If the file is not text.
    """
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", newline="") as file:
            yield from _bounded(csv.reader(bounded_lines(file), delimiter=delimiter), path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelFileError(f"{path}: not a readable text table ({error})") from error


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str], path: Path, *, ragged: bool = True) -> Iterator[Row]:
    """Turn rows of cells into dictionaries. The header is the first row that names all the columns.

    Args:
        rows: Rows of cells.
        path: File of the rows, for messages.
        ragged: Whether rows may end early. In spreadsheets they do; in a text file it is a sign of a cut download.

    Raises:
        LabelFileError: If no row names all the columns, or a row ends early.
    """
    first: Sequence[Any] | None = None
    index: list[int] = []
    for row_number, row in enumerate(rows, start=1):
        if not index:
            first = row if first is None else first
            header = [squeeze(cell) for cell in row]
            if all(squeeze(column) in header for column in columns):
                index = [header.index(squeeze(column)) for column in columns]
            continue
        if row and not ragged and len(row) <= max(index):
            raise LabelFileError(f"{path}, row {row_number}: ends after {len(row)} fields; download the file again")
        cells = [row[i] if i < len(row) else None for i in index]
        # With a blank at its end a name would not match the same name in another file.
        cells = [cell.strip() if isinstance(cell, str) else cell for cell in cells]
        if cells[0] is not None and str(cells[0]).strip():  # spreadsheets end with empty rows
            yield dict(zip(columns, cells, strict=True))
    if not index:
        missing = [column for column in columns if squeeze(column) not in [squeeze(cell) for cell in first or ()]]
        names = printable(", ".join(str(cell) for cell in first or () if cell is not None)) or "none"
        raise LabelFileError(f"{path}: no column {', '.join(map(repr, missing))}; its columns are {names}")


def score_list(path: Path, order: Literal["name score", "score name"] = "name score") -> list[tuple[str, float]]:
    """Read a text file with an image name and a score on every line, separated by a comma, spaces or tabs.

    Raises:
        LabelFileError: If a line does not have two fields, or the file is not text.
    """
    pairs = []
    for line_number, line in enumerate(_text_lines(path), start=1):
        fields = re.split(r"\s*,\s*|\s+", line.strip())
        if fields == [""]:
            continue
        if len(fields) < 2:
            raise LabelFileError(f"{path}, line {line_number}: expected {order!r}, got {printable(line, 80)!r}")
        name, score = fields[:2] if order == "name score" else fields[1::-1]
        pairs.append((name, number(score)))
    return pairs


def _text_lines(path: Path) -> list[str]:
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig") as file:
            rows = _bounded(([line] for line in bounded_lines(file)), path)
            return [line.rstrip("\n") for (line,) in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelFileError(f"{path}: not a text file ({printable(reason(error))})") from error


def mat_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Read variables of a MATLAB file as flat arrays. Cells of text become strings.

    Raises:
        LabelFileError: If the file cannot be read or lacks a variable.
    """
    from scipy.io import loadmat, whosmat

    with _opened(path, MOST_UNPACKED) as file:
        try:
            _require_sound_variables(path, file, names)
            file.seek(0)
            variables = loadmat(file, variable_names=names)
            missing = [name for name in names if name not in variables]
            file.seek(0)
            present = printable(", ".join(name for name, *_ in whosmat(file)) or "none") if missing else ""
        except LabelFileError:
            raise
        except Exception as error:  # scipy raises all kinds of errors for damaged files
            raise LabelFileError(f"{path}: not a readable MATLAB file ({printable(reason(error))})") from error
    if missing:
        raise LabelFileError(f"{path}: no variable {missing[0]!r}; its variables are {present}")
    return tuple(_flat(variables[name]) for name in names)


def _require_sound_variables(path: Path, file: BinaryIO, names: Sequence[str]) -> None:
    """Refuse variables of a MATLAB file that declare more than they hold, or unpack to too much.

    scipy allocates the memory that a variable declares before it reads the values.
    """
    header = file.read(128)
    if 0 in header[:4]:
        return  # a file of MATLAB 4, where scipy reads before it takes memory
    order: Literal["little", "big"] = "little" if header[126:] == b"IM" else "big"
    while len(tag := file.read(8)) == 8:
        kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
        data = file.read(min(size, MOST_UNPACKED))
        if kind == _MAT_COMPRESSED:
            stream = zlib.decompressobj()
            data = stream.decompress(data, MOST_UNPACKED)[8:]
            if stream.unconsumed_tail:
                raise LabelFileError(f"{path}: unpacks to more than {MOST_UNPACKED:,} bytes; check the file")
        variable = [element for _, (_, element) in zip(range(3), _mat_elements(data, order), strict=False)]
        if len(variable) == 3 and variable[2].decode("latin-1") in names:
            _require_sound_array(data, order)


def _require_sound_array(data: bytes, order: Literal["little", "big"]) -> None:
    """Raise a ValueError unless the array and all arrays in it hold as many values as they declare."""
    if not data:
        return
    (_, flags), (_, sides), _, *values = _mat_elements(data, order)
    bits = int.from_bytes(flags[:4], order)
    count = math.prod(int.from_bytes(sides[place : place + 4], order) for place in range(0, len(sides), 4))
    if bits & 0xFF == _MAT_CELLS:
        if len(values) != count or any(kind != _MAT_ARRAY for kind, _ in values):
            raise ValueError(f"cells: {count:,} declared, {len(values):,} found")
        for _, value in values:
            _require_sound_array(value, order)
    elif bits & 0xFF not in _MAT_PLAIN:
        raise ValueError("a variable holds neither numbers, nor text, nor cells of them")
    elif len(values) != (2 if bits & 0x800 else 1) or count > len(values[0][1]):
        raise ValueError(f"{count:,} values declared, more than there are")


def _mat_elements(data: bytes, order: Literal["little", "big"]) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of the elements of a part of a MATLAB file."""
    place = 0
    while place < len(data):
        word = int.from_bytes(data[place : place + 4], order)
        if size := word >> 16:  # up to four bytes within the tag
            kind, start, end = word & 0xFFFF, place + 4, place + 8
            size = min(size, 4)
        else:
            kind, start = word, place + 8
            size = int.from_bytes(data[place + 4 : start], order)
            end = start + size + (-size % 8)
        if end > len(data):
            raise ValueError("an element ends behind the variable that holds it")
        yield kind, data[start : start + size]
        place = end


def _flat(array: np.ndarray) -> np.ndarray:
    flat = array.ravel()
    if flat.dtype == object:
        # Objects, because an array of strings takes the longest length for each of them.
        flat = np.array([str(np.asarray(cell).ravel()[0]) if np.size(cell) else "" for cell in flat], dtype=object)
    return flat


def number(value: Any) -> float:
    """Return a score as a float; NaN if it is not a number, so that only its image is left out."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
